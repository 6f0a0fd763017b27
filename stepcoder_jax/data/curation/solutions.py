"""Running the canonical solutions of problems, and running them again elsewise."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stepcoder_jax.execution import PoolSettings, open_pool
from stepcoder_jax.progress import CountProgress
from stepcoder_jax.records import Problem, Program, Report

_OTHER_SEED = 1  # the judge's own is 0


def run_solutions(
    problems: Sequence[Problem], settings: PoolSettings, title: str
) -> list[Report]:
    """The reports on the canonical solutions, in order; all tests of each are run."""
    if not problems:
        return []
    programs = [Program(problem, problem.solution, 0, ()) for problem in problems]
    reports: dict[int, Report] = {}
    settings = dataclasses.replace(settings, tests="run_all", cache_size=0)
    with (
        open_pool(settings) as pool,
        CountProgress(len(programs), "solution", title) as bar,
    ):
        for index, report in pool.stream(programs):
            reports[index] = report
            bar.update()
    return [reports[index] for index in range(len(programs))]


def run_twice(
    splits: dict[str, list[Problem]], settings: PoolSettings
) -> dict[str, tuple[list[Report], list[Report]]]:
    """Two reports on each solution; the strings of the second run have other hashes.

    The judge fixes the seed of string hashes, so that a program that prints a set prints
    it the same each time. A second run as the first would never tell: its interpreter is
    started through a shell script that changes the seed. A service has random ones.
    """
    flat = [problem for problems in splits.values() for problem in problems]
    first = run_solutions(flat, settings, "first run")
    with tempfile.TemporaryDirectory() as folder:
        if settings.backend == "local":
            python = _reseeded(Path(folder), settings.python or sys.executable)
            settings = dataclasses.replace(settings, python=python)
        second = run_solutions(flat, settings, "second run")
    found, start = {}, 0
    for split, problems in splits.items():
        end = start + len(problems)
        found[split] = first[start:end], second[start:end]
        start = end
    return found


def _reseeded(folder: Path, python: str) -> str:
    """The path of a script that runs `python` with another seed of string hashes."""
    script = folder / "python"
    script.write_text(
        f'#!/bin/sh\nPYTHONHASHSEED={_OTHER_SEED} exec {shlex.quote(python)} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)
