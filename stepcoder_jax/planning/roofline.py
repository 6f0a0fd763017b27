"""Predicted seconds: each part takes as long as what bounds it, at the chip's peak.

  seconds = max(FLOPs / peak, bytes / bandwidth, received / link + hops * HOP)

An upper bound of speed, which assumes that the three overlap fully. None of it has met a
chip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stepcoder_jax.planning.work import HOP, Work

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stepcoder_jax.planning.chips import Chip

BOUNDS = ("compute", "memory", "interconnect")


class Predicted(NamedTuple):
    """Seconds of a part in an iteration, and what they would be by each bound alone."""

    name: str
    compute: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        return max(self[1:])

    @property
    def bound(self) -> str:
        return BOUNDS[self[1:].index(self.seconds)]


def predict(name: str, work: Work, chip: Chip) -> Predicted:
    """The roofline of one part on a chip."""
    return Predicted(
        name,
        work.flops / chip.flops,
        work.memory / chip.bandwidth,
        work.traffic / chip.link + work.hops * HOP,
    )


def iteration(parts: Iterable[Predicted]) -> tuple[float, str]:
    """Seconds of an iteration, and the part and bound that take most of them."""
    parts = list(parts)
    longest = max(parts, key=lambda part: part.seconds)
    return sum(part.seconds for part in parts), f"{longest.name}: {longest.bound}"
