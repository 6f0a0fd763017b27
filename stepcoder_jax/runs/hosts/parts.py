"""Where a host is in its work, and when it has been there for too long."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_TIMES = 10  # a part may take so many times its median
_RECENT = 100  # durations that count
_MOST_NAMED = 8


class Position(NamedTuple):
    """The part that a host is in, or was in last."""

    part: str = ""  # "": none has begun
    iteration: int = -1
    begun: int = 0  # parts, this one included
    is_over: bool = False

    def __str__(self) -> str:
        if not self.part:
            return "at its start"
        when = "after" if self.is_over else "in"
        of = f" of iteration {self.iteration}" if self.iteration >= 0 else ""
        return f"{when} {self.part}{of}"


class Overdue(NamedTuple):
    """A part that takes too long."""

    seconds: float
    limit: float


class PartClock:
    """Durations of the parts of one host, by its watcher's clock."""

    def __init__(self) -> None:
        self.position = Position()
        self.since = 0.0
        self.durations: dict[str, list[float]] = {}

    def begin(self, part: str, iteration: int, now: float) -> None:
        """Another part begins; the one before is over."""
        self.end(now)
        self.position = Position(part, iteration, self.position.begun + 1)
        self.since = now

    def end(self, now: float) -> None:
        """The part is over, and no other has begun."""
        position = self.position
        if position.part and not position.is_over:
            known = self.durations.setdefault(position.part, [])
            known.append(now - self.since)
            del known[:-_RECENT]
            self.position = position._replace(is_over=True)

    def overdue(self, now: float, least: float) -> Overdue | None:
        """Ten times the median of the part so far, and at least `least` seconds."""
        if not self.position.part or self.position.is_over:
            return None
        known = self.durations.get(self.position.part, [])
        limit = max(least, _TIMES * statistics.median(known)) if known else least
        seconds = now - self.since
        return Overdue(seconds, limit) if seconds > limit else None


def name_hosts(hosts: Sequence[int]) -> str:
    """`host 1`, `hosts 0, 2`, `hosts 0, 1, 2 and 5 more`."""
    shown = ", ".join(map(str, hosts[:_MOST_NAMED]))
    more = len(hosts) - _MOST_NAMED
    return f"host{'s' * (len(hosts) > 1)} {shown}" + (f" and {more} more" * (more > 0))


def tell(said: Mapping[int, str]) -> str:
    """What is said of each host, those with the same together."""
    by_text: dict[str, list[int]] = {}
    for host, text in sorted(said.items()):
        by_text.setdefault(text, []).append(host)
    return ", ".join(f"{name_hosts(hosts)} {text}" for text, hosts in by_text.items())
