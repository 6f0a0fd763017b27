"""Test code in a sandboxed process of its own, apart from the program it tests.

The code of a data set (HumanEval's `check`, MBPP's asserts) is trusted with the expected
values, so it never shares a process with the program: it calls proxies, gets plain values,
and compares them itself. It passes by ending without an exception.
"""

from __future__ import annotations

import builtins
import mmap
import os
import traceback
import types
from typing import Any, NamedTuple

from stepcoder_jax.execution.crossing import kinds, proxy
from stepcoder_jax.execution.crossing.codec_clock import CodecClock
from stepcoder_jax.execution.crossing.errors import ProgramError, text_of
from stepcoder_jax.execution.worker import child

FILENAME = "<test>"
PASSED, WRONG, RAISED, GONE, UNFIT = "passed", "wrong", "raised", "gone", "unfit"
MEMORY, LARGE, UNFAITHFUL, FAULTY = "memory", "large", "unfaithful", "faulty"
_ENDS = {
    proxy.ProgramGone: GONE,
    proxy.UnfitArgument: UNFIT,
    proxy.ProgramTooLarge: LARGE,
    kinds.Unfaithful: UNFAITHFUL,
}


class Check(NamedTuple):
    """What the checker's process is to run."""

    code: str
    entry_point: str
    limit: int  # bytes of one message


def run(check: Check, modules: types.ModuleType, hits: mmap.mmap, head: int) -> None:
    """Run the test code and leave the process with a note on how it ended."""
    os.write(head, child.IN_SANDBOX)
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
    os.ftruncate(child.RESULT_FD, 0)
    os.pwrite(child.RESULT_FD, note.encode("utf-8", "replace"), 0)
    os._exit(child.EXIT_OK)
