"""The worker process: it forks a sandboxed child for each test and answers for it.

Started by the pool as a program of its own (never forked from the trainer), it holds no
expected output and runs no untrusted line itself. Frames in: {"kind": "test"} with the
input or the encoded arguments, behind the source in a program's first one. Frames out:
"hello" once, then one "result" per test.

Test code (Mode.ASSERT_PROXY) holds expected values, so it never passes through this
process. A second process, forked before any frame is read, takes test code by pipes of its
own ({"kind": "check"}). A socket connects it with the program's child.

Each page of the worker's memory makes each fork dearer (0.16 microseconds on a slow
machine). So each of the two processes loads what its children need or programs often
import, and no more: neither pathlib nor dataclasses (350 pages, with inspect).
"""

from __future__ import annotations

import functools
import json
import os
import resource
import site
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from stepcoder_jax.execution.sandbox.confinement import (
    STACK_BYTES,
    Layout,
    Sandbox,
    die_with_parent,
)
from stepcoder_jax.execution.worker import children, defaults, frames, hot_pages, immortal
from stepcoder_jax.execution.worker.children import CONTROL_IN, CONTROL_OUT, LAST_FD

_LISTENER = 247  # on which children ask for their threads
_RING = 248  # what pins the pages that children write to
_PARTNER = 249  # the socket between the two processes of a worker
_RULESET, _STDERR = 252, LAST_FD
_CHECKERS_UIDS = 1000  # how far the uids of test code are from those of programs

_former: list[object] = []  # kept, so that no child has to drop them


class Process(Protocol):
    """What the two processes of a worker differ in."""

    sandbox: Sandbox

    def trials(self) -> Sequence[hot_pages.Run]:
        """Runs of children that do what nearly all do, for `hot_pages`."""

    def rehearse(self) -> None:
        """Do for a test of our own what is done for each."""

    def answer(self, header: dict[str, Any], body: bytes) -> frames.Frame:
        """The answer to one frame."""


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
    ours, theirs = socket.socketpair()
    pipes = (int(check_in), int(check_out))
    partner = os.fork()
    if partner == 0:
        die_with_parent(sandbox.parent)
        ours.detach()
        _take_places(sandbox, *pipes, theirs)
        sandbox.parent = os.getpid()
        sandbox.uid += _CHECKERS_UIDS
        _serve(functools.partial(_make_checker, sandbox))
    theirs.detach()
    _take_places(sandbox, 0, 1, ours)
    _serve(functools.partial(_make_worker, sandbox, partner, coverage))


def _make_checker(sandbox: Sandbox) -> Process:
    # Each of the two loads its own part: it makes the other's forks no dearer.
    from stepcoder_jax.execution.worker.checker import Checker

    return Checker(sandbox, socket.socket(fileno=_PARTNER))


def _make_worker(sandbox: Sandbox, partner: int, coverage: str) -> Process:
    from stepcoder_jax.execution.worker.programs import Worker

    pids = (os.getpid(), partner)
    return Worker(sandbox, socket.socket(fileno=_PARTNER), pids, coverage)


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


def _serve(make: Callable[[], Process]) -> None:
    """Make what answers frames, and have it answer until the pipe is closed."""
    _former.extend((sys.stdin, sys.stdout, sys.stderr, sys.modules["__main__"]))
    with open(_STDERR, "w", encoding="utf-8") as log:
        try:
            process = make()
            files = children.make_files()
            defaults.open_standard_streams()
            defaults.set_all()
            os.closerange(0, len(files))
            immortal.keep_all()
            trials = process.trials()
            for trial in trials:
                trial(process.sandbox)  # it fills the free lists
            hot_pages.pin_hot_pages(process.sandbox, trials, process.rehearse, _RING)
            process.sandbox.confine_worker(_LISTENER)
            requests = frames.Reader(CONTROL_IN)
            while True:
                answer = process.answer(*requests.read())
                frames.send(CONTROL_OUT, frames.pack(*answer))
        except (frames.FrameError, BrokenPipeError, children.TrainerGone):
            os._exit(0)
        except BaseException:
            traceback.print_exc(file=log)
            log.flush()
            os._exit(1)
