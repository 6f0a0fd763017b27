"""Programs in the worker: each of their tests runs in a child of its own."""

from __future__ import annotations

import functools
import json
import mmap
import os
import socket
import sys
import types
from typing import Any

from stepcoder_jax.execution.crossing import channel, codec_clock
from stepcoder_jax.execution.crossing.codec_clock import MOST_SECONDS, CodecClock
from stepcoder_jax.execution.sandbox.confinement import Sandbox
from stepcoder_jax.execution.worker import (
    calls,
    child,
    children,
    defaults,
    frames,
    hot_pages,
    tracer,
)
from stepcoder_jax.execution.worker.children import Limits

_HEAD_LIMIT = 1 << 20
_CODEC_MODES = ("call", "assert_proxy")  # the others' programs speak through text alone

# Two programs that have little in common but what all programs have.
_TRIALS = (
    """
def largest(numbers):
    best = numbers[0]
    for number in numbers:
        if number > best:
            best = number
    return best
count = int(input())
print(largest(list(map(int, input().split()))))
""",
    """
import sys
words = {}
for line in sys.stdin:
    for word in line.split():
        words[word] = words.get(word, 0) + 1
for word in sorted(words):
    print(word, words[word])
""",
)
_TRIAL_INPUT = b"3\n7 21 4\n"


class Worker:
    """Runs programs, and holds no expected value."""

    def __init__(
        self,
        sandbox: Sandbox,
        partner: socket.socket,
        pids: tuple[int, int],
        coverage: str,
    ) -> None:
        self.sandbox = sandbox
        self.partner = partner
        self.pids = pids
        self.coverage = coverage
        self.prelude = defaults.make_prelude()
        self.program: dict[str, Any] = {}
        self.source = ""
        self.compiled: tuple[bytes, bytes] | None = None
        _rehearse(coverage)

    def answer(self, header: dict[str, Any], body: bytes) -> frames.Frame:
        """The answer to one frame."""
        if header["kind"] == "hello":
            return self._hello(header["memory"]), b""
        if "program" in header:
            self.program = header["program"]
            self.source = body[: self.program["size"]].decode("utf-8", "surrogatepass")
            self.compiled = None
            body = body[self.program["size"] :]
        return self._run_test(body, Limits(**header["limits"]))

    def _hello(self, memory: int) -> dict[str, Any]:
        result = os.memfd_create("canaries", os.MFD_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._probe_inside(result, memory)
        os.waitpid(pid, 0)
        seen = json.loads(children.read_all(result, _HEAD_LIMIT) or b"{}")
        os.close(result)
        return {
            "pids": self.pids,
            "version": list(sys.version_info[:3]),
            "monitoring": tracer.HAS_MONITORING,
            "landlock_abi": self.sandbox.landlock_abi,
            "layers": self.sandbox.layers,
            "canaries": seen,
        }

    def _probe_inside(self, result: int, memory: int) -> None:
        try:
            from stepcoder_jax.execution.sandbox import canaries  # once, for this child

            self.sandbox.enter(10, memory, 1 << 20)
            os.write(result, json.dumps(canaries.probe(memory)).encode())
        finally:
            os._exit(0)

    def _run_test(self, body: bytes, limits: Limits) -> frames.Frame:
        mode = self.program["mode"]
        takes_arguments = mode in ("call", "assert_inproc")
        act = calls.run_by_value if mode in calls.MODES else child.run_by_text
        job = child.Job(
            source=self.source,
            mode=mode,
            entry_point=self.program["entry_point"] or "",
            arguments=body if takes_arguments else b"",
            coverage=self.coverage,
            message_limit=limits.output,
            is_kept=self.program["tests"] > 1,
            compiled=self.compiled,
        )

        def inside(hits: mmap.mmap, head: int) -> None:
            child.run(job, self.prelude, hits, head, act)

        answer, parts = children.run_child(
            self.sandbox,
            limits,
            inside,
            given=b"" if takes_arguments else body,
            open_channel=self._open_channel if mode == "assert_proxy" else None,
            map_size=tracer.map_size(self.source, self.coverage),
            codec_seconds=MOST_SECONDS if mode in _CODEC_MODES else 0.0,
        )
        parts["head"], compiled = child.split_head(parts["head"])
        self.compiled = self.compiled or compiled
        return children.join(answer, parts)

    def _open_channel(self) -> int:
        """A socket for the program; its other end goes to the second process."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.partner, [b"c"], [theirs.fileno()])
        return ours.detach()

    def rehearse(self) -> None:
        """Do for a program of our own all that is done for one test."""
        source = _TRIALS[0].encode()
        program = {"mode": "stdin_main", "entry_point": None, "tests": 1}
        header = {
            "kind": "test",
            "limits": children.TRIAL_LIMITS._asdict(),
            "program": {**program, "size": len(source)},
        }
        frames.pack(*self.answer(json.loads(json.dumps(header)), source + _TRIAL_INPUT))

    def trials(self) -> list[hot_pages.Run]:
        """Programs of our own. One runs compiled as well, as a second test does.

        So a page that only the compiler writes to is not worth a copy at each fork.
        """

        def trial(job: child.Job, around: Sandbox) -> children.Answer:
            def inside(hits: mmap.mmap, head: int) -> None:
                child.run(job, types.ModuleType("unused"), hits, head)

            return children.run_child(
                around,
                children.TRIAL_LIMITS,
                inside,
                given=_TRIAL_INPUT,
                open_channel=None,
                map_size=tracer.map_size(job.source, self.coverage),
            )

        limit = children.TRIAL_LIMITS.output
        jobs = [
            child.Job(source, "stdin_main", "", b"", self.coverage, limit)
            for source in _TRIALS
        ]
        _, parts = trial(jobs[0]._replace(is_kept=True), self.sandbox)
        jobs.append(jobs[0]._replace(compiled=child.split_head(parts["head"])[1]))
        return [functools.partial(trial, job) for job in jobs]


def _rehearse(coverage: str) -> None:
    """Do in the worker what children do, until the bytecode for it is specialised."""

    def find(name: str) -> Any:
        return lambda items, text: {text: items}

    request = ("call", "f", ([7, 21, 4], "b a b"), ())
    clock = CodecClock(mmap.mmap(-1, codec_clock.SIZE))
    for _ in range(children.ENOUGH_RUNS):
        tracer.rehearse(_TRIALS[0], coverage)
        calls.encode_result([7, 21, 4])
        with children.recorded([request]) as ours:
            os.dup2(ours, channel.CHANNEL_FD)
            calls.make_server(find, children.TRIAL_LIMITS.output, clock).serve()
    os.close(channel.CHANNEL_FD)
