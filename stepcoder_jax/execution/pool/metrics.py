"""What a pool counts of its own work."""

from __future__ import annotations

import collections
import math
import threading
from collections.abc import Sequence

from stepcoder_jax.records import Report, Verdict

_WINDOW = 4096  # programs that the percentiles are over
_PERCENTILES = (50, 95, 99)


class PoolMetrics:
    """Counters since the last reset; all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin again at nothing."""
        with self._lock:
            self._counts: collections.Counter[str] = collections.Counter()
            self._verdicts: collections.Counter[Verdict] = collections.Counter()
            self._seconds: collections.deque[float] = collections.deque(maxlen=_WINDOW)

    def count(self, name: str) -> None:
        """One more of "cache_hits", "restarts" or "retries"."""
        with self._lock:
            self._counts[name] += 1

    def answered(self, report: Report) -> None:
        """A program got its report, be it from a worker or from the cache."""
        with self._lock:
            self._verdicts[report.verdict] += 1
            if report.verdict is Verdict.PASS:  # then no test is either of these
                return
            self._counts["unfaithful"] += report.unfaithful
            self._counts["over_value_limit"] += report.over_value_limit

    def took(self, seconds: float) -> None:
        """A worker was busy with a program for so long, retries included."""
        with self._lock:
            self._seconds.append(seconds)

    def numbers(self) -> dict[str, float]:
        """Everything counted; the percentiles of seconds are nan before any program."""
        with self._lock:
            seconds = sorted(self._seconds)
            return {
                "programs": self._verdicts.total(),
                "cache_hits": self._counts["cache_hits"],
                "restarts": self._counts["restarts"],
                "retries": self._counts["retries"],
                "unfaithful": self._counts["unfaithful"],
                "over_value_limit": self._counts["over_value_limit"],
                **{
                    f"verdict/{verdict}": self._verdicts[verdict]
                    for verdict in Verdict
                    if verdict is not Verdict.NOT_RUN
                },
                **{f"seconds_p{p}": percentile(seconds, p) for p in _PERCENTILES},
            }


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` % of the values do not exceed.

    Of 1 2 3 4 the 50th is 2 and the 95th is 4; nan of none.
    """
    if not ordered:
        return math.nan
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]
