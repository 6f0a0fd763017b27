"""The trainer's side of its watcher: what it tells, and what it is told.

A process that is alone has no channel: `active()` is None, and the functions below cost it
nothing. A thread reads, so that a question is answered while the main thread waits in a
collective. Boundaries are points that all hosts come to in the same order, without a
collective of their own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from stepcoder_jax.execution.sandbox.confinement import die_with_parent
from stepcoder_jax.runs.hosts.meeting import BROKEN
from stepcoder_jax.runs.hosts.wire import Lines, Message, pack
from stepcoder_jax.runs.hosts.words import is_severed

# Set by a watcher for its trainer: the channel's file descriptor, the watcher's pid, and
# the number of this host.
CHANNEL_VARIABLE = "STEPCODER_CHANNEL"
WAKE = signal.SIGUSR2  # the main thread is to look at what the channel's thread has read
STACKS = signal.SIGUSR1  # all threads' stacks are to be printed
_LAST = 60.0  # seconds that a trainer waits for its end once it has told of an error

_active: list[Channel] = []


class OthersError(Exception):
    """Another host has an error of its own, which it tells once all can end with it."""


def active() -> Channel | None:
    """This process's channel, None where it is alone."""
    return _active[0] if _active else None


def adopt() -> Channel | None:
    """Take up the channel that a watcher made for this process, if one did."""
    said = os.environ.pop(CHANNEL_VARIABLE, "")
    if not said:
        return None
    descriptor, watcher, number = map(int, said.split(","))
    os.set_inheritable(descriptor, False)
    die_with_parent(watcher)
    faulthandler.register(STACKS, all_threads=True)
    _active.append(Channel(socket.socket(fileno=descriptor), number))
    return _active[0]


class Channel:
    """What one trainer tells its watcher, and hears from it."""

    def __init__(self, end: socket.socket, number: int) -> None:
        self.end, self.number = end, number
        self.passed = 0  # boundaries
        self.stop_number = 0  # the signal that is to end the run; 0: none
        self.is_listening = False  # something saves when it is told to stop
        self._stop_at: int | None = None  # the boundary not to pass
        self._is_held = False  # asked where we are, not told yet where to stop
        self._gathered: dict[str, list[Any]] = {}
        self._at_end: list[Callable[[], None]] = []
        self._depth, self._iteration = 0, -1  # of parts
        self._changed = threading.Condition()
        self._main = threading.main_thread()
        self._sending = threading.Lock()
        threading.Thread(target=self._read, name="channel", daemon=True).start()

    def send(self, message: Message) -> None:
        with self._sending:
            self.end.sendall(pack(message))

    def _read(self) -> None:
        lines = Lines()
        with contextlib.suppress(OSError):
            while read := self.end.recv(1 << 16):
                for message in lines.feed(read):
                    self._take(message)
        os._exit(BROKEN)  # nobody watches: the others end as well

    def _take(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "end":
            for action in self._at_end:
                action()
            os._exit(message["code"])
        elif kind == "where":
            self.send({"kind": "here", "passed": self.passed, "state": "runs"})
        with self._changed:
            if kind == "gathered":
                self._gathered[message["name"]] = message["values"]
            elif kind == "stop":
                self.stop_number = message["number"]
                self._is_held = self.is_listening
                passed = self.passed if self.is_listening else None
                self.send({"kind": "passed", "passed": passed})
            elif kind == "stop_at":
                self._stop_at, self._is_held = message["boundary"], False
                signal.pthread_kill(self._main.ident or 0, WAKE)
            self._changed.notify_all()

    def ask_to_stop(self, number: int, why: str) -> None:
        """Have all hosts stop, as the signal would; from a handler of signals, too."""
        said = {"kind": "signal", "number": number, "again": False, "why": why}
        # in a thread: the one that the signal interrupts may hold the lock
        threading.Thread(target=self.send, args=(said,), daemon=True).start()

    @property
    def stops_here(self) -> bool:
        """Whether no host passes the next boundary: what is between may be given up."""
        return self._stop_at is not None and self.passed + 1 >= self._stop_at

    def pass_boundary(self) -> bool:
        """Go on to what lies behind the next boundary; False where all stop before it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_held)
            if self.stops_here:
                return False
            self.passed += 1
            return True

    def wait_for_all(self) -> None:
        """Until all hosts have called it between the same two boundaries."""
        self.gather(f"boundary {self.passed + 1}", None, is_patient=True)

    def gather(self, name: str, value: Any, is_patient: bool = False) -> list[Any]:
        """Each host's value, by its number; all must call it. JSON, small.

        Who does not within run.join_minutes is named, and all end; not if `is_patient`.
        """
        told = {"kind": "gather", "name": name, "value": value, "patient": is_patient}
        self.send(told)
        with self._changed:
            self._changed.wait_for(lambda: name in self._gathered)
            return self._gathered.pop(name)

    @contextlib.contextmanager
    def part(self, name: str, iteration: int) -> Iterator[None]:
        """Work that may not take for ever; one inside another counts as that other."""
        self._depth += 1
        if self._depth == 1:
            self._iteration = iteration
            self._tell_part(name)
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._tell_part("")

    def turn(self, name: str) -> None:
        """The part goes over into another, unless it is inside of one."""
        if self._depth == 1:
            self._tell_part(name)

    def _tell_part(self, name: str) -> None:
        self.send({"kind": "part", "part": name, "iteration": self._iteration})

    @contextlib.contextmanager
    def at_end(self, action: Callable[[], None]) -> Iterator[None]:
        """Have `action` done, by another thread, where all hosts end meanwhile."""
        self._at_end.append(action)
        try:
            yield
        finally:
            self._at_end.remove(action)

    def conduct(self, work: Callable[[], tuple[int, str]]) -> int:
        """The exit code of `work`, which gives it with the line that says why.

        An error is told to all hosts, and the watcher ends this process.
        """
        try:
            code, line = work()
        except SystemExit as stop:
            code, line = int(stop.code or 0), ""
        except OthersError:
            self._wait_for_end(BROKEN)
        except BaseException as error:  # whatever it is, the other hosts must not wait
            self._fail(error)
        if line:
            self.send({"kind": "input", "line": line, "code": code})
            self._wait_for_end(code)
        self.send({"kind": "done", "code": code})
        return code

    def _fail(self, error: BaseException) -> NoReturn:
        severed = type(error).__module__.startswith("jax") and is_severed(str(error))
        if not severed:
            traceback.print_exception(error)
            sys.stderr.flush()
        said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        told = {"kind": "error", "line": said, "code": 1, "severed": severed}
        self.send(told)
        self._wait_for_end(1)

    def _wait_for_end(self, code: int) -> NoReturn:
        """Until the watcher ends us: JAX's own way out would wait for the other hosts."""
        time.sleep(_LAST)
        os._exit(code)


def part(name: str, iteration: int = -1) -> contextlib.AbstractContextManager[None]:
    """`Channel.part`, where there is a channel."""
    channel = active()
    return channel.part(name, iteration) if channel else contextlib.nullcontext()


def turn(name: str) -> None:
    """`Channel.turn`, where there is a channel."""
    if channel := active():
        channel.turn(name)


@contextlib.contextmanager
def together(name: str, *kinds: type[Exception]) -> Iterator[None]:
    """Work of each host on its own rows; an error of these kinds on one of them stops all.

    They come to the end of the block together: who failed raises its error there, the
    others OthersError, so that all can still do what takes all of them. `name` tells one
    block from another. Without `kinds`, or alone, it is as if it were not there.
    """
    hosts, failed = active() if kinds else None, None
    try:
        yield
    except kinds as error:
        if hosts is None:
            raise
        failed = error
    if hosts is None:
        return
    others = hosts.gather(name, failed is not None, is_patient=True)
    if failed is not None:
        raise failed
    if any(others):
        raise OthersError


def at_end(action: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
    """`Channel.at_end`, where there is a channel."""
    channel = active()
    return channel.at_end(action) if channel else contextlib.nullcontext()
