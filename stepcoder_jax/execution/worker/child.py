"""What happens in the forked, sandboxed child: compile, run, hand over, exit.

The child never holds an expected output. It speaks through four descriptors: 0 input,
1 and 2 output, RESULT_FD for the returned value or the name of the error. The compiler's
word goes through `head`, which is closed before any line of the program runs.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import io
import json
import mmap
import os
import struct
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from stepcoder_jax.execution.crossing import channel, errors, kinds, values
from stepcoder_jax.execution.crossing.codec_clock import CodecClock
from stepcoder_jax.execution.worker.defaults import innermost
from stepcoder_jax.execution.worker.tracer import Instrumented

RESULT_FD = 3
EXIT_OK, EXIT_ERROR, EXIT_MEMORY = 0, 1, 94
NO_VALUE, TOO_LARGE = b"!", b"#"  # first bytes of a result that is no encoded value
# first bytes of `head`: how far the child came before the program's first line
IN_SANDBOX, COMPILED, KEPT, REFUSED = b"S", b"C", b"K", b"E"
_KEPT_LENGTH = struct.Struct("=I")
_PYTHON_RECURSION_LIMIT = 1000
_STREAMS = ((0, "r"), (1, "w"), (2, "w"))
# Made by the worker: to copy it, a child counts a reference to each of its 150 objects.
_PRISTINE = dict(builtins.__dict__)
_TRACEBACK_FRAMES = 8  # the innermost ones

MODULES = """
import bisect, collections, copy, datetime, functools, heapq, io, itertools, json, math
import operator, os, random, re, statistics, string, sys, typing
"""
PRELUDE = f"""{MODULES}
from typing import *
from string import *
from re import *
from datetime import *
from collections import *
from heapq import *
from bisect import *
from copy import *
from math import *
from random import *
from statistics import *
from itertools import *
from functools import *
from operator import *
from builtins import *
"""


class Job(NamedTuple):
    """One test as the child sees it."""

    source: str
    mode: str  # a records.Mode value
    entry_point: str
    arguments: bytes  # encoded, for mode call; the test code, for mode assert_inproc
    coverage: str  # as in PoolSettings
    message_limit: int  # bytes of one message of the test code's process, and of `head`
    is_kept: bool = False  # whether `head` is to hold the compiled program as well
    compiled: tuple[bytes, bytes] | None = None  # by an earlier test: legend and program


def make_prelude() -> types.ModuleType:
    """A module with the names that APPS+ solutions take for granted.

    Built once, in the worker; each child runs its program in its own copy of it.
    """
    with _no_hooks():
        module = _make_module("program", PRELUDE)
    sys.modules["random"].seed(0)  # all children draw the same numbers
    return module


@contextlib.contextmanager
def _no_hooks() -> Iterator[None]:
    """Keep modules from hooks in forked children, with which `random` seeds itself."""
    register = os.register_at_fork
    os.register_at_fork = lambda **hooks: None  # type: ignore[assignment]
    try:
        yield
    finally:
        os.register_at_fork = register


def make_modules() -> types.ModuleType:
    """A module with the modules alone that test code takes for granted."""
    return _make_module("test", MODULES)


def _make_module(name: str, source: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(compile(source, "<prelude>", "exec", dont_inherit=True), module.__dict__)
    return module


def run(job: Job, prelude: types.ModuleType, hits: mmap.mmap, head: int) -> None:
    """Run one test and leave the process; never returns.

    The standard streams must stand, as `open_standard_streams` makes them, and
    `defaults.set_all` must have been called.
    """
    os.write(head, IN_SANDBOX)
    try:
        program, note = _compile(job)
    except BaseException as error:  # whatever the compiler raises is its verdict
        os.write(head, REFUSED + _describe_refusal(error))
        os._exit(EXIT_ERROR)
    os.write(head, note)
    os.close(head)
    module = _choose_module(job.mode, prelude)
    module.__dict__.pop(job.entry_point, None)  # the prelude's own must not answer for it
    sys.argv = ["program.py"]
    module.__file__ = sys.argv[0]
    given = len(module.__dict__)
    sys.modules[module.__name__] = module
    try:
        _set_recursion_limit()
        program.start(hits)
        _run_mode(job, program.code, module, hits)
    except SystemExit as stop:
        if job.mode not in ("stdin_main", "stdin_fn") or _exit_code(stop) != 0:
            _leave_note(stop)
        _finish(module, given)
    except MemoryError:
        os._exit(EXIT_MEMORY)  # nothing here may allocate
    except BaseException as error:  # any error is the program's own
        _leave_note(error)
    _finish(module, given)


def _compile(job: Job) -> tuple[Instrumented, bytes]:
    """The program, and what `head` says of it."""
    if job.compiled is not None:
        legend, packed = job.compiled
        return Instrumented.unpack(packed), COMPILED + legend
    program = Instrumented(job.source, job.coverage)
    legend = program.legend()
    if job.is_kept:
        with contextlib.suppress(ValueError):
            packed = program.pack()
            note = KEPT + legend + packed + _KEPT_LENGTH.pack(len(packed))
            if len(note) < job.message_limit:
                return program, note
    return program, COMPILED + legend


def split_head(head: bytes) -> tuple[bytes, tuple[bytes, bytes] | None]:
    """A head as without `is_kept`, and what the next test's Job.compiled is to be.

    No line of the program had run when it was written.
    """
    if head[1:2] != KEPT:
        return head, None
    end = len(head) - _KEPT_LENGTH.size
    start = end - _KEPT_LENGTH.unpack(head[end:])[0]
    legend = head[2:start]
    return IN_SANDBOX + COMPILED + legend, (legend, head[start:end])


def _choose_module(mode: str, prelude: types.ModuleType) -> types.ModuleType:
    """The module to run in: APPS+ programs expect the prelude's names, others none."""
    if mode in ("stdin_fn", "call"):
        return prelude
    return types.ModuleType("__main__" if mode == "stdin_main" else "program")


def _describe_refusal(error: BaseException) -> bytes:
    detail = error.msg if isinstance(error, SyntaxError) else str(error)
    line = error.lineno if isinstance(error, SyntaxError) else None
    note = {"error": type(error).__name__, "message": str(detail)[:200], "line": line}
    return json.dumps(note).encode()


def open_standard_streams() -> None:
    """Put streams on descriptors 0, 1 and 2, as a fresh interpreter would.

    They are made in the worker, on files like those that each child has there: to make
    them, and to drop those before them, takes a child half as long as to compile.
    """
    source, out, err = (io.FileIO(fd, mode, closefd=False) for fd, mode in _STREAMS)
    streams = {
        # newline="\n": a carriage return in the input stays, as in every script on Linux
        "stdin": io.TextIOWrapper(io.BufferedReader(source), "utf-8", newline="\n"),
        "stdout": io.TextIOWrapper(io.BufferedWriter(out), "utf-8"),
        "stderr": io.TextIOWrapper(
            io.BufferedWriter(err), "utf-8", "backslashreplace", line_buffering=True
        ),
    }
    for name, raw, stream in zip(streams, (source, out, err), streams.values()):
        raw.name = f"<{name}>"  # contest templates ask for names and modes
        stream.mode = raw.mode[0]  # type: ignore[attr-defined]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _set_recursion_limit() -> None:
    """Give the program the depth it would have as a script, our own frames aside."""
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(_PYTHON_RECURSION_LIMIT + depth)


def _run_mode(
    job: Job, code: types.CodeType, module: types.ModuleType, hits: mmap.mmap
) -> None:
    # The codec's clock only where there is a codec: what a fork touches, it copies.
    if job.mode == "call":
        _call(job, code, module, CodecClock(hits))
        return
    exec(code, module.__dict__)
    if job.mode == "assert_inproc":
        _run_test_code(job, module)
    elif job.mode == "assert_proxy":
        _serve(job, module, CodecClock(hits))
    elif job.mode == "stdin_fn":
        _find_function(module, job.entry_point)()


def _restore() -> None:
    """Make builtins ours again, whatever the program did to them."""
    builtins.__dict__.update(_PRISTINE)


def _call(
    job: Job, code: types.CodeType, module: types.ModuleType, clock: CodecClock
) -> None:
    with clock:
        arguments = values.decode(job.arguments)
    exec(code, module.__dict__)
    result = _find_function(module, job.entry_point)(*arguments)
    _restore()
    with clock:
        data = _encode_result(result)
    _leave_result(data)


def _serve(job: Job, module: types.ModuleType, clock: CodecClock) -> None:
    """Answer the test code, which runs elsewhere; never returns."""

    def find(name: str) -> Any:
        return _find_function(module, name)

    limit = job.message_limit
    channel.Server(find, _program_line, _restore, limit, clock).serve()
    with contextlib.suppress(BaseException):  # what it printed is for the report alone
        _flush_streams()
    os._exit(EXIT_OK)


def _encode_result(result: Any) -> bytes:
    """The result, or behind a mark what it is instead of a plain value of bounded size."""
    try:
        return kinds.Reducer().encode(result)
    except values.TooDeep as error:
        return NO_VALUE + str(error).encode()
    except values.TooLarge as error:
        return TOO_LARGE + str(error).encode()
    except values.ValueCodecError as error:
        return NO_VALUE + str(error).encode("utf-8", "replace")


def _run_test_code(job: Job, module: types.ModuleType) -> None:
    """Run test code beside the program, which can reach everything in it: weak."""
    code = compile(job.arguments, "<test>", "exec", dont_inherit=True)
    module.__dict__.setdefault("candidate", module.__dict__.get(job.entry_point))
    exec(code, module.__dict__)
    _leave_result(values.encode(True))


def _find_function(module: types.ModuleType, name: str) -> Any:
    """The module's function, or a method of its `Solution` class."""
    if name in module.__dict__:
        return module.__dict__[name]
    solution = module.__dict__.get("Solution")
    if solution is not None:
        return getattr(solution(), name)
    raise NameError(f"name {name!r} is not defined")


def _leave_result(data: bytes) -> None:
    os.ftruncate(RESULT_FD, 0)
    offset = 0
    while offset < len(data):
        offset += os.pwrite(RESULT_FD, data[offset:], offset)
    # Finalisers, threads and atexit hooks have no say over a value already returned.
    os._exit(EXIT_OK)


def _leave_note(error: BaseException) -> None:
    """Write the error's class and line for the report, its traceback to stderr; exit."""
    status = EXIT_ERROR
    try:
        status = EXIT_MEMORY if errors.ran_out(error) else EXIT_ERROR
        os.ftruncate(RESULT_FD, 0)
        note = f"{type(error).__name__}\n{_program_line(error)}"
        os.pwrite(RESULT_FD, note.encode("utf-8", "replace")[:400], 0)
        _flush_streams()
        own = error.with_traceback(_program_frames(error))
        trace = traceback.format_exception(own, chain=False)
        os.write(2, "".join(trace)[-4000:].encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _program_frames(error: BaseException) -> types.TracebackType | None:
    """The innermost of the error's frames from the program's outermost one on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != "<program>":
        trace = trace.tb_next
    return innermost(trace, _TRACEBACK_FRAMES)


def _program_line(error: BaseException) -> int:
    """The innermost line of the program on the error's way, 0 when there is none."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<program>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    return stop.code & 0xFF if isinstance(stop.code, int) else 1


def _flush_streams() -> None:
    """Flush the standard streams as CPython does: neither a closed nor a missing one."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()


def _finish(module: types.ModuleType, given: int) -> None:
    """End as CPython does: join threads, run atexit hooks, flush, drop the globals.

    The first `given` of them are not the program's and stay.
    """
    try:
        if "threading" in sys.modules:  # the worker leaves it unloaded, see __init__.py
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        _flush_streams()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        for name in list(module.__dict__)[given:]:  # closes, and so flushes, its open files
            module.__dict__.pop(name, None)
        with contextlib.suppress(ValueError):  # detached, in favour of another stream
            _flush_streams()
    except BaseException as error:  # a broken stdout, or an exit from a hook
        _leave_note(error)
    os._exit(EXIT_OK)
