"""One sandboxed child: fork it, watch its limits, collect what it left."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from stepcoder_jax.execution.crossing import channel, codec_clock, values
from stepcoder_jax.execution.crossing.channel import CHANNEL_FD
from stepcoder_jax.execution.sandbox import tasks
from stepcoder_jax.execution.sandbox.confinement import Sandbox
from stepcoder_jax.execution.worker import frames, marks

CONTROL_IN, CONTROL_OUT = 250, 251
LAST_FD = 255  # a worker has no descriptor above it
_NAMES = ("in", "out", "err", "result", "head")  # descriptors 0 to 4
_OUT, _ERR, _RESULT, _HEAD = range(1, 5)
_STDERR_TAIL = 4096
_FAILED_STDOUT_HEAD = 4096
_HEAD_LIMIT = 16 << 20
_CPUCLOCK_SCHED = 2
_MIN_POLL = 0.002

Answer = tuple[dict[str, Any], dict[str, bytes]]


class Limits(NamedTuple):
    """Of one test."""

    cpu: float  # seconds
    wall: float  # seconds
    memory: int  # bytes of address space
    output: int  # bytes of each of stdout, stderr and result


# After so many runs CPython has specialised a function's bytecode (PEP 659). Until then
# each run writes to it, and a child copies the page.
ENOUGH_RUNS = 16
_RECORDED = 245, 246  # the ends of a recorded channel
TRIAL_LIMITS = Limits(5.0, 20.0, 1 << 30, 1 << 20)  # of what the worker runs of its own


class TrainerGone(Exception):
    """Nobody reads our answers any more."""


def run_child(
    sandbox: Sandbox,
    limits: Limits,
    inside: Callable[[mmap.mmap, int], None],
    *,
    given: bytes,
    open_channel: Callable[[], int] | None,
    map_size: int,
    codec_seconds: float = 0.0,
) -> Answer:
    """Fork, wait, collect: the header and the parts of the answer.

    `inside(hits, head)` runs in the child and never returns; `given` is its standard input.
    `open_channel` returns a socket, which the child gets and which is closed here. The
    lowest descriptors must be free: what is made here takes the very places that it has in
    the child, which so needs to move nothing. Up to `codec_seconds` of CPU that go to the
    codec are not counted.
    """
    files: list[int] = []
    hits = mmap.mmap(-1, map_size + codec_clock.SIZE)

    def uncounted(cpu: float) -> float:
        if not codec_seconds:
            return 0.0
        return min(codec_seconds, codec_clock.seconds_in(hits, cpu))

    try:
        files += make_files()
        if open_channel is not None:
            files.append(open_channel())
        if files != list(range(len(files))):
            raise RuntimeError(f"descriptors out of place: {files}")
        _write_all(0, given)
        # made here, for whatever a child does first costs it pages
        seconds = math.ceil(limits.cpu + codec_seconds) + 1
        bounds = (seconds, limits.memory, limits.output)
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _become_child(sandbox, bounds, inside, hits, len(files))
        if open_channel is not None:
            os.close(files.pop())  # so that the other side sees the child's end
        answer = _wait(pid, started, limits, uncounted, sandbox.listener)
        return _collect(answer, hits, limits)
    finally:
        hits.close()
        os.closerange(0, len(files))


@contextlib.contextmanager
def recorded(messages: Iterable[object]) -> Iterator[int]:
    """Open a channel whose other end has said all this, and says no more to any answer.

    Its number is none of those that a child's files take.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in messages:
            channel.send(theirs.fileno(), values.encode(message))
        theirs.shutdown(socket.SHUT_WR)
        for end, place in zip((ours, theirs), _RECORDED):
            os.dup2(end.fileno(), place, inheritable=False)
    try:
        yield _RECORDED[0]
    finally:
        for place in _RECORDED:
            os.close(place)


def make_files() -> list[int]:
    """Memory files of the child: its input, outputs, result and head."""
    return [os.memfd_create(name, os.MFD_CLOEXEC) for name in _NAMES]


def _become_child(
    sandbox: Sandbox,
    bounds: tuple[int, int, int],
    inside: Callable[[mmap.mmap, int], None],
    hits: mmap.mmap,
    kept: int,
) -> None:
    """Enter the sandbox, close all but the first descriptors, run; never returns."""
    try:
        os.setsid()
        sandbox.enter(*bounds)
        os.closerange(kept, LAST_FD + 1)
        inside(hits, _HEAD)
    finally:
        os._exit(marks.EXIT_ERROR)  # only when the sandbox itself failed


assert len(_NAMES) == CHANNEL_FD


def read_all(fd: int, limit: int) -> bytes:
    """What a file holds, at most `limit` bytes of it."""
    return _read(fd, min(limit, os.fstat(fd).st_size))


def _read(fd: int, size: int, start: int = 0) -> bytes:
    return os.pread(fd, size, start) if size else b""


def _write_all(fd: int, data: bytes) -> None:
    """Write a file, whose position stays at its start."""
    written = 0
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], written)


def _cpu_seconds(pid: int) -> float:
    """CPU time of a live child, all its threads together."""
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0  # already gone; the wait status will say


def _wait(
    pid: int,
    started: float,
    limits: Limits,
    uncounted: Callable[[float], float],
    listener: int,
) -> dict[str, Any]:
    """Wait for the child within its limits; kill where needed, then always reap.

    `uncounted` says how much of its CPU seconds is not the program's.
    """
    killed = _watch(pid, started, limits, uncounted, listener)
    # The leader is not reaped yet, so its group id cannot have been given to others; it can
    # leave its group no more than a leader of a session can.
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # it has none yet
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    code, cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    cpu -= uncounted(cpu)
    if code == -signal.SIGKILL and cpu >= limits.cpu:
        killed = "cpu"  # several threads at once: the kernel's own limit was first
    return {
        "exit": code,
        "killed": killed,
        "cpu": cpu,
        "wall": time.monotonic() - started,
        "memory": usage.ru_maxrss * 1024,
    }


def _watch(
    pid: int,
    started: float,
    limits: Limits,
    uncounted: Callable[[float], float],
    listener: int,
) -> str:
    """Return "" when the child ended by itself, else which limit it broke.

    Meanwhile its threads are granted, where it asks for them on `listener`.
    """
    pidfd = os.pidfd_open(pid)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(CONTROL_IN, 0)  # reports only that the trainer hung up
    if listener >= 0:
        poller.register(listener, select.POLLIN)
    granted = 0
    try:
        left = limits.cpu
        while True:
            wall_left = started + limits.wall - time.monotonic()
            patience = max(_MIN_POLL, min(left, wall_left))
            events = dict(poller.poll(math.ceil(patience * 1000)))
            if pidfd in events:
                return ""
            if CONTROL_IN in events:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise TrainerGone
            if listener in events:
                granted = tasks.answer(listener, pid, granted)
            used = _cpu_seconds(pid)
            left = limits.cpu + uncounted(used) - used
            if left <= 0:
                return "cpu"
            if time.monotonic() - started >= limits.wall:
                return "wall"
    finally:
        os.close(pidfd)


def _collect(answer: dict[str, Any], hits: mmap.mmap, limits: Limits) -> Answer:
    sizes = [os.fstat(fd).st_size for fd in (_OUT, _ERR, _RESULT)]
    good = answer["exit"] == 0 and not answer["killed"]
    stdout_limit = limits.output if good else _FAILED_STDOUT_HEAD
    error_start = max(0, min(sizes[1], limits.output) - _STDERR_TAIL)
    parts = {
        "head": read_all(_HEAD, _HEAD_LIMIT),
        "hits": hits[: -codec_clock.SIZE],
        "out": _read(_OUT, min(sizes[0], stdout_limit)),
        "err": _read(_ERR, min(sizes[1], _STDERR_TAIL), error_start),
        "result": _read(_RESULT, min(sizes[2], limits.output)),
    }
    return answer | {"kind": "result", "largest": max(sizes)}, parts


def join(answer: dict[str, Any], parts: dict[str, bytes]) -> frames.Frame:
    """The frame of an answer: the header says how long each part of the body is."""
    answer["parts"] = {name: len(data) for name, data in parts.items()}
    return answer, b"".join(parts.values())
