"""What the processes of programs inherit, set once for all of them in the worker.

Where a program would find more of the machine than its limits hold, or another machine on
another host, it finds here what it is given: one processor, no process to share a lock
with, as deep a recursion as its memory holds.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import resource
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

from stepcoder_jax.execution.worker import semaphores

# As under the usual `ulimit -s`: by default each thread reserves the main thread's limit,
# and two of them more than all the memory there is.
_THREAD_STACK_BYTES = 8 << 20
# With its traceback a frame takes half of this. Deeper recursion than the memory holds ends
# in an unwinding for which no memory is left: seconds of it, a SystemError or a fault.
_FRAME_BYTES = 512
_ALWAYS_HELD = 100_000  # frames, by the smallest memory that a program can have
_LARGEST_INT = (1 << 31) - 1  # of C: above it, the limit is refused
# The limit of the tracebacks that CPython prints in C. Those that it makes in Python (since
# 3.13 also of an error that ends a thread) have none: of a deep recursion, seconds of work.
_PRINTED_FRAMES = 1000
_STREAMS = ((0, "r"), (1, "w"), (2, "w"))

_MODULES = """
import bisect, collections, copy, datetime, functools, heapq, io, itertools, json, math
import operator, os, random, re, statistics, string, sys, typing
"""
_PRELUDE = f"""{_MODULES}
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


def set_all() -> None:
    """Set all of them in this process; the standard library alone is changed."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # a full file ends the program
    _thread.stack_size(_THREAD_STACK_BYTES)
    semaphores.install()
    sys.setrecursionlimit = _within_memory(sys.setrecursionlimit)
    _cap_tracebacks()
    # A pool of threads has one for each processor: on a large host, all the memory.
    for name in ("cpu_count", "process_cpu_count"):
        if hasattr(os, name):
            setattr(os, name, _count_processors)


def _count_processors() -> int:
    """Processors of a program: the one that its worker has."""
    return 1


def _within_memory(set_limit: Callable[[int], None]) -> Callable[[int], None]:
    """`sys.setrecursionlimit`, but for limits that the memory cannot hold."""

    def setrecursionlimit(limit: int, /) -> None:
        if isinstance(limit, int) and _ALWAYS_HELD < limit <= _LARGEST_INT:
            memory = resource.getrlimit(resource.RLIMIT_AS)[0]
            if memory != resource.RLIM_INFINITY:
                limit = min(limit, memory // _FRAME_BYTES)
        set_limit(limit)

    return setrecursionlimit


def _cap_tracebacks() -> None:
    """Keep the `traceback` module from walking more than the innermost frames."""
    walk: Callable[..., Any] | None = getattr(
        traceback, "_walk_tb_with_full_positions", None
    )
    if walk is not None:

        def walk_innermost(trace: types.TracebackType | None) -> Any:
            return walk(innermost(trace, _PRINTED_FRAMES))

        traceback._walk_tb_with_full_positions = walk_innermost  # type: ignore[attr-defined]


def innermost(trace: types.TracebackType | None, count: int) -> types.TracebackType | None:
    """The last `count` frames of a traceback."""
    ahead = trace
    for _ in range(count):
        ahead = ahead and ahead.tb_next
    while trace is not None and ahead is not None:
        trace, ahead = trace.tb_next, ahead.tb_next
    return trace


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


def make_prelude() -> types.ModuleType:
    """A module with the names that APPS+ solutions take for granted.

    Built once, in the worker; each child runs its program in its own copy of it.
    """
    return _make_module("program", _PRELUDE)


def make_modules() -> types.ModuleType:
    """A module with the modules alone that test code takes for granted."""
    return _make_module("test", _MODULES)


def _make_module(name: str, source: str) -> types.ModuleType:
    module = types.ModuleType(name)
    with _no_hooks():
        exec(compile(source, "<prelude>", "exec", dont_inherit=True), module.__dict__)
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
