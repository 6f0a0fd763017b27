"""Test code in a sandboxed process of its own, apart from the program it tests.

The code of a data set (HumanEval's `check`, MBPP's asserts) is trusted with the expected
values, so it never shares a process with the program: it calls proxies, gets plain values,
and compares them itself. It passes by ending without an exception.
"""

from __future__ import annotations

import builtins
import functools
import mmap
import os
import socket
import traceback
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from stepcoder_jax.execution.crossing import channel, codec_clock, kinds, proxy
from stepcoder_jax.execution.crossing.codec_clock import MOST_SECONDS, CodecClock
from stepcoder_jax.execution.crossing.errors import ProgramError, text_of
from stepcoder_jax.execution.sandbox.confinement import Sandbox
from stepcoder_jax.execution.worker import children, defaults, frames, marks

FILENAME = "<test>"
PASSED, WRONG, RAISED, GONE, UNFIT = "passed", "wrong", "raised", "gone", "unfit"
MEMORY, LARGE, UNFAITHFUL, FAULTY = "memory", "large", "unfaithful", "faulty"
_ENDS = {
    proxy.ProgramGone: GONE,
    proxy.UnfitArgument: UNFIT,
    proxy.ProgramTooLarge: LARGE,
    kinds.Unfaithful: UNFAITHFUL,
}

# Tests that have little in common but what all tests have, with what `f` returns.
TRIALS = (
    (
        "def check(candidate):\n    assert candidate([7, 21, 4]) == 21\ncheck(candidate)\n",
        21,
    ),
    ("assert f('b a b', 2) == [('a', 1), ('b', 2)]\n", [("a", 1), ("b", 2)]),
)


Trial = Callable[[Sandbox], children.Answer]


class Check(NamedTuple):
    """What the checker's process is to run."""

    code: str
    entry_point: str
    limit: int  # bytes of one message


def run(check: Check, modules: types.ModuleType, hits: mmap.mmap, head: int) -> None:
    """Run the test code and leave the process with a note on how it ended."""
    os.write(head, marks.IN_SANDBOX)
    os.close(head)
    session = proxy.Session(check.limit, CodecClock(hits))
    try:
        code = compile(check.code, FILENAME, "exec", dont_inherit=True)
        session.wait()
        exec(code, _namespace(check, code, modules, session))
    except BaseException as error:  # every way to end but the last line's is no pass
        _leave(*_explain(session.fatal or error, session))
    if session.fatal is not None:  # a bare `except` of the test code's took it
        _leave(*_explain(session.fatal, session))
    _leave(PASSED)


def _namespace(
    check: Check, code: types.CodeType, modules: types.ModuleType, session: proxy.Session
) -> dict[str, Any]:
    """Globals of the test code: common modules, and proxies for the names it leaves open.

    A built-in is never the program's, whatever the program defines, unless the tested
    function itself has that name.
    """
    entry = proxy.Proxy(check.entry_point, session)
    opened = {
        name: proxy.Proxy(name, session)
        for name in _names(code)
        if not hasattr(builtins, name) and name not in modules.__dict__
    }
    own = {check.entry_point: entry, "candidate": entry}
    return {**modules.__dict__, **opened, **own, "__name__": "test"}


def _names(code: types.CodeType) -> set[str]:
    """Names that the code and the functions in it look up (attributes among them)."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _explain(error: BaseException, session: proxy.Session) -> tuple[str, str, int, str]:
    """How the test code ended, the error's class or a message, its line in the program, and
    where it is WRONG what the program returned last.

    FAULTY where no program has a say in it: before it was asked for anything, or for a
    module that the test code imports and this interpreter lacks.
    """
    for kind, how in _ENDS.items():
        if isinstance(error, kind):
            return how, str(error), 0, ""
    name, line, has_run_out = getattr(error, "program_note", ("", 0, False))
    if name or isinstance(error, ProgramError):
        how = MEMORY if has_run_out else RAISED
        name = name or "ValueCodecError"
        os.write(2, f"{name}: {text_of(error)}".encode("utf-8", "replace"))
        return how, name, line if type(line) is int else 0, ""
    if isinstance(error, TypeError) and "catching classes that do not" in str(error):
        return UNFAITHFUL, "an exception class of the program", 0, ""
    trace = traceback.format_exception(error, limit=-4, chain=False)
    os.write(2, "".join(trace)[-4000:].encode("utf-8", "replace"))
    if not session.has_asked or isinstance(error, ModuleNotFoundError):
        return FAULTY, f"{type(error).__name__}: {error}", 0, ""
    return WRONG, type(error).__name__, 0, session.show_returned()


def _leave(kind: str, error: str = "", line: int = 0, got: str = "") -> None:
    note = f"{kind}\n{' '.join(error.split())[:200]}\n{line}\n{got}"
    marks.leave_result(note.encode("utf-8", "replace"))


class Checker:
    """Answers frames with test code, which holds expected values."""

    def __init__(self, sandbox: Sandbox, partner: socket.socket) -> None:
        self.sandbox = sandbox
        self.partner = partner
        self.modules = defaults.make_modules()
        self._rehearse()

    def answer(self, header: dict[str, Any], body: bytes) -> frames.Frame:
        """Run the test code of one frame against the program's child."""
        limits = children.Limits(**header["limits"])
        code = body.decode("utf-8", "surrogatepass")
        check = Check(code, header["entry_point"], limits.output)

        def take_channel() -> int:
            _, (taken,), _, _ = socket.recv_fds(self.partner, 1, 1)
            return taken

        return children.join(*self._run(check, limits, take_channel, self.sandbox))

    def _run(
        self,
        check: Check,
        limits: children.Limits,
        open_channel: Callable[[], int],
        around: Sandbox,
    ) -> children.Answer:
        def inside(hits: mmap.mmap, head: int) -> None:
            run(check, self.modules, hits, head)

        return children.run_child(
            around,
            limits,
            inside,
            given=b"",
            open_channel=open_channel,
            map_size=1,
            codec_seconds=MOST_SECONDS,
        )

    def _rehearse(self) -> None:
        """Ask in the worker what children ask, until the bytecode for it is specialised."""
        check = Check(TRIALS[0][0], "f", children.TRIAL_LIMITS.output)
        code = compile(check.code, FILENAME, "exec", dont_inherit=True)
        clock = CodecClock(mmap.mmap(-1, codec_clock.SIZE))
        for _ in range(children.ENOUGH_RUNS):
            with children.recorded([("ready", ()), ("return", 0, ())]) as ours:
                os.dup2(ours, channel.CHANNEL_FD)
                session = proxy.Session(check.limit, clock)
                session.wait()
                names = _namespace(check, code, self.modules, session)
                names["candidate"]([7, 21, 4], "b a b")
        os.close(channel.CHANNEL_FD)

    def rehearse(self) -> None:
        """Do for a test of our own all that is done for one."""
        frames.pack(*children.join(*self.trials()[0](self.sandbox)))

    def trials(self) -> list[Trial]:
        """Tests of our own, with a program that has answered beforehand."""
        limits = children.TRIAL_LIMITS

        def trial(code: str, result: Any, around: Sandbox) -> children.Answer:
            check = Check(code, "f", limits.output)
            with children.recorded([("ready", ()), ("return", result, ())]) as ours:
                return self._run(check, limits, functools.partial(os.dup, ours), around)

        return [functools.partial(trial, *each) for each in TRIALS]
