"""Ctrl-C, SIGTERM and the wall time as a question to a loop, which ends where it can save.

On several hosts a stop that reaches one of them is all hosts' (`runs.hosts.meeting`).
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeVar

from stepcoder_jax.runs.hosts import channel, walltime
from stepcoder_jax.runs.hosts.meeting import CODES

T = TypeVar("T")


class Stopped(BaseException):
    """The work under way is given up; nothing that it was to change has changed."""


class Interrupt:
    """Ctrl-C or SIGTERM asks the loop to stop; a second Ctrl-C stops at once.

    What runs within `breakable` is given up, anything else is ended first.
    """

    active: ClassVar[Interrupt | None] = None

    def __init__(self, minutes: float = 0.0) -> None:
        """Of `minutes`, see `walltime`; one host's clock is enough for all."""
        self.channel = channel.active()  # to the other hosts, None where there are none
        is_first = self.channel is None or self.channel.number == 0
        self.end = walltime.end_of_allocation(minutes) if is_first else None
        self.asked = 0  # the signal that came, 0 for none
        self.may_break = False

    def __enter__(self) -> Interrupt:
        self.former = {number: signal.signal(number, self.ask) for number in CODES}
        if self.channel is not None:
            signal.signal(channel.WAKE, self._wake)  # for good: one may be under way
            self.channel.is_listening = True
        Interrupt.active = self
        self.save_takes(None)
        return self

    def __exit__(self, *exception: object) -> None:
        Interrupt.active = None
        if self.end is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self.channel is not None:
            self.channel.is_listening = False
        for number, handler in self.former.items():
            # None: not set from Python, and not to be had back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def save_takes(self, seconds: float | None) -> None:
        """Stop early enough for a save that takes so long (None: not known yet)."""
        if self.end is None:
            return
        signal.signal(signal.SIGALRM, self._run_out)
        left = walltime.time_to_save(self.end, seconds, time.time())
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))

    def _run_out(self, number: int, frame: Any) -> None:
        if self.channel is not None:
            self.channel.ask_to_stop(signal.SIGTERM, "run.walltime")
        elif not self.asked:
            self._take(signal.SIGTERM, "run.walltime")

    def check(self) -> None:
        """Raise Stopped, on all hosts at the same call, where one was asked to stop.

        Of several hosts each must call it as often as the others.
        """
        if self.channel is None:
            if self.asked:
                raise Stopped
        elif not self.channel.pass_boundary():
            self._stop(self.channel)

    def _stop(self, others: channel.Channel) -> None:
        self.asked = others.stop_number
        raise Stopped

    @property
    def code(self) -> int:
        """The exit code of the process."""
        return CODES[signal.Signals(self.asked)]

    def ask(self, number: int, frame: Any) -> None:
        if self.channel is not None:
            self.channel.ask_to_stop(number, "")
            return
        if self.asked:
            if number == signal.SIGINT == self.asked:
                raise KeyboardInterrupt
            return
        self._take(number, signal.Signals(number).name)

    def _take(self, number: int, why: str) -> None:
        self.asked = number
        said = f"{why}: saving, then exit code {self.code}"
        if number == signal.SIGINT:
            said = "Ctrl-C: saving (again: at once, without)"
        print(f"\n{said}", file=sys.stderr, flush=True)
        if self.may_break:
            raise Stopped

    def _wake(self, number: int, frame: Any) -> None:
        """All hosts know where they stop."""
        self._give_up()

    def between(self, shared: Iterable[T]) -> Iterator[T]:
        """Items that all hosts make together; once they are read, a signal may break."""
        for item in shared:
            self.check()
            yield item
        self.may_break = True
        self._give_up()

    def _give_up(self) -> None:
        """Stop where no host goes on to what all share."""
        if self.channel is not None and self.may_break and self.channel.stops_here:
            self._stop(self.channel)


@contextlib.contextmanager
def breakable() -> Iterator[None]:
    """Work that a signal may give up at any point: Stopped is raised in it.

    Only where an Interrupt listens, which a command that saves nothing has not; and not
    where there are other hosts: they would part.
    """
    listening = Interrupt.active
    if listening is None or listening.channel is not None:
        yield
        return
    former, listening.may_break = listening.may_break, True
    try:
        listening.check()
        yield
    finally:
        listening.may_break = former


@contextlib.contextmanager
def breakable_share(shared: Iterable[T] = ()) -> Iterator[Iterator[T]]:
    """As `breakable`, on several hosts too: work that each does on its share of rows.

    It begins with reading `shared`, if that is given, to its end: its items all hosts make
    together, and may stop between two. Behind them each works by itself, and may stop
    anywhere, also while it waits for the slowest: all leave together.
    """
    listening = Interrupt.active
    if listening is None or listening.channel is None:
        with breakable():
            yield iter(shared)
        return
    try:
        if shared == ():
            listening.may_break = True
        yield listening.between(shared)
        listening.channel.wait_for_all()
    finally:
        listening.may_break = False
    listening.check()
