"""A processor of its own for each worker, and for all that takes turns with it.

The pool's thread, its worker, the program's child and the process of the test code never
work at the same time. Where the scheduler sends each of them to the processor that is idle
just then, all begin with cold caches and are woken across processors: up to 1.8 times the
CPU time for a short program. So the thread is pinned before it starts the worker, and what
it starts is pinned with it.

Two judges that pinned their workers to the same processors would halve each other's speed,
so a processor is claimed first, by the name of a socket, which Linux frees when its owner
ends. A worker without a claim runs where the scheduler puts it: where there are more
workers than processors, or many judges on one machine. Claims are seen within one network
namespace; containers that share processors seldom draw the same ones, for the order is
random.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading

_SIGN = "\0stepcoder_jax/judge/processor/"  # in Linux's abstract namespace


class Processors:
    """Claims on processors that the thread which makes it may run on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = list(os.sched_getaffinity(0))
        random.shuffle(self._free)
        self._claims: dict[int, tuple[int, socket.socket]] = {}  # by slot

    def pin(self, slot: int) -> None:
        """Keep this thread, and what it starts from now on, on the processor of `slot`."""
        with self._lock:
            if slot not in self._claims and (found := self._claim()) is not None:
                self._claims[slot] = found
            claim = self._claims.get(slot)
        if claim is not None:
            with contextlib.suppress(OSError):  # no longer ours to run on
                os.sched_setaffinity(0, {claim[0]})

    def _claim(self) -> tuple[int, socket.socket] | None:
        while self._free:
            cpu = self._free.pop()
            sign = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                sign.bind(f"{_SIGN}{cpu}")
            except OSError:  # another judge's
                sign.close()
            else:
                return cpu, sign
        return None

    def release(self) -> None:
        """Give up all claims, once the workers have ended."""
        with self._lock:
            for _, sign in self._claims.values():
                sign.close()
            self._claims.clear()
