"""What was read, what was left out, and what a reader of the verdict should know about the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lora_search.data.labels import group_lookalikes_sentence, lookalikes_sentence
from lora_search.data.wording import counted, labels_phrase, rows_phrase
from lora_search.spec.quoting import quoted


@dataclass(frozen=True)
class DataReport:
    """Facts about one dataset, as used.

    Attributes:
        source: where it came from, as the user wrote it.
        rows: data rows in the source.
        dropped: label -> rows dropped with it, of ``drop_labels``.
        sampled_from: examples before ``max_examples`` took its sample; None if it took none.
        label_counts: label -> examples.
        group_column, group_count: the user's groups; None without.
        duplicate_texts: distinct texts that occur more than once.
        duplicate_examples: examples that carry one of them.
        contradictions: for each text with more than one label, its data row numbers.
        max_length: the most tokens an example has, and
        truncated: how many were cut to that; both None before encoding.
        asked_length: the ``max_length`` asked for, where the tokenizer allows less; else None.
        lookalikes: groups of labels that look alike, as ``labels.lookalikes`` finds them.
        group_lookalikes: the same of the user's groups.
        perhaps_missing: label -> examples, for labels that are often written where there is none.
        missing_groups, missing_texts: the same of the user's groups, and of texts that are such a word and no more.
        swapped_pairs: distinct text pairs that occur both ways round.
        notes: how the source was read where that is not the usual way, as sentences.
        alike: examples that have the tokens of one with another text; None before encoding.
        blank: examples of special and unknown tokens only; None before encoding.
    """

    source: str
    rows: int
    dropped: Mapping[str, int]
    sampled_from: int | None
    label_counts: Mapping[str, int]
    group_column: str | None
    group_count: int | None
    duplicate_texts: int
    duplicate_examples: int
    contradictions: tuple[tuple[int, ...], ...]
    max_length: int | None = None
    truncated: int | None = None
    asked_length: int | None = None
    lookalikes: tuple[tuple[str, ...], ...] = ()
    group_lookalikes: tuple[tuple[str, ...], ...] = ()
    perhaps_missing: Mapping[str, int] = field(default_factory=dict)
    missing_groups: Mapping[str, int] = field(default_factory=dict)
    missing_texts: Mapping[str, int] = field(default_factory=dict)
    swapped_pairs: int = 0
    notes: tuple[str, ...] = ()
    alike: int | None = None
    blank: int | None = None

    @property
    def examples(self) -> int:
        """Examples in use, hold-out included."""
        return sum(self.label_counts.values())

    @property
    def occurrences(self) -> Mapping[str, int]:
        """Label -> examples that have it."""
        return self.label_counts

    @property
    def truncated_share(self) -> float | None:
        """Share of the examples cut at ``max_length`` tokens, 0 to 1; None before encoding."""
        return None if self.truncated is None else self.truncated / self.examples

    def sentences(self) -> tuple[str, ...]:
        """The facts as sentences, the ordinary ones first."""
        return (
            *self._about_size(),
            *self.notes,
            *self._about_duplicates(),
            *self._about_lengths(),
            *self.warnings(),
        )

    def warnings(self) -> tuple[str, ...]:
        """What makes the data other than they look, as sentences; usually none."""
        warnings = []
        if self.lookalikes:
            warnings.append(lookalikes_sentence(self.lookalikes, self.occurrences))
        if self.group_lookalikes:
            warnings.append(group_lookalikes_sentence(self.group_lookalikes))
        for words, what, remedy in (
            (self.perhaps_missing, "a label", "name it in data.drop_labels"),
            (self.missing_groups, "a group", "give each of its rows a group of its own"),
            (self.missing_texts, "all of a text", "leave these rows out of the data"),
        ):
            if words:
                warnings.append(_perhaps_missing(words, what, remedy))
        if self.alike:
            warnings.append(f"Warning: {self.alike_phrase()}; copies as encoded stay in one fold.")
        if self.blank:
            warnings.append(
                f"Warning: {self.blank} of {self.examples} examples are empty but for special and unknown tokens once"
                " encoded."
            )
        return tuple(warnings)

    def alike_phrase(self) -> str:
        """How many examples the model cannot tell from others."""
        return (
            f"{self.alike} of {self.examples} examples are alike once encoded, though their texts differ (cut at"
            f" {self.max_length} tokens, or of characters the tokenizer does not know or drops)"
        )

    def _about_size(self) -> list[str]:
        labels = labels_phrase(self.label_counts)
        sentences = [f"{self.examples} examples of {len(self.label_counts)} labels: {labels}."]
        if self.dropped:
            sentences.append(f"Rows dropped by label: {labels_phrase(self.dropped)}.")
        if self.sampled_from is not None:
            sentences.append(f"Sampled from {self.sampled_from} examples, each label in proportion.")
        return [*sentences, *self._about_groups()]

    def _about_groups(self) -> list[str]:
        if self.group_count is None:
            return []
        return [f"{self.group_count} groups ({self.group_column}), each whole in one fold."]

    def _about_duplicates(self) -> list[str]:
        sentences = []
        if self.duplicate_texts:
            sentences.append(
                f"{counted(self.duplicate_texts, 'text occurs', 'texts occur')} more than once "
                f"({self.duplicate_examples} examples); copies stay in one fold."
            )
        if self.swapped_pairs:
            pairs = counted(self.swapped_pairs, "text pair occurs", "text pairs occur")
            sentences.append(f"{pairs} both ways round; both stay in one fold.")
        if self.contradictions:
            sentences.append(
                f"{counted(len(self.contradictions), 'text occurs', 'texts occur')} with more than one label, "
                f"the first in {rows_phrase(self.contradictions[0])}."
            )
        return sentences

    def _about_lengths(self) -> list[str]:
        sentences = []
        if self.asked_length is not None:
            sentences.append(f"max_length {self.asked_length} is lowered to {self.max_length}, the tokenizer's limit.")
        if self.truncated and self.truncated_share is not None:
            cut = counted(self.truncated, "example is", "examples are")
            sentences.append(f"{cut} cut at {self.max_length} tokens ({self.truncated_share:.1%}).")
        return sentences


def _perhaps_missing(words: Mapping[str, int], what: str, remedy: str) -> str:
    """That words are in use (word -> examples) which may stand for nothing."""
    counts = " and ".join(f"{quoted(word)} ({count})" for word, count in words.items())
    return f"Warning: {counts} is {what} here, though it is often written where there is none; if so, {remedy}."
