"""Saves beside the run: what is saved is copied, then written while the run goes on."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from stepcoder_jax.devices import sharding
from stepcoder_jax.runs.disk.interrupt import Interrupt
from stepcoder_jax.runs.hosts.channel import part


class Saver:
    """One save at a time: the next one waits for the one before.

    Whoever makes one lets `leave` end it. A thread that Python itself waits for would not
    do: at its end Python takes no more work for pools of threads, by which Orbax writes,
    before it waits, and the save under way fails.
    """

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.blocked, self.took = 0.0, math.nan  # seconds since they were last asked for
        self.last = 0.0  # seconds of the last save

    def start(self, begin: Callable[[], Callable[[], None]]) -> None:
        """Call `begin`, which copies, and let what it returns write on a thread.

        Raises what the save before, or the copying, raised. All hosts call it.
        """
        start = time.perf_counter()
        self._join()
        began = time.perf_counter()
        write = begin()

        def work() -> None:
            try:
                write()
            except BaseException as error:  # raised again by whoever waits
                self.error = error
            self.took = self.last = time.perf_counter() - began

        # a daemon, so that a second Ctrl-C ends the process at once
        self.thread = threading.Thread(target=work, name="save", daemon=True)
        self.thread.start()
        self.blocked += time.perf_counter() - start

    def wait(self) -> None:
        """Return when all is on disk; raise what the save raised. All hosts call it."""
        if self.thread is None:
            return
        start = time.perf_counter()
        with part("save"):
            self._join()
        self.blocked += time.perf_counter() - start

    def leave(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Let a save end, whatever ends the run, but for a second Ctrl-C."""
        if kind is None:
            self.wait()
        elif self.thread is not None and not issubclass(kind, KeyboardInterrupt):
            self.thread.join()
            if self.error is not None:  # it is not what ended the run
                print(f"a save failed, too: {self.error}", file=sys.stderr)

    def seconds(self) -> dict[str, float]:
        """What saves took since the last call: the run stood still, and the last to end.

        Of several hosts each looks when it waits; one alone learns here that a save failed.
        """
        if self.thread and not self.thread.is_alive() and jax.process_count() == 1:
            self._join()
        found = {"seconds/save_blocked": self.blocked, "seconds/save": self.took}
        self.blocked, self.took = 0.0, math.nan
        return found

    def _join(self) -> None:
        if self.thread is None:
            return
        self.thread.join()
        self.thread, error, self.error = None, self.error, None
        if error is not None:
            raise error
        sharding.on_first(lambda: None)  # no host goes on before it is in place
        if Interrupt.active is not None:
            Interrupt.active.save_takes(self.last)
