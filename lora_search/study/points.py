"""The points of a space that are adapters of their own.

Two choices can come to one adapter where ranks differ by module: ``mlp:0.5`` changes nothing of an adapter that is on
attention alone; on the MLP alone it is one of half the rank; and rank 4 with attention x 2 is rank 8 with mlp x 0.5.
Of such choices one is a point, the first; and an adapter that has one rank after all is told as what it is.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from typing import Any

from lora_search.models import module_ranks
from lora_search.spec import UNIFORM, AdapterSpec
from lora_search.spec.facts import Point
from lora_search.study.preparation import Prepared
from lora_search.study.space import adapter_choices

_Key = tuple[Any, ...]


class Points:
    """The different adapters of an experiment's space.

    Args:
        prepared: the experiment; EVA has to be known if it is a choice.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self.search = prepared.experiment.search
        choices = adapter_choices(self.search)
        # so that what others are too is told as plain as can be
        patterns = sorted(self.search.rank_pattern, key=lambda pattern: pattern != UNIFORM)
        names = [*(name for name in choices if name != "rank_pattern"), "rank_pattern"]
        lists = [patterns if name == "rank_pattern" else choices[name] for name in names]
        self._found: dict[_Key, tuple[Point, AdapterSpec]] = {}
        for chosen in sorted(product(*lists), key=lambda point: point[-1] != UNIFORM):
            named = dict(zip(names, chosen, strict=True))
            spec = self.search.adapter(**named)
            point: Point = {name: named[name] for name in choices}  # type: ignore[assignment]
            self._found.setdefault(self._key(spec), (point, self._told(spec)))

    @property
    def adapters(self) -> tuple[AdapterSpec, ...]:
        """All of them."""
        return tuple(spec for _, spec in self._found.values())

    @property
    def own(self) -> Collection[tuple[Any, ...]]:
        """Their points, as ``sampler_for`` wants them."""
        return {tuple(point.values()) for point, _ in self._found.values()}

    def adapter(self, spec: AdapterSpec) -> AdapterSpec:
        """The adapter that a choice comes to."""
        return self._found[self._key(spec)][1]

    def point(self, spec: AdapterSpec) -> Point:
        """The choices that an adapter is made of."""
        return self._found[self._key(spec)][0]

    def _ranks(self, spec: AdapterSpec) -> tuple[int, ...]:
        modules = self._prepared.named_by(spec)
        return tuple(module_ranks(modules, spec, self._prepared.explained).values())

    def _key(self, spec: AdapterSpec) -> _Key:
        # alpha is a product of the file's numbers, which rounds
        scale = float(f"{spec.scale:.9g}")
        return spec.targets, spec.layers, spec.use_dora, scale, self._ranks(spec)

    def _told(self, spec: AdapterSpec) -> AdapterSpec:
        ranks = set(self._ranks(spec))
        return spec.uniform_at(min(ranks)) if len(ranks) == 1 and spec.rank_pattern != UNIFORM else spec


def points_of(prepared: Prepared) -> Points | None:
    """The different adapters of a space; None where every choice is one, as far as its words tell."""
    return None if prepared.experiment.search.rank_pattern == (UNIFORM,) else Points(prepared)
