"""What happens in the forked, sandboxed child: compile, run, hand over, exit.

The child never holds an expected output. It speaks through four descriptors: 0 input,
1 and 2 output, RESULT_FD for the returned value or the name of the error. The compiler's
word goes through `head`, which is closed before any line of the program runs.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import struct
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from stepcoder_jax.execution.crossing.memory import ran_out
from stepcoder_jax.execution.worker import marks
from stepcoder_jax.execution.worker.defaults import innermost
from stepcoder_jax.execution.worker.tracer import Instrumented

_KEPT_LENGTH = struct.Struct("=I")
_PYTHON_RECURSION_LIMIT = 1000
_TRACEBACK_FRAMES = 8  # the innermost ones


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


Act = Callable[[Job, types.CodeType, types.ModuleType, mmap.mmap], None]


def run_by_text(
    job: Job, code: types.CodeType, module: types.ModuleType, hits: mmap.mmap
) -> None:
    """Run a program that reads its input and prints its answer."""
    exec(code, module.__dict__)
    if job.mode == "stdin_fn":
        find_function(module, job.entry_point)()


def run(
    job: Job,
    prelude: types.ModuleType,
    hits: mmap.mmap,
    head: int,
    act: Act = run_by_text,
) -> None:
    """Run one test and leave the process; never returns.

    `act` runs the compiled program as its mode asks (for other modes see `calls`).
    The standard streams must stand, as `defaults.open_standard_streams` makes
    them, and `defaults.set_all` must have been called.
    """
    os.write(head, marks.IN_SANDBOX)
    try:
        program, note = _compile(job)
    except BaseException as error:  # whatever the compiler raises is its verdict
        os.write(head, marks.REFUSED + _describe_refusal(error))
        os._exit(marks.EXIT_ERROR)
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
        act(job, program.code, module, hits)
    except SystemExit as stop:
        if job.mode not in ("stdin_main", "stdin_fn") or _exit_code(stop) != 0:
            _leave_note(stop)
        _finish(module, given)
    except MemoryError:
        os._exit(marks.EXIT_MEMORY)  # nothing here may allocate
    except BaseException as error:  # any error is the program's own
        _leave_note(error)
    _finish(module, given)


def _compile(job: Job) -> tuple[Instrumented, bytes]:
    """The program, and what `head` says of it."""
    if job.compiled is not None:
        legend, packed = job.compiled
        return Instrumented.unpack(packed), marks.COMPILED + legend
    program = Instrumented(job.source, job.coverage)
    legend = program.legend()
    if job.is_kept:
        with contextlib.suppress(ValueError):
            packed = program.pack()
            note = marks.KEPT + legend + packed + _KEPT_LENGTH.pack(len(packed))
            if len(note) < job.message_limit:
                return program, note
    return program, marks.COMPILED + legend


def split_head(head: bytes) -> tuple[bytes, tuple[bytes, bytes] | None]:
    """A head as without `is_kept`, and what the next test's Job.compiled is to be.

    No line of the program had run when it was written.
    """
    if head[1:2] != marks.KEPT:
        return head, None
    end = len(head) - _KEPT_LENGTH.size
    start = end - _KEPT_LENGTH.unpack(head[end:])[0]
    legend = head[2:start]
    return marks.IN_SANDBOX + marks.COMPILED + legend, (legend, head[start:end])


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


def _set_recursion_limit() -> None:
    """Give the program the depth it would have as a script, our own frames aside."""
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(_PYTHON_RECURSION_LIMIT + depth)


def find_function(module: types.ModuleType, name: str) -> Any:
    """The module's function, or a method of its `Solution` class."""
    if name in module.__dict__:
        return module.__dict__[name]
    solution = module.__dict__.get("Solution")
    if solution is not None:
        return getattr(solution(), name)
    raise NameError(f"name {name!r} is not defined")


def _leave_note(error: BaseException) -> None:
    """Write the error's class and line for the report, its traceback to stderr; exit."""
    status = marks.EXIT_ERROR
    try:
        status = marks.EXIT_MEMORY if ran_out(error) else marks.EXIT_ERROR
        os.ftruncate(marks.RESULT_FD, 0)
        note = f"{type(error).__name__}\n{program_line(error)}"
        os.pwrite(marks.RESULT_FD, note.encode("utf-8", "replace")[:400], 0)
        flush_streams()
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


def program_line(error: BaseException) -> int:
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


def flush_streams() -> None:
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
        flush_streams()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        for name in list(module.__dict__)[given:]:  # closes, and so flushes, its open files
            module.__dict__.pop(name, None)
        try:
            flush_streams()
        except ValueError:  # detached, in favour of another stream: nothing is left in it
            os._exit(marks.EXIT_OK)
    except BaseException as error:  # a broken stdout, or an exit from a hook
        _leave_note(error)
    os._exit(marks.EXIT_OK)
