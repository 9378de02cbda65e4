"""What is no adapter beside the recommended one: scores and costs as data, and in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lora_search.metrics import METRICS
from lora_search.statistics.wording import adapter_name, percentage, three_figures


@dataclass(frozen=True)
class Compared:
    """One thing that was trained on the folds of repeat 0: a baseline, or the recommended adapter.

    Attributes:
        name: of the baseline; ``lora`` for the adapter.
        title: what tables and figures call it.
        learning_rates: at which it is scored, ascending; none where it has none.
        score_mean: over its folds; None where a fold's training failed.
        score_interval: of its true score.
        difference: to the recommended adapter's score on the same folds, positive where it scores better.
        difference_interval: of that.
        trainable_parameters: the head's among them.
        seconds: of one training, mean over folds.
        step_bytes: what its largest step holds; None where it takes none, or was not measured.
        failure: why a training failed at the rate that was chosen.
    """

    name: str
    title: str
    learning_rates: tuple[float, ...]
    score_mean: float | None
    score_interval: tuple[float, float] | None
    difference: float | None
    difference_interval: tuple[float, float] | None
    trainable_parameters: int
    seconds: float
    step_bytes: int | None
    failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "learning_rates": list(self.learning_rates),
            "score_mean": self.score_mean,
            "score_interval": _bounds(self.score_interval),
            "difference": self.difference,
            "difference_interval": _bounds(self.difference_interval),
            "trainable_parameters": self.trainable_parameters,
            "seconds": self.seconds,
            "step_bytes": self.step_bytes,
            "failure": self.failure,
        }


@dataclass(frozen=True)
class Kept:
    """The recommended adapter beside full fine-tuning.

    Attributes:
        gain, gain_interval: of full fine-tuning over the head alone, metric units; positive where it scores better.
        share, share_interval: of that gain, what LoRA keeps; None where there is none to speak of.
        parameters: its trainable parameters over full fine-tuning's.
        seconds, seconds_interval: the time of one training over that of the same fold, geometric mean.
        memory: what a step holds over full fine-tuning's; None where not measured.
    """

    gain: float
    gain_interval: tuple[float, float]
    share: float | None
    share_interval: tuple[float, float] | None
    parameters: float
    seconds: float
    seconds_interval: tuple[float, float]
    memory: float | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "gain": self.gain,
            "gain_interval": _bounds(self.gain_interval),
            "share": self.share,
            "share_interval": _bounds(self.share_interval),
            "parameters": self.parameters,
            "seconds": self.seconds,
            "seconds_interval": _bounds(self.seconds_interval),
            "memory": self.memory,
        }


@dataclass(frozen=True)
class BaselineVerdict:
    """All of it.

    Attributes:
        recommended: the adapter, on the folds of repeat 0.
        compared: every baseline.
        kept: where full fine-tuning and the head alone are among them.
        adapter: what defines the recommended one.
        metric: they are scored by.
    """

    recommended: Compared
    compared: tuple[Compared, ...]
    kept: Kept | None
    adapter: Mapping[str, Any]
    metric: str

    def sentence(self) -> str | None:
        """What LoRA keeps of full fine-tuning; None where that was not trained."""
        return None if self.kept is None else kept_sentence(self.kept, self.adapter, self.metric)

    def to_dict(self) -> dict[str, Any]:
        """For ``verdict.json``."""
        return {
            "sentence": self.sentence(),
            "recommended": self.recommended.to_dict(),
            "compared": [row.to_dict() for row in self.compared],
            "kept": None if self.kept is None else self.kept.to_dict(),
        }


def kept_sentence(kept: Kept, adapter: Mapping[str, Any], metric: str) -> str:
    """``LoRA (rank 4 on query+value of all layers) keeps 93 % (71 to 118) of what full fine-tuning gains ...``."""
    cost = f"with {percentage(kept.parameters)} of its trainable parameters, in {_times(kept.seconds)}"
    cost += f"{_span(kept.seconds_interval, _times)} of its time"
    if kept.memory is not None:
        cost += f" and {_times(kept.memory)} of its peak memory"
    name = f"LoRA ({adapter_name(adapter)})"
    if kept.share is not None and kept.share_interval is not None:
        bounds = _span(kept.share_interval, lambda share: f"{100 * share:.0f}")
        said = f"keeps {100 * kept.share:.0f} %{bounds} of what full fine-tuning gains over the head alone"
        return f"{name} {said}, {cost}."
    low, high = (_signed(end, metric) for end in kept.gain_interval)
    known = math.isfinite(sum(kept.gain_interval))
    bounds = f", between {low} and {high}" if known else ", with too few folds to say more"
    amount = f"{_signed(kept.gain, metric)} {METRICS[metric].unit}{bounds}"
    return (
        f"Full fine-tuning is not shown to gain anything over the head alone ({amount}), so there is no share of it"
        f" that {name} could keep; it trains {cost}."
    )


def _bounds(interval: tuple[float, float] | None) -> list[float | None] | None:
    return None if interval is None else [bound if math.isfinite(bound) else None for bound in interval]


def _times(ratio: float) -> str:
    return f"{ratio:.2g}"


def _signed(gain: float, metric: str) -> str:
    if METRICS[metric].unit == "points":
        return f"{100 * gain:+.1f}"
    return f"{'-' if gain < 0 else '+'}{three_figures(abs(gain))}"


def _span(interval: tuple[float, float], write: Callable[[float], str]) -> str:
    """``(0.28 to 0.35)`` with a space before it; nothing where a bound is unknown."""
    low, high = interval
    return f" ({write(low)} to {write(high)})" if math.isfinite(low + high) else ""
