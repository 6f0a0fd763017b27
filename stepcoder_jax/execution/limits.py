"""CPU limits of problems, from the time that their reference solutions take.

limit = clamp(10 x CPU seconds of the slowest test, 1 s, 6 s), rounded up to whole seconds:
so coarse that another measurement, on a busy machine, gives the same.

They are kept in JSON files, as {digest of the problem file: {problem id: seconds}}, with
null for a reference solution that failed: such a problem has the default limit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stepcoder_jax.execution.pool.pool import Pool
from stepcoder_jax.records import (
    FAULTY_TEST,
    InputError,
    Mode,
    Problem,
    Program,
    TestResult,
)

Limits = dict[str, float | None]  # by problem id; None: the reference solution failed

_FACTOR = 10
_SMALLEST, _LARGEST = 1, 6  # seconds


def limit_of(seconds: float) -> float:
    """The limit, where the slowest test of the reference took so many CPU seconds."""
    return float(min(_LARGEST, max(_SMALLEST, math.ceil(_FACTOR * seconds))))


def measure_limits(
    pool: Pool, problems: Iterable[Problem], tick: Callable[[], object] | None = None
) -> Limits:
    """Run every reference solution and return each problem's limit.

    The pool should have coverage "none", for before Python 3.12 the probes cost CPU time.
    `tick` is called as each solution ends. ValueError for a problem that cannot be judged,
    InputError for test code that imports what the sandbox's interpreter lacks.
    """
    ids: list[str] = []
    modes: list[Mode] = []
    limits: Limits = {}

    def references() -> Iterable[Program]:
        for problem in problems:
            ids.append(problem.id)
            modes.append(problem.mode)
            limits[problem.id] = None  # in the order of the problems
            widest = dataclasses.replace(problem, cpu_seconds=float(_LARGEST))
            yield Program(widest, problem.solution, 0, ())

    for index, report in pool.stream(references()):
        if report.message.startswith(f"{FAULTY_TEST}: ModuleNotFoundError"):
            raise InputError(
                f"problem {ids[index]}: {report.message}; install it for the interpreter "
                "of --execution.python, or take the problem out"
            )
        is_proxy = modes[index] is Mode.ASSERT_PROXY
        slowest = max(_cost(test, is_proxy) for test in report.tests)
        limits[ids[index]] = limit_of(slowest) if report.passed else None
        if tick is not None:
            tick()
    return limits


def _cost(test: TestResult, is_proxy: bool) -> float:
    """CPU seconds of a test; where test code has a process of its own, which is under the
    same limit and whose clock is not told, the wall seconds that bound both."""
    return test.wall_seconds if is_proxy else test.cpu_seconds


def side_file(problem_file: str | Path) -> Path:
    """Where the limits of a problem file are kept: FILE.limits.json, beside it."""
    return Path(f"{problem_file}.limits.json")


def digest_file(problem_file: str | Path) -> str:
    """The digest by which limits know the very file that they were measured for."""
    with open(problem_file, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_limits(path: Path, digest: str) -> Limits | None:
    """The limits kept in `path` for the problem file with this digest.

    None where there are none: no such file, or it was made for other problem files.
    InputError for a file that is none of ours.
    """
    return _read(path).get(digest)


def write_limits(path: Path, digest: str, limits: Limits) -> None:
    """Add limits to those kept in `path`, all or nothing; OSError where it cannot be."""
    kept = _read(path)
    kept[digest] = {**kept.get(digest, {}), **limits}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def _read(path: Path) -> dict[str, Limits]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); mend or remove it") from error
    try:
        kept = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: expected JSON, got {text[:40]!r}; remove it to measure again"
        ) from error
    if not isinstance(kept, dict) or not all(map(_are_limits, kept.values())):
        raise InputError(
            f"{path}: expected {{file digest: {{problem id: seconds or null}}}}, got "
            f"{text[:40]!r}; remove it to measure again"
        )
    return kept


def _are_limits(value: Any) -> bool:
    return isinstance(value, dict) and all(
        seconds is None or (type(seconds) in (int, float) and seconds > 0)
        for seconds in value.values()
    )
