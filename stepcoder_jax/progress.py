"""How far the work is: a bar on a terminal, plain lines of a log everywhere else."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Self

from tqdm import tqdm

_LINES = 10  # a count of a log has at most so many lines
_APART = 10.0  # and seconds between two of them, but for the last


class Progress:
    """`total` steps (0: nobody knows), of which `first` are done, told on standard error.

    Where there is no terminal nothing is drawn over: no carriage return, no colour.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        title: str = "",
        *,
        first: int = 0,
        is_quiet: bool = False,
    ) -> None:
        self.total, self.unit, self.title, self.is_quiet = total, unit, title, is_quiet
        self.done, self.start = first, time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty() and not is_quiet:
            self.bar = tqdm(
                total=total or None,
                desc=title,
                unit=unit,
                initial=first,
                dynamic_ncols=True,
                leave=None,  # a bar inside another's step goes when it is full
            )

    def write(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self.bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class StepProgress(Progress):
    """Steps that each have something to tell: one line of a log per step."""

    def update(self, said: str) -> None:
        """One step is done, and these are its numbers."""
        self.done += 1
        if self.bar is None:
            of = f"/{self.total}" if self.total else ""
            self.write(f"{self.unit} {self.done}{of}  {said}")
        else:
            self.bar.update()
            self.bar.set_postfix_str(said)


def describe_iteration(metrics: Mapping[str, Any], rollouts: int, mark: str) -> str:
    """The numbers of an iteration of RL that matter, from its row of metrics.

    `mark` says why it taught nothing, where it did not.
    """
    parts = " ".join(
        f"{name}={metrics['seconds/' + name]:.1f}s"
        for name in ("sample", "judge", "update")
    )
    return (f"[{mark}] " if mark else "") + (
        f"reward={metrics['reward']:+.2f} pass={metrics['pass_rate']:.2f} "
        f"KL={float(metrics['kl']):.3f} stage0={metrics['cccs/stage0_share']:.2f} "
        f"masked={metrics['fgo/masked']:.2f}{describe_validation(metrics)} "
        f"rollouts/s={rollouts / metrics['seconds/iteration']:.0f} {parts}"
    )


def describe_tokens(metrics: Mapping[str, Any], limit: int) -> str:
    """How far a run is whose end is set in generated tokens; "" for any other."""
    if not limit:
        return ""
    return f" tokens={metrics['tokens/generated'] / 1e3:.0f}k/{limit / 1e3:.0f}k"


def describe_update(metrics: Mapping[str, Any]) -> str:
    """The numbers of an update of SFT that matter, from its row of metrics."""
    return (
        f"epoch={metrics['epoch']} loss={metrics['loss']:.4f}"
        f"{describe_validation(metrics)} tokens/s={metrics['tokens_per_second']:.0f}"
    )


def describe_validation(metrics: Mapping[str, Any]) -> str:
    """The greedy pass rate, in the steps that measured it."""
    rate = metrics.get("validation/pass@1")
    return "" if rate is None or math.isnan(rate) else f" validation={rate:.3f}"


class CountProgress(Progress):
    """Many small steps: a few lines of a log, at tenths of the whole and at its end."""

    def __init__(
        self, total: int, unit: str, title: str = "", *, is_quiet: bool = False
    ) -> None:
        super().__init__(total, unit, title, is_quiet=is_quiet)
        self.told = self.start

    def update(self) -> None:
        """One step is done."""
        self.done += 1
        if self.bar is not None:
            self.bar.update()
        elif not self.is_quiet and self._is_due():
            self.told = time.monotonic()
            title = self.title and f"{self.title}: "
            seconds = self.told - self.start
            self.write(f"{title}{self.done}/{self.total} {self.unit}s, {seconds:.0f} s")

    def _is_due(self) -> bool:
        if self.done == self.total:
            return True
        is_tenth = self.done % max(1, self.total // _LINES) == 0
        return is_tenth and time.monotonic() - self.told >= _APART
