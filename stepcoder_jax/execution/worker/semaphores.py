"""The semaphores of `multiprocessing`, for programs that cannot have a second process.

The C ones are files in /dev/shm, which the sandbox closes; without them even pools of
threads cannot be made, for these take their queue from there. Threads need no more than a
lock and a count. They behave as `_multiprocessing.SemLock` does on Linux.
"""

from __future__ import annotations

import _thread
import errno
import sys
import types
from typing import Any

_RECURSIVE = 0  # multiprocessing.synchronize.RECURSIVE_MUTEX
_SEM_VALUE_MAX = (1 << 31) - 1
_LONG = 1e6  # seconds: longer than any program has


class SemLock:
    """A semaphore, or with `kind` 0 a lock that its owner may take again.

    The value is the number of times that it can still be taken; a lock's is 1 or 0.
    `name` is None, as of a C one that was unlinked: nobody else can open it.
    """

    SEM_VALUE_MAX = _SEM_VALUE_MAX

    def __init__(
        self, kind: int, value: int, maxvalue: int, name: str, unlink: bool
    ) -> None:
        if kind not in (0, 1):
            raise ValueError("unrecognized kind")
        if value < 0:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.kind, self.maxvalue, self.name, self.handle = kind, maxvalue, None, id(self)
        self._value, self._owner, self._held = value, 0, 0
        self._guard = _thread.allocate_lock()
        self._waiting: list[Any] = []  # locks, each held until its waiter has its turn

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it, at once or by `timeout` seconds from now; whether it was taken."""
        if self.kind == _RECURSIVE and self._is_mine():
            self._held += 1
            return True
        with self._guard:
            if self._value:
                self._value -= 1
                self._take()
                return True
            if not block or (timeout is not None and timeout <= 0):
                return False
            turn = _thread.allocate_lock()
            turn.acquire()
            self._waiting.append(turn)
        if not self._wait(turn, timeout):
            return False
        self._take()
        return True

    def _wait(self, turn: Any, timeout: float | None) -> bool:
        """Wait for a turn, which `release` gives; whether it came."""
        try:
            came = turn.acquire(True, -1 if timeout is None else min(timeout, _LONG))
        except BaseException:  # Ctrl-C, or what a signal's handler raises
            with self._guard:
                if not self._leave_queue(turn):
                    self._hand_on()
            raise
        with self._guard:
            return came or not self._leave_queue(turn)

    def _leave_queue(self, turn: Any) -> bool:
        """Stop to wait; False where the turn has come meanwhile."""
        waits = turn in self._waiting
        if waits:
            self._waiting.remove(turn)
        return waits

    def _take(self) -> None:
        self._owner = _thread.get_ident()
        self._held += 1

    def release(self) -> None:
        """Give it back; errors as of the C one."""
        if self.kind == _RECURSIVE:
            if not self._is_mine():
                raise AssertionError(
                    "attempt to release recursive lock not owned by thread"
                )
            if self._held > 1:
                self._held -= 1
                return
        with self._guard:
            if self._value >= self.maxvalue:
                raise ValueError("semaphore or lock released too many times")
            self._held -= 1
            self._hand_on()

    def _hand_on(self) -> None:
        if self._waiting:
            self._waiting.pop(0).release()
        else:
            self._value += 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._held

    def _is_mine(self) -> bool:
        return self._held > 0 and self._owner == _thread.get_ident()

    def _get_value(self) -> int:
        return self._value

    def _is_zero(self) -> bool:
        return self._value == 0

    def _after_fork(self) -> None:
        self._held = 0


def install() -> None:
    """Have `import _multiprocessing` find these; the C module is never loaded."""
    module = types.ModuleType("_multiprocessing")
    contents = {"SemLock": SemLock, "sem_unlink": _unlink, "flags": {}}
    module.__dict__.update(contents)
    sys.modules[module.__name__] = module


def _unlink(name: str) -> None:
    raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
