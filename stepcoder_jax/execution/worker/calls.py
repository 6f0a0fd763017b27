"""Modes in which a function of the program is called, and a value crosses."""

from __future__ import annotations

import builtins
import contextlib
import mmap
import os
import types
from collections.abc import Callable
from typing import Any, NoReturn

from stepcoder_jax.execution.crossing import kinds, values
from stepcoder_jax.execution.crossing.codec_clock import CodecClock
from stepcoder_jax.execution.crossing.server import Server
from stepcoder_jax.execution.worker import marks
from stepcoder_jax.execution.worker.child import (
    Job,
    find_function,
    flush_streams,
    program_line,
)

MODES = ("call", "assert_proxy", "assert_inproc")
# Made by the worker: to copy it, a child counts a reference to each of its 150 objects.
_PRISTINE = dict(builtins.__dict__)


def run_by_value(
    job: Job, code: types.CodeType, module: types.ModuleType, hits: mmap.mmap
) -> NoReturn:
    """Run a program of mode call, assert_proxy or assert_inproc; never returns."""
    if job.mode == "call":
        _call(job, code, module, CodecClock(hits))
    exec(code, module.__dict__)
    if job.mode == "assert_inproc":
        _run_test_code(job, module)
    _serve(job, module, CodecClock(hits))


def _restore() -> None:
    """Make builtins ours again, whatever the program did to them."""
    builtins.__dict__.update(_PRISTINE)


def _call(
    job: Job, code: types.CodeType, module: types.ModuleType, clock: CodecClock
) -> NoReturn:
    with clock:
        arguments = values.decode(job.arguments)
    exec(code, module.__dict__)
    result = find_function(module, job.entry_point)(*arguments)
    _restore()
    with clock:
        data = encode_result(result)
    marks.leave_result(data)


def _serve(job: Job, module: types.ModuleType, clock: CodecClock) -> NoReturn:
    """Answer the test code, which runs elsewhere; never returns."""

    def find(name: str) -> Any:
        return find_function(module, name)

    make_server(find, job.message_limit, clock).serve()
    with contextlib.suppress(BaseException):  # what it printed is for the report alone
        flush_streams()
    os._exit(marks.EXIT_OK)


def make_server(find: Callable[[str], Any], limit: int, clock: CodecClock) -> Server:
    """What answers the test code; `find` gives the function of a name."""
    return Server(find, program_line, _restore, limit, clock)


def encode_result(result: Any) -> bytes:
    """The result, or behind a mark what it is instead of a plain value of bounded size."""
    try:
        return kinds.Reducer().encode(result)
    except values.TooDeep as error:
        return marks.NO_VALUE + str(error).encode()
    except values.TooLarge as error:
        return marks.TOO_LARGE + str(error).encode()
    except values.ValueCodecError as error:
        return marks.NO_VALUE + str(error).encode("utf-8", "replace")


def _run_test_code(job: Job, module: types.ModuleType) -> NoReturn:
    """Run test code beside the program, which can reach everything in it: weak."""
    code = compile(job.arguments, "<test>", "exec", dont_inherit=True)
    module.__dict__.setdefault("candidate", module.__dict__.get(job.entry_point))
    exec(code, module.__dict__)
    marks.leave_result(values.encode(True))
