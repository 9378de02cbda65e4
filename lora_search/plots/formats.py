"""Numbers as a reader wants them: scores in the unit of their metric, parameter counts, durations, probabilities.

The minus sign is the typographic one, so that columns of signed numbers align.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_search.metrics import METRICS, direction, has_own_unit
from lora_search.statistics.wording import three_figures

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
NO_BREAK = "\N{NO-BREAK SPACE}"
_SHORT = 6


def signed(value: float, digits: int) -> str:
    """``signed(-0.62, 1) == "−0.6"``, ``signed(0.62, 1) == "+0.6"``; what rounds to zero has no sign."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


@dataclass(frozen=True)
class Unit:
    """How one metric is written. Figures and tables reckon with *merits*, of which more is better: a score itself, a
    loss with the sign turned round. Shown is the metric as it is; differences in its unit, as in the verdict.

    Attributes:
        metric: its name in running text.
        factor: what a merit is multiplied by before it is shown; negative for a loss.
        digits: decimals of a score.
        suffix: written after a score.
        point_digits: decimals of a difference.
        per: what a difference of merits is multiplied by: 100 of a share, whose hundredths are points; negative for a
            loss, of which more is worse.
        word: what differences are counted in.
    """

    metric: str
    factor: float
    digits: int
    suffix: str
    point_digits: int
    per: float = 100.0
    word: str = "points"

    @property
    def axis(self) -> str:
        """An axis title: ``accuracy (%)``."""
        if self.factor < 0:
            return f"{self.metric} ({self.word}, less is better)"
        return f"{self.metric} (%)" if self.suffix else self.metric

    @property
    def worse(self) -> str:
        """The sign of a change for the worse, as it is shown."""
        return "+" if self.factor < 0 else MINUS

    def merit(self, score: float) -> float:
        """Of a score as it is recorded."""
        return -score if self.factor < 0 else score

    @property
    def measure(self) -> str:
        """What differences are counted in, for an axis title."""
        return f"{self.word} of {self.metric}"

    def number(self, score: float) -> str:
        """A merit as the score it is, without its unit, or an en dash where there is none; what is zero has no sign."""
        return f"{score * self.factor:z.{self.digits}f}".replace("-", MINUS) if math.isfinite(score) else DASH

    def score(self, score: float) -> str:
        """A score with its unit: ``87.4 %``."""
        return self.number(score) + (self.suffix if math.isfinite(score) else "")

    def interval(self, low: float, high: float) -> str:
        """``86.1 to 88.9 %``."""
        return f"{self.number(low)} to {self.score(high)}"

    def difference(self, value: float) -> str:
        """A signed difference of merits, without the word: ``−0.6``."""
        return signed(value * self.per, self.point_digits) if math.isfinite(value) else DASH

    def differences(self, low: float, high: float) -> str:
        """Two differences of merits, the lower as it is shown first."""
        ends = (low, high) if self.per > 0 else (high, low)
        return " to ".join(map(self.difference, ends))

    def spread(self, value: float) -> str:
        """A standard deviation of scores."""
        return self.number(value if self.factor > 0 else -value)

    def to_json(self) -> dict[str, Any]:
        """What the page's own unit is made from."""
        names = ("metric", "factor", "digits", "suffix", "point_digits", "per", "word", "axis", "measure", "worse")
        return {name: getattr(self, name) for name in names}

    def step(self, value: float) -> str:
        """The same beside an axis that has the word, where there is no room for a long one."""
        return self.amount(value) if len(self.word) <= _SHORT else three_figures(value * abs(self.per))

    def amount(self, value: float) -> str:
        """An unsigned difference with the word: ``1 point``, ``0.5 points``."""
        text = three_figures(value * abs(self.per))
        return f"{text}{NO_BREAK}{'point' if text == '1' and self.word == 'points' else self.word}"


def unit_of(metric: str, margin: float = 0.01) -> Unit:
    """The unit of a metric, with a further decimal where the margin is too small to be read with the usual ones."""
    finer = int(0 < margin < 0.005)
    if metric == "accuracy":
        return Unit("accuracy", 100.0, 1 + finer, f"{NO_BREAK}%", 1 + finer)
    name = METRICS[metric].title if metric in METRICS else metric.replace("_", " ")
    if has_own_unit(metric):
        # as many decimals as it takes to read a tenth of the margin
        digits = max(0, math.ceil(-math.log10(margin)) + 1) if margin > 0 else 3
        sign = direction(metric)
        return Unit(name, sign, digits, "", digits, per=sign, word=METRICS[metric].unit)
    if metric in METRICS and METRICS[metric].unit != "points":
        sign = direction(metric)
        return Unit(name, sign, 3 + finer, "", 3 + finer, per=sign, word=METRICS[metric].unit)
    return Unit(name, 1.0, 3 + finer, "", 1 + finer)


def count(value: float) -> str:
    """A parameter count in at most three figures: ``768``, ``3.07k``, ``147k``, ``1.57M``."""
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """``0.84 s``, ``12 s``, ``3.4 min``, ``1.2 h``."""
    if not math.isfinite(seconds):
        return DASH
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g}{NO_BREAK}{unit}"
    return f"{seconds:.2g}{NO_BREAK}s"


def mebibytes(size: float) -> str:
    """``348 MiB``, ``1.2 GiB``."""
    if size >= 1024**3:
        return f"{size / 1024**3:.3g}{NO_BREAK}GiB"
    return f"{size / 1024**2:.3g}{NO_BREAK}MiB"


def percent(value: float) -> str:
    """A whole percentage, with a decimal where decisions are made (above 90), never rounded up to 100."""
    if not math.isfinite(value):
        return DASH
    if value > 0.999:
        return f">99.9{NO_BREAK}%"
    if value < 0.01:
        return f"<1{NO_BREAK}%"
    text = f"{math.floor(value * 1000 + 1e-9) / 10:.1f}" if value >= 0.9 else f"{value * 100:.0f}"
    return f"{text}{NO_BREAK}%"


def level(confidence: float) -> str:
    """A chosen level as it was written: ``0.95`` is ``95 %``, ``0.975`` is ``97.5 %``."""
    return f"{confidence * 100:.6g}{NO_BREAK}%"


def adapter(
    rank: int, targets: str, layers: str, longest: int = 28, alpha: float | None = None, variants: Sequence[str] = ()
) -> str:
    """One adapter in a label: ``r=2, attention, top-1/3``, with its alpha ``r=2 α=4, ...``, and with what it is
    besides, ``..., DoRA``; a long list of module names is cut."""
    shown = targets if len(targets) <= longest else f"{targets[: longest - 1]}…"
    told = "" if alpha is None else f" α={alpha:.4g}"
    where = "all layers" if layers == "all" else layers_name(layers)
    return ", ".join((f"r={rank}{told}", shown, where, *variants))


def layers_name(layers: str) -> str:
    """``top-1/3`` stays; ``3,4,5`` becomes ``layers 3,4,5``; ``all`` becomes ``all layers``."""
    if layers == "all":
        return "all layers"
    return layers if layers.startswith("top-") else f"layers {layers}"
