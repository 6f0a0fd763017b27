"""The worker process: it forks a sandboxed child for each test and answers for it.

Started by the pool as a program of its own (never forked from the trainer), it holds no
expected output and runs no untrusted line itself. Frames in: {"kind": "program"} with
the source, then {"kind": "test"} with the input or the encoded arguments. Frames out:
"hello" once, then one "result" per test.

Test code (Mode.ASSERT_PROXY) holds expected values, so it never passes through this
process. A second process, forked before any frame is read, takes test code by pipes of its
own ({"kind": "check"}). A socket connects it with the program's child.

Each page of the worker's memory makes each fork dearer (0.16 microseconds on a slow
machine). So it loads what children need or programs often import, and no more: neither
pathlib nor dataclasses (350 pages, with inspect).
"""

from __future__ import annotations

import functools
import gc
import json
import mmap
import os
import resource
import site
import socket
import sys
import traceback
import types
from typing import Any

from stepcoder_jax.execution.crossing.codec_clock import MOST_SECONDS
from stepcoder_jax.execution.sandbox import canaries
from stepcoder_jax.execution.sandbox.confinement import (
    STACK_BYTES,
    Layout,
    Sandbox,
    die_with_parent,
)
from stepcoder_jax.execution.worker import (
    checker,
    child,
    children,
    defaults,
    frames,
    hot_pages,
    immortal,
    tracer,
)
from stepcoder_jax.execution.worker.children import CONTROL_IN, CONTROL_OUT, LAST_FD, Limits

_LISTENER = 247  # on which children ask for their threads
_RING = 248  # what pins the pages that children write to
_PARTNER = 249  # the socket between the two processes of a worker
_RULESET, _STDERR = 252, LAST_FD
_CHECKERS_UIDS = 1000  # how far the uids of test code are from those of programs
_HEAD_LIMIT = 1 << 20
_CODEC_MODES = ("call", "assert_proxy")  # the others' programs speak through text alone

_former: list[object] = []  # kept, so that no child has to drop them

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
_TRIAL_SECONDS = 5.0

Answer = tuple[dict[str, Any], bytes]


def main() -> None:
    """Serve until the pool closes the pipe.

    Arguments: the slot, layers left out, the kind of coverage, and the pipes of the second
    process. It runs twice: the first time it finds the layout, sets the limit of the stack
    and starts this program again.
    """
    slot, without, coverage, check_in, check_out, *found = sys.argv[1:]
    if not found:
        _start_again()
    die_with_parent(os.getppid())  # a pool that ended before leaves closed pipes
    layout = Layout(*json.loads(found[0]))
    sandbox = Sandbox(int(slot), tuple(filter(None, without.split(","))), layout)
    sandbox.prepare()
    sys.path += layout.third_party
    site.setquit()  # `exit` and `quit`, which -S leaves out
    prelude, modules = child.make_prelude(), child.make_modules()
    tracer.Instrumented("warm = 'up'", "statement")  # the compiler's lazy tables, once
    ours, theirs = socket.socketpair()
    pipes = (int(check_in), int(check_out))
    partner = os.fork()
    if partner == 0:
        die_with_parent(sandbox.parent)
        ours.detach()
        _take_places(sandbox, *pipes, theirs)
        sandbox.parent = os.getpid()
        sandbox.uid += _CHECKERS_UIDS
        _serve(Checker(sandbox, modules), "none")
    theirs.detach()
    _take_places(sandbox, 0, 1, ours)
    _serve(Worker(sandbox, prelude, partner, coverage), coverage)


def _start_again() -> None:
    """Exec this program again, with the layout and a limit for the stack.

    The address space is laid out around that limit when a program starts.
    """
    # loads too much for below
    from stepcoder_jax.execution.sandbox.layout import find_layout

    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    soft = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    os.execv(sys.executable, [*sys.orig_argv, json.dumps(find_layout())])


def _take_places(
    sandbox: Sandbox, control_in: int, control_out: int, partner: socket.socket
) -> None:
    """Put what we keep where children close it; leave the low numbers to their files."""
    os.dup2(control_in, CONTROL_IN, inheritable=False)
    os.dup2(control_out, CONTROL_OUT, inheritable=False)
    os.dup2(partner.detach(), _PARTNER, inheritable=False)
    os.dup2(2, _STDERR, inheritable=False)
    if sandbox.ruleset >= 0:
        sandbox.ruleset = os.dup2(sandbox.ruleset, _RULESET, inheritable=False)
    os.closerange(0, _PARTNER)


def _serve(process: Worker | Checker, coverage: str) -> None:
    """Answer frames until the pipe is closed."""
    _former.extend((sys.stdin, sys.stdout, sys.stderr, sys.modules["__main__"]))
    with open(_STDERR, "w", encoding="utf-8") as log:
        try:
            files = children.make_files()
            child.open_standard_streams()
            defaults.set_all()
            os.closerange(0, len(files))
            gc.collect()
            immortal.make_immortal()
            gc.freeze()
            _pin_hot_pages(process.sandbox, coverage)
            process.sandbox.confine_worker(_LISTENER)
            requests = frames.Reader(CONTROL_IN)
            while True:
                answer = process.answer(*requests.read())
                if answer is not None:
                    frames.send(CONTROL_OUT, frames.pack(*answer))
        except (frames.FrameError, BrokenPipeError, children.TrainerGone):
            os._exit(0)
        except BaseException:
            traceback.print_exc(file=log)
            log.flush()
            os._exit(1)


def _pin_hot_pages(sandbox: Sandbox, coverage: str) -> None:
    """Run programs of our own, to learn which pages children write to.

    Each runs twice: the first time fills the worker's free lists. One runs compiled as
    well, as a second test does: a page that only the compiler writes to is not worth a copy
    at each fork.
    """
    limits = Limits(_TRIAL_SECONDS, 4 * _TRIAL_SECONDS, 1 << 30, 1 << 20)

    def try_program(job: child.Job, around: Sandbox) -> children.Answer:
        def inside(hits: mmap.mmap, head: int) -> None:
            child.run(job, types.ModuleType("unused"), hits, head)

        return children.run_child(
            around,
            limits,
            inside,
            given=_TRIAL_INPUT,
            open_channel=None,
            map_size=tracer.map_size(job.source, coverage),
        )

    jobs = [
        child.Job(source, "stdin_main", "", b"", coverage, 1 << 20) for source in _TRIALS
    ]
    _, parts = try_program(jobs[0]._replace(is_kept=True), sandbox)
    jobs.append(jobs[0]._replace(compiled=child.split_head(parts["head"])[1]))
    trials = [functools.partial(try_program, job) for job in jobs]
    for trial in trials:
        trial(sandbox)
    hot_pages.pin_hot_pages(sandbox, trials, _RING)


class Worker:
    """Runs programs, and holds no expected value."""

    def __init__(
        self, sandbox: Sandbox, prelude: types.ModuleType, partner: int, coverage: str
    ) -> None:
        self.sandbox = sandbox
        self.prelude = prelude
        self.pids = (os.getpid(), partner)
        self.partner = socket.socket(fileno=_PARTNER)
        self.program: dict[str, Any] = {}
        self.source = ""
        self.compiled: tuple[bytes, bytes] | None = None
        self.coverage = coverage

    def answer(self, header: dict[str, Any], body: bytes) -> Answer | None:
        """The answer to one frame."""
        if header["kind"] == "hello":
            return self._hello(header["memory"]), b""
        if header["kind"] == "program":
            self.program = header
            self.source = body.decode("utf-8", "surrogatepass")
            self.compiled = None
            return None
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
            self.sandbox.enter(10, memory, 1 << 20)
            os.write(result, json.dumps(canaries.probe(memory)).encode())
        finally:
            os._exit(0)

    def _run_test(self, body: bytes, limits: Limits) -> Answer:
        mode = self.program["mode"]
        takes_arguments = mode in ("call", "assert_inproc")
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
            child.run(job, self.prelude, hits, head)

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


class Checker:
    """Runs test code, which holds expected values."""

    def __init__(self, sandbox: Sandbox, modules: types.ModuleType) -> None:
        self.sandbox = sandbox
        self.modules = modules
        self.partner = socket.socket(fileno=_PARTNER)

    def answer(self, header: dict[str, Any], body: bytes) -> Answer:
        """Run the test code of one frame against the program's child."""
        limits = Limits(**header["limits"])
        code = body.decode("utf-8", "surrogatepass")
        check = checker.Check(code, header["entry_point"], limits.output)

        def take_channel() -> int:
            _, (channel,), _, _ = socket.recv_fds(self.partner, 1, 1)
            return channel

        def inside(hits: mmap.mmap, head: int) -> None:
            checker.run(check, self.modules, hits, head)

        answer = children.run_child(
            self.sandbox,
            limits,
            inside,
            given=b"",
            open_channel=take_channel,
            map_size=1,
            codec_seconds=MOST_SECONDS,
        )
        return children.join(*answer)
