"""Ctrl-C and SIGTERM as a question to a loop, which ends where it can save."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

from stepcoder_jax.devices import sharding

TERMINATED = os.EX_TEMPFAIL  # 75: stopped from outside; start it again
CODES = {signal.SIGINT: 130, signal.SIGTERM: TERMINATED}


class Stopped(BaseException):
    """The work under way is given up; nothing that it was to change has changed."""


class Interrupt:
    """Ctrl-C or SIGTERM asks the loop to stop; a second Ctrl-C stops at once.

    What runs within `breakable` is given up, anything else is ended first. On several
    hosts (`at_once` False) nothing is given up: the hosts would part.
    """

    active: ClassVar[Interrupt | None] = None

    def __init__(self, at_once: bool) -> None:
        self.at_once = at_once
        self.asked = 0  # the signal that came, 0 for none
        self.may_break = False

    def __enter__(self) -> Interrupt:
        self.former = {number: signal.signal(number, self.ask) for number in CODES}
        Interrupt.active = self
        return self

    def __exit__(self, *exception: object) -> None:
        Interrupt.active = None
        for number, handler in self.former.items():
            # None: not set from Python, and not to be had back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def check(self) -> None:
        """Raise Stopped, on all hosts, where a signal has come to one of them."""
        self.asked = sharding.highest(self.asked)
        if self.asked:
            raise Stopped

    @property
    def code(self) -> int:
        """The exit code of the process."""
        return CODES[signal.Signals(self.asked)]

    def ask(self, number: int, frame: Any) -> None:
        if self.asked:
            if number == signal.SIGINT == self.asked:
                raise KeyboardInterrupt
            return
        self.asked = number
        print(f"\n{self._say()}", file=sys.stderr, flush=True)
        if self.may_break:
            raise Stopped

    def _say(self) -> str:
        now = "saving" if self.at_once else "saving after this iteration"
        if self.asked == signal.SIGTERM:
            return f"SIGTERM: {now}, then exit code {TERMINATED}"
        return f"Ctrl-C: {now} (again: at once, without)"


@contextlib.contextmanager
def breakable() -> Iterator[None]:
    """Work that a signal may give up at any point: Stopped is raised in it.

    Only where an Interrupt listens, which a command that saves nothing has not.
    """
    listening = Interrupt.active
    if listening is None or not listening.at_once:
        yield
        return
    listening.may_break = True
    try:
        if listening.asked:
            raise Stopped
        yield
    finally:
        listening.may_break = False
