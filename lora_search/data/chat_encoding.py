"""Exchanges to token ids of which some are trained, without padding.

A conversation becomes one text by the tokenizer's chat template, and of it what the assistant says is trained, its stop
token included. Where that is, the template says itself if it has marks (``{% generation %}``). Without them it is found
by writing the conversation up to each turn: what a turn adds to the text before it is that turn. A prompt with its
completion, and a plain text, are written as they are, with the end-of-text token behind them, which is trained too.
A template that asks for today's date is told the same day every time: a study begun on one day can be gone on with on
another only if its texts are the same.

A token is trained if all its characters are: one that runs over from prompt to completion is not. Blanks count among
them, those that a byte-level tokenizer leaves out of what it says of its tokens too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lora_search.data.chat import ChatDataset, ChatReport
from lora_search.data.duplicates import encoded_copies, fold_groups
from lora_search.data.encoding import EncodedExamples, length_limit
from lora_search.data.messages import Exchange
from lora_search.data.wording import counted, rows_phrase
from lora_search.errors import DataError, Mistake, ModelError
from lora_search.spec.quoting import in_one_line, quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNTRAINED = -100
"""The target of a token that has none, as torch and transformers have it."""

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TODAY = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(?P<quote>["'])(?P<format>.*?)(?P=quote)\s*\)""")
_DAY = date(2024, 7, 26)  # the day that Llama's templates say it is where they cannot ask
_REASON_WIDTH = 200  # characters of a template's message worth repeating
_KEY = "data.train"
Indices = npt.NDArray[np.int64]
Spans = list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class EncodedExchanges(EncodedExamples):
    """n encoded exchanges.

    Attributes:
        targets: int32 (n, longest), at each token the id of the next one where that is trained, else ``UNTRAINED``.
        texts: n, what the tokenizer was given.
        adds_special: whether the tokenizer put its own special tokens around the texts.
        ends: the token put behind every text; None where the texts have it, or there is none.
    """

    targets: npt.NDArray[np.int32]
    texts: tuple[str, ...]
    adds_special: bool
    ends: int | None

    def shown(self, tokenizer: Any) -> str:
        """One example, of middle length, as the model reads it: what is trained between the marks of :func:`marked`."""
        example = int(np.argsort(self.lengths, kind="stable")[len(self) // 2])
        trained = np.concatenate([[False], self.targets[example, : self.lengths[example] - 1] != UNTRAINED])
        return marked(tokenizer, self.input_ids[example], trained)


@dataclass(frozen=True)
class _Written:
    """An exchange as one text: where it is trained, by characters."""

    text: str
    spans: Spans


def encode_chat(dataset: ChatDataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedExchanges:
    """Tokenize every exchange and say what of it is trained.

    Args:
        dataset: n exchanges.
        tokenizer: of the base model; one that says which characters a token is of.
        max_length: most tokens per example; the tokenizer's own limit lowers it. Longer ones are cut at their end.

    Raises:
        ModelError: the tokenizer does not say which characters a token is of, or has no chat template for messages.
        DataError: a conversation the template refuses, examples of which no token is trained, two tokens that begin
            the text.
    """
    if not tokenizer.is_fast:
        rule = "must have a tokenizer that says where its tokens lie (tokenizer.json) for causal-lm"
        raise ModelError.about("model.base", rule, got=type(tokenizer).__name__)
    limit = length_limit(tokenizer, max_length)
    talk = bool(dataset.exchanges[0].messages)
    writer = _Template(tokenizer) if talk else None
    written = [writer.write(each) if writer else _plain(each) for each in dataset.exchanges]
    if writer is not None:
        writer.check(dataset.rows.tolist())
    ends = None if talk else tokenizer.eos_token_id
    with _untrimmed(tokenizer):
        encoded = tokenizer(
            [each.text for each in written],
            add_special_tokens=not talk,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_token_type_ids=False,
            verbose=False,
        )
    parts = (encoded[key] for key in ("input_ids", "offset_mapping", "special_tokens_mask"))
    found = [
        _masked(each, ids, offsets, added, ends) for each, ids, offsets, added in zip(written, *parts, strict=True)
    ]
    ids = [np.array(row[:limit], dtype=np.int64) for row, _, _ in found]
    trained = [np.array(row[:limit], dtype=np.bool_) for _, row, _ in found]
    _check_tokens(dataset, tokenizer, ids, trained, limit)
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    targets = np.full((len(ids), int(lengths.max())), UNTRAINED, dtype=np.int32)
    for row, (tokens, mask) in enumerate(zip(ids, trained, strict=True)):
        targets[row, : len(tokens) - 1] = np.where(mask[1:], tokens[1:], UNTRAINED)
    same = encoded_copies(ids, None)
    report = dataset.report
    assert isinstance(report, ChatReport), "made by load_chat"
    about, warnings = _about_mask(tokenizer, writer, written, ends)
    straddled = sum(straddles for *_, straddles in found)
    if straddled:
        examples = counted(straddled, "example has a token that runs", "examples have a token that runs")
        warnings.append(
            f"{examples} over from prompt to completion, which is not trained: end prompts where a word ends."
        )
    report = replace(
        report,
        max_length=limit,
        truncated=sum(len(row) > limit for row, *_ in found),
        asked_length=max_length if limit < max_length else None,
        tokens=int(lengths.sum()),
        trained=int((targets != UNTRAINED).sum()),
        about_mask=tuple(about),
        mask_warnings=tuple(warnings),
    )
    groups = fold_groups(len(dataset), dataset.groups.tolist(), same)
    digest = hashlib.sha256(dataset.fingerprint.encode("ascii"))
    arrays: list[npt.NDArray[Any]] = [lengths, groups, targets, *ids]
    for array in arrays:
        digest.update(array.astype("<i8").tobytes())
    return EncodedExchanges(
        input_ids=tuple(ids),
        token_type_ids=None,
        labels=dataset.labels,
        label_names=dataset.label_names,
        lengths=lengths,
        groups=groups,
        report=report,
        fingerprint=digest.hexdigest(),
        targets=targets,
        texts=tuple(each.text for each in written),
        adds_special=not talk,
        ends=ends,
    )


def marked(tokenizer: Any, ids: Indices, trained: npt.NDArray[np.bool_]) -> str:
    """A row of tokens as text, what is trained of it between ``⟦`` and ``⟧``."""
    parts: list[str] = []
    edges = np.flatnonzero(np.diff(trained.astype(np.int8))) + 1
    for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(ids)], strict=True):
        text = tokenizer.decode(ids[start:stop].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        parts.append(f"⟦{text}⟧" if trained[start] else text)
    return "".join(parts)


class _Template:
    """Writes conversations by a tokenizer's chat template.

    Args:
        tokenizer: with a chat template.

    Attributes:
        template: it, with a day of ours wherever it asks for today's.
        dated: whether it does.
        marked: whether it marks what the assistant says.

    Raises:
        ModelError: it has none.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise ModelError.about(
                "model.base",
                "must have a chat template for conversations",
                got="a tokenizer without one",
                hint="name a model tuned to instructions, or give prompt and completion",
            )
        try:
            template = tokenizer.get_chat_template()
        except ValueError as error:  # several, and none of them is the usual one
            reason = in_one_line(str(error), _REASON_WIDTH)
            raise ModelError.about("model.base", "must have a default chat template", got=reason) from error
        self.template, days = _TODAY.subn(_on_our_day, template)
        self.dated = days > 0
        self.marked = bool(_MARKS.search(self.template))
        self.refusals: list[tuple[str, str]] = []

    def write(self, exchange: Exchange) -> _Written:
        """One conversation; one that the template refuses is kept for ``check``."""
        try:
            written = self._by_marks(exchange) if self.marked else self._by_prefixes(exchange)
        except _NoPrefixError:
            reason = "must be written so that each turn goes on with the text before it; give one exchange per example"
            return self._refused(reason, "a chat template that changes earlier turns")
        except Exception as error:  # what a template raises can be any error, and says what it wants
            reason = in_one_line(str(error), _REASON_WIDTH) or type(error).__name__
            return self._refused("must be a conversation that the chat template takes", reason)
        self.refusals.append(("", ""))
        return written

    def check(self, rows: Sequence[int]) -> None:
        """Raises:
        DataError: conversations were refused.
        """
        wrong: dict[tuple[str, str], list[int]] = {}
        for row, refusal in zip(rows, self.refusals, strict=True):
            if refusal[0]:
                wrong.setdefault(refusal, []).append(row)
        if wrong:
            raise DataError(
                Mistake(rule, "data.messages", f"{reason} in {rows_phrase(where)}")
                for (rule, reason), where in wrong.items()
            )

    def _refused(self, rule: str, reason: str) -> _Written:
        self.refusals.append((rule, reason))
        return _Written("", [])

    def _rendered(self, messages: Sequence[tuple[str, str]], *, begun: bool = False) -> str:
        turns = [{"role": role, "content": content} for role, content in messages]
        text = self.tokenizer.apply_chat_template(
            turns, chat_template=self.template, tokenize=False, add_generation_prompt=begun
        )
        assert isinstance(text, str), "not tokenized"
        return text

    def _by_marks(self, exchange: Exchange) -> _Written:
        from transformers.utils.chat_template_utils import render_jinja_template

        turns = [{"role": role, "content": content} for role, content in exchange.messages]
        rendered: Any = render_jinja_template(
            conversations=[turns],
            chat_template=self.template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        (text,), (spans,) = rendered
        own = [(int(start), int(stop)) for start, stop in spans]
        if exchange.untrained:  # which turn a mark is of, no mark says
            trained = self._by_prefixes(exchange).spans
            own = [span for span in own if any(first <= span[0] < last for first, last in trained)]
        return _Written(text, own[-1:] if exchange.last_only else own)

    def _by_prefixes(self, exchange: Exchange) -> _Written:
        messages = exchange.messages
        whole = self._rendered(messages)
        spans: Spans = []
        for place in filter(exchange.is_trained, range(len(messages))):
            before, after = self._rendered(messages[:place], begun=True), self._rendered(messages[: place + 1])
            if not (whole.startswith(after) and after.startswith(before)):
                raise _NoPrefixError
            spans.append((len(before), len(before) + len(self._to_the_stop(after[len(before) :]))))
        return _Written(whole, spans)

    def _to_the_stop(self, said: str) -> str:
        """Without the blanks behind a stop token: whoever generates stops before them."""
        bare = said.rstrip()
        return bare if any(bare.endswith(token) for token in self.tokenizer.all_special_tokens) else said


def _on_our_day(asked: re.Match[str]) -> str:
    """What a template would be told, as a literal: transformers hands no function of ours to it."""
    return asked["quote"] + _DAY.strftime(asked["format"]) + asked["quote"]


class _NoPrefixError(Exception):
    """What a template writes of some turns is no beginning of what it writes of more."""


def _plain(exchange: Exchange) -> _Written:
    text = exchange.prompt + exchange.completion
    return _Written(text, [(len(exchange.prompt), len(text))])


@contextmanager
def _untrimmed(tokenizer: Any) -> Iterator[None]:
    """Inside the block a token's characters are all of them: byte-level tokenizers may leave out blanks at its ends, so
    that one of nothing else seems to be of no character."""

    def whole(part: dict[str, Any]) -> dict[str, Any]:
        return {**part, "trim_offsets": False} if "trim_offsets" in part else part

    backend = tokenizer.backend_tokenizer
    own = backend.post_processor
    if own is not None:  # one, or several in a row
        exact = deepcopy(own)
        exact.__setstate__(json.dumps(json.loads(own.__getstate__(), object_hook=whole)).encode())
        backend.post_processor = exact
    try:
        yield
    finally:
        backend.post_processor = own


def _masked(
    written: _Written, ids: Sequence[int], offsets: Sequence[tuple[int, int]], added: Sequence[int], ends: int | None
) -> tuple[list[int], list[bool], bool]:
    """The tokens, which of them are trained, and whether one of them runs over the beginning of what is.

    Args:
        written: the text.
        ids, offsets: of its tokens, with the characters each is of; of none, as the mark some tokenizers put before
            the first word, it is part of what comes next.
        added: whether the tokenizer put it there, so that it is no part of the text.
        ends: the token to end with.
    """
    trained = [False] * len(ids)
    straddles = False
    for first, last in written.spans:
        for place, (start, stop) in enumerate(offsets):
            if start >= last:
                break
            if start >= first and not added[place]:
                trained[place] = True
            straddles |= start < first < stop
    tokens = list(ids)
    if ends is not None:
        if not tokens or tokens[-1] != ends:
            tokens.append(ends)
            trained.append(False)
        trained[-1] = True
    return tokens, trained, straddles


def _check_tokens(
    dataset: ChatDataset,
    tokenizer: Any,
    ids: Sequence[Indices],
    trained: Sequence[npt.NDArray[np.bool_]],
    limit: int,
) -> None:
    rows = dataset.rows.tolist()
    # the first token has none before it that could tell it
    none = [row for row, mask in zip(rows, trained, strict=True) if not mask[1:].any()]
    begin = tokenizer.bos_token_id
    twice = [row for row, each in zip(rows, ids, strict=True) if begin is not None and (each[:2] == begin).sum() > 1]
    mistakes = []
    if none:
        rule = f"must leave a trained token of every example within {limit} tokens"
        hint = "raise it, or leave these examples out"
        mistakes.append(Mistake(rule, "data.max_length", f"none of {rows_phrase(none)}", hint=hint))
    if twice:
        rule = f"must begin with one {quoted(tokenizer.bos_token)}"
        hint = "the tokenizer, or its chat template, puts it there: leave it out of the data"
        mistakes.append(Mistake(rule, _KEY, f"two in {rows_phrase(twice)}", hint=hint))
    if mistakes:
        raise DataError(mistakes)


def _about_mask(
    tokenizer: Any, writer: _Template | None, written: Sequence[_Written], ends: int | None
) -> tuple[list[str], list[str]]:
    """What is trained and how it was found, and what is odd about it; sentences."""
    if writer is None:
        what = "the completion" if any(each.spans[0][0] for each in written) else "every token of a text but the first"
        end = f", and {quoted(tokenizer.eos_token)} behind it" if ends is not None else ""
        odd = [] if ends is not None else ["The tokenizer has no end-of-text token: no example teaches when to stop."]
        return [f"The loss is on {what}{end}."], odd
    about = ["The loss is on what the assistant says alone."]
    if not writer.marked:
        about.append(
            "The chat template has no marks of it ({% generation %}): it is found by writing each conversation up to"
            " every turn."
        )
    if writer.dated:
        about.append(
            f"The chat template tells today's date: here it is {_DAY:%d %B %Y} in every conversation, so that texts"
            " stay the same from day to day; whoever uses the model tells it another."
        )
    stops = Counter(_stop_of(each, stop, tokenizer.all_special_tokens) for each in written for _, stop in each.spans)
    odd = []
    if stops["none"]:
        turns = counted(stops["none"], "turn ends", "turns end")
        odd.append(f"{turns} with no special token: nothing teaches the model when to stop.")
    if stops["outside"]:
        turns = counted(stops["outside"], "turn has", "turns have")
        odd.append(f"{turns} the stop token outside what is trained: the model will not learn when to stop.")
    return about, odd


def _stop_of(written: _Written, stop: int, special: Sequence[str]) -> str:
    """Whether what is trained up to a character ends with a special token, or one stands behind it."""
    if any(written.text[:stop].rstrip().endswith(token) for token in special):
        return "inside"
    return "outside" if any(written.text[stop:].lstrip().startswith(token) for token in special) else "none"


def rows_of_tokens(data: EncodedExchanges, examples: Indices, tokenizer: Any) -> Iterator[list[int]]:
    """What a tokenizer makes of the texts of some examples, as ``encode_chat`` would have it of ours."""
    texts = [data.texts[example] for example in examples]
    encoded = tokenizer(
        texts, add_special_tokens=data.adds_special, padding=False, truncation=False, return_attention_mask=False
    )
    for example, ids in zip(examples, encoded["input_ids"], strict=True):
        behind = [] if data.ends is None or (ids and ids[-1] == data.ends) else [data.ends]
        yield [*ids, *behind][: data.lengths[example]]
