"""The worker process: one fork per test, limits, and an answer for each.

Started by the pool as a program of its own (never forked from the trainer), it holds no
expected output and runs no untrusted line itself. Frames in: {"kind": "program"} with
the source, then {"kind": "test"} with the input or the encoded arguments. Frames out:
"hello" once, then one "result" per test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
import mmap
import os
import resource
import select
import signal
import site
import sys
import time
from typing import Any

from stepcoder_jax.execution import canaries, child, frames, tracer
from stepcoder_jax.execution.sandbox import (
    STACK_BYTES,
    Layout,
    Sandbox,
    die_with_parent,
)

_CONTROL_IN, _CONTROL_OUT = 250, 251
_STDERR_TAIL = 4096
_FAILED_STDOUT_HEAD = 4096
_HEAD_LIMIT = 16 << 20
_CPUCLOCK_SCHED = 2
_MIN_POLL = 0.002


@dataclasses.dataclass
class Limits:
    """Of one test."""

    cpu: float  # seconds
    wall: float  # seconds
    memory: int  # bytes of address space
    output: int  # bytes of each of stdout, stderr and result


class TrainerGone(Exception):
    """Nobody reads our answers any more."""


def main() -> None:
    """Serve until the pool closes the pipe; arguments: the slot and layers left out.

    Runs twice: first to find out and to set what the process proper is started with.
    """
    slot, without, *found = sys.argv[1:]
    if not found:
        _start_again()
    die_with_parent()
    _move_control_pipes()
    layout = Layout(*json.loads(found[0]))
    sandbox = Sandbox(int(slot), tuple(filter(None, without.split(","))), layout)
    sandbox.prepare()
    sys.path += layout.third_party
    site.setquit()  # `exit` and `quit`, which -S leaves out
    worker = Worker(sandbox)
    tracer.Instrumented(
        "warm = 'up'", "statement"
    )  # the compiler's lazy tables, once for all children
    gc.collect()
    gc.freeze()
    try:
        worker.serve()
    except (frames.FrameError, BrokenPipeError, TrainerGone):
        os._exit(0)


def _start_again() -> None:
    """Exec this program again, with the layout and a limit for the stack.

    The address space is laid out around that limit when a program starts.
    """
    from stepcoder_jax.execution.layout import find_layout  # loads too much for below

    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    soft = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    os.execv(sys.executable, [*sys.orig_argv, json.dumps(find_layout())])


def _move_control_pipes() -> None:
    os.dup2(0, _CONTROL_IN, inheritable=False)
    os.dup2(1, _CONTROL_OUT, inheritable=False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


class Worker:
    """Answers frames one by one."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.prelude = child.make_prelude()
        self.program: dict[str, Any] = {}
        self.source = ""
        self.coverage = "statement"

    def serve(self) -> None:
        while True:
            header, body = frames.read_frame(_CONTROL_IN)
            if header["kind"] == "hello":
                self.coverage = header["coverage"]
                frames.write_frame(_CONTROL_OUT, self._hello(header["memory"]))
            elif header["kind"] == "program":
                self.program = header
                self.source = body.decode("utf-8", "surrogatepass")
            else:
                limits = Limits(**header["limits"])
                answer, parts = self._run_test(body, limits)
                frames.write_frame(_CONTROL_OUT, answer, parts)

    def _hello(self, memory: int) -> dict[str, Any]:
        result = _memory_file("canaries")
        pid = os.fork()
        if pid == 0:
            self._probe_inside(result, memory)
        os.waitpid(pid, 0)
        seen = json.loads(_read_all(result, _HEAD_LIMIT) or b"{}")
        os.close(result)
        return {
            "version": list(sys.version_info[:3]),
            "monitoring": tracer.HAS_MONITORING,
            "landlock_abi": self.sandbox.landlock_abi,
            "layers": self.sandbox.layers,
            "canaries": seen,
        }

    def _probe_inside(self, result: int, memory: int) -> None:
        try:
            self.sandbox.enter(10, memory, 1 << 20)
            os.write(result, json.dumps(canaries.probe(memory)).encode())
        finally:
            os._exit(0)

    def _run_test(self, body: bytes, limits: Limits) -> tuple[dict[str, Any], bytes]:
        """Fork, wait, collect: the header and the concatenated parts of the answer."""
        is_call = self.program["mode"] == "call"
        files = {n: _memory_file(n) for n in ("in", "out", "err", "result", "head")}
        hits = mmap.mmap(-1, len(self.source) + 1)
        try:
            if not is_call:
                _write_all(files["in"], body)
            job = child.Job(
                source=self.source,
                mode=self.program["mode"],
                entry_point=self.program["entry_point"] or "",
                arguments=body if is_call else b"",
                coverage=self.coverage,
            )
            started = time.monotonic()
            pid = os.fork()
            if pid == 0:
                self._become_child(job, files, hits, limits)
            answer = _wait(pid, started, limits)
            return _collect(answer, files, hits, limits)
        finally:
            hits.close()
            for fd in files.values():
                os.close(fd)

    def _become_child(
        self, job: child.Job, files: dict[str, int], hits: mmap.mmap, limits: Limits
    ) -> None:
        """Arrange descriptors, enter the sandbox, run; never returns."""
        try:
            os.setsid()
            # Park everything above the places it will take, then move it down.
            names = ("in", "out", "err", "result", "head")
            high = [os.dup2(files[n], 200 + i) for i, n in enumerate(names)]
            ruleset = self.sandbox.ruleset
            self.sandbox.enter(math.ceil(limits.cpu) + 1, limits.memory, limits.output)
            for place, fd in enumerate(high):
                os.dup2(fd, place)
            head = len(names) - 1
            os.closerange(head + 1, max(_CONTROL_OUT, ruleset) + 1)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # a full file ends the program
            child.run(job, self.prelude, hits, head)
        finally:
            os._exit(child.EXIT_ERROR)  # only when the sandbox itself failed


def _memory_file(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)


def _read_all(fd: int, limit: int) -> bytes:
    return os.pread(fd, min(limit, os.fstat(fd).st_size), 0)


def _cpu_seconds(pid: int) -> float:
    """CPU time of a live child, all its threads together."""
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0  # already gone; the wait status will say


def _wait(pid: int, started: float, limits: Limits) -> dict[str, Any]:
    """Wait for the child within its limits; kill where needed, then always reap."""
    killed = _watch(pid, started, limits)
    # The leader is not reaped yet, so its group id cannot have been given to others.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    code, cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    if code == -signal.SIGKILL and cpu >= limits.cpu:
        killed = "cpu"  # several threads at once: the kernel's own limit was first
    return {
        "exit": code,
        "killed": killed,
        "cpu": cpu,
        "wall": time.monotonic() - started,
        "memory": usage.ru_maxrss * 1024,
    }


def _watch(pid: int, started: float, limits: Limits) -> str:
    """Return "" when the child ended by itself, else which limit it broke."""
    pidfd = os.pidfd_open(pid)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(_CONTROL_IN, 0)  # reports only that the trainer hung up
    try:
        left = limits.cpu
        while True:
            wall_left = started + limits.wall - time.monotonic()
            patience = max(_MIN_POLL, min(left, wall_left))
            events = dict(poller.poll(math.ceil(patience * 1000)))
            if pidfd in events:
                return ""
            if _CONTROL_IN in events:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise TrainerGone
            left = limits.cpu - _cpu_seconds(pid)
            if left <= 0:
                return "cpu"
            if time.monotonic() - started >= limits.wall:
                return "wall"
    finally:
        os.close(pidfd)


def _collect(
    answer: dict[str, Any], files: dict[str, int], hits: mmap.mmap, limits: Limits
) -> tuple[dict[str, Any], bytes]:
    sizes = {name: os.fstat(files[name]).st_size for name in ("out", "err", "result")}
    good = answer["exit"] == 0 and not answer["killed"]
    stdout_limit = limits.output if good else _FAILED_STDOUT_HEAD
    error_start = max(0, min(sizes["err"], limits.output) - _STDERR_TAIL)
    head = _read_all(files["head"], _HEAD_LIMIT)
    parts = {
        "head": head,
        "hits": hits[:],
        "out": _read_all(files["out"], stdout_limit),
        "err": os.pread(files["err"], _STDERR_TAIL, error_start),
        "result": _read_all(files["result"], limits.output),
    }
    answer |= {"kind": "result", "sizes": sizes}
    answer["parts"] = {name: len(data) for name, data in parts.items()}
    return answer, b"".join(parts.values())
