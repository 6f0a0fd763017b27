"""Verdicts that are known already: rollouts of one problem often are the same program.

A report is kept under a digest of the source and of all that the problem says of a run
(tests, mode, entry point, CPU limit). The settings are not in the key, since a cache
belongs to one pool and dies with it.
"""

from __future__ import annotations

import collections
import hashlib
import marshal
import threading
import weakref
from typing import Generic, TypeVar

from stepcoder_jax.execution.judging.checks import check_problem
from stepcoder_jax.records import Problem, Program, Report, Verdict

Job = TypeVar("Job")


class ProgramKeys:
    """The key of a program; each problem is checked and digested once in its life."""

    def __init__(self) -> None:
        # by id: a problem's own hash would walk its tests, which may hold lists
        self._known: dict[int, tuple[weakref.ref[Problem], bytes | None]] = {}

    def of(self, program: Program) -> bytes | None:
        """The digest, or None for tests that have none and so cannot be kept.

        ValueError for a problem that cannot be judged.
        """
        about = self.of_problem(program.problem)
        if about is None:
            return None
        return _digest(about + program.source.encode("utf-8", "surrogatepass"))

    def of_problem(self, problem: Problem) -> bytes | None:
        """As `of`, for what the problem alone says."""
        key = id(problem)
        known = self._known.get(key)
        if known is not None and known[0]() is problem:
            return known[1]
        check_problem(problem)
        forget = weakref.ref(problem, lambda _: self._known.pop(key, None))
        self._known[key] = forget, _digest_problem(problem)
        return self._known[key][1]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _digest_problem(problem: Problem) -> bytes | None:
    """Over marshal's bytes, which tell 1 from 1.0 and from True; None for other objects."""
    tests = [(test.inputs, test.expected) for test in problem.tests]
    about = (str(problem.mode), problem.entry_point, problem.cpu_seconds, tests)
    try:
        return _digest(marshal.dumps(about, 2))  # version 2: equal values, equal bytes
    except ValueError:
        return None


def is_repeatable(report: Report, cpu_limit: float) -> bool:
    """Whether another run would say the same however busy the machine is.

    Not so: a failure of our own; a test that the wall limit ended, which is one that timed
    out with less than `cpu_limit` CPU seconds; a kill when the kernel ran out of memory,
    which leaves no MemoryError; a compiler that was killed.
    """
    if report.verdict is Verdict.INFRA or report.message.startswith("CompilerKilled"):
        return False
    return not any(
        (test.verdict is Verdict.TIMEOUT and test.cpu_seconds < cpu_limit)
        or (test.verdict is Verdict.MEMORY and not test.error)
        for test in report.tests
    )


class ReportCache(Generic[Job]):
    """The `size` reports used last, and the jobs that wait for one being made.

    All methods may be called from any thread.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._reports: collections.OrderedDict[bytes, Report] = collections.OrderedDict()
        self._waiting: dict[bytes, list[Job]] = {}
        self._lock = threading.Lock()

    def claim(self, key: bytes, job: Job) -> tuple[bool, Report | None]:
        """(False, report) when it is known; (True, None) when the caller is to make it and
        then to call `settle`; (False, None) when another does: `job` is kept till then.
        """
        with self._lock:
            report = self._reports.get(key)
            if report is not None:
                self._reports.move_to_end(key)
                return False, report
            if key in self._waiting:
                self._waiting[key].append(job)
                return False, None
            self._waiting[key] = []
            return True, None

    def settle(self, key: bytes, report: Report | None) -> list[Job]:
        """Keep the report, unless it is None; returns the jobs that waited for it."""
        with self._lock:
            if report is not None:
                self._reports[key] = report
                if len(self._reports) > self.size:
                    self._reports.popitem(last=False)
            return self._waiting.pop(key)
