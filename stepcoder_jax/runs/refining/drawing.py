"""Wrong programs: drawn from a model, or taken from files of results.

Problem by problem, some problems at a time; what is drawn does not depend on how many.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stepcoder_jax.data.formats.rows import DataError, stream_lines
from stepcoder_jax.data.refinements import describe_feedback, number_wrong
from stepcoder_jax.execution import Pool
from stepcoder_jax.progress import StepProgress
from stepcoder_jax.records import Attempt, Problem, Program
from stepcoder_jax.runs import raft
from stepcoder_jax.runs.disk.interrupt import Interrupt, breakable
from stepcoder_jax.runs.generate import Player, run_all
from stepcoder_jax.runs.greedy import whole_tasks
from stepcoder_jax.runs.refining.folder import Folder
from stepcoder_jax.strategies.driving import Strategy, drive
from stepcoder_jax.strategies.mending import Fate, Looked, draw_wrong, look

WANTED = "judged samples, one JSON object per line"
WINDOW = 512  # programs that are held at a time, or those of one problem


class Written(NamedTuple):
    """A program of a file of results, and who wrote it."""

    program: Program
    source: str


class Job(NamedTuple):
    """One problem, and what is to be done for it."""

    problem: Problem
    strategies: Sequence[Callable[[], Strategy[Looked]]]
    sources: Sequence[str]  # who wrote each program


def draw_jobs(
    problems: Sequence[Problem], samples: int, source: str, cpu_seconds: float
) -> list[Job]:
    """So many programs of each problem are to be drawn."""
    return [
        Job(
            task.problem,
            [functools.partial(draw_wrong, task, cpu_seconds)] * samples,
            [source] * samples,
        )
        for task in whole_tasks(problems)
    ]


def file_jobs(
    problems: Sequence[Problem], files: Sequence[str], cpu_seconds: float
) -> tuple[list[Job], int]:
    """The failed programs of files are to be looked at, and how many rows passed.

    Raises DataError, one line that names file, row and field, for the first row that is
    bad, that was not judged, or whose problem is not among `problems`.
    """
    known = {problem.id: problem for problem in problems}
    found: dict[str, list[Written]] = {problem.id: [] for problem in problems}
    passed = 0
    for path in files:
        for row in stream_lines(path, WANTED):
            try:
                program, fields = raft.check(row, known)
            except DataError as error:
                raise DataError(f"--wrong: {path}: {row.place}: {error}") from None
            if fields["passed"]:
                passed += 1
                continue
            written = Written(program, str(fields.get("source", path)))
            found[program.problem.id].append(written)
    jobs = [
        Job(
            problem,
            [
                functools.partial(look, written.program, cpu_seconds)
                for written in found[problem.id]
            ],
            [written.source for written in found[problem.id]],
        )
        for problem in problems
        if found[problem.id]
    ]
    return jobs, passed


def find_wrong(
    folder: Folder,
    jobs: Sequence[Job],
    pool: Pool,
    player: Player | None,
    interrupt: Interrupt,
) -> None:
    """Do the jobs, from where the folder is, and keep what is wrong there.

    `player` draws; None where nothing is drawn.
    """
    stage = folder.drawn
    starts = [0]
    for job in jobs:
        starts.append(starts[-1] + len(job.strategies))
    windows = list(_cut(starts, stage.done))
    stage.total = len(jobs)
    with StepProgress(len(windows), "window", "wrong programs") as progress:
        for begin, end in windows:
            interrupt.check()
            chosen = jobs[begin:end]
            strategies = [make() for job in chosen for make in job.strategies]
            ask = player._replace(first=starts[begin]).ask if player else _ask_nobody
            with breakable():
                found = drive(strategies, ask, lambda some: run_all(pool, some, ""))
            sources = [source for job in chosen for source in job.sources]
            rows = _rows(found, sources)
            for each in found:
                stage.count(each.fate, each.program.problem.id)
            folder.keep(stage, rows, end)
            progress.update(
                f"{starts[end]} of {starts[-1]} programs, {stage.fates[Fate.KEPT]} wrong"
            )


def _ask_nobody(wanted: object) -> Any:
    raise AssertionError("what is read from files asks no model")


def _cut(starts: Sequence[int], begin: int) -> Iterator[tuple[int, int]]:
    """Windows of jobs: one, or as many as have no more than WINDOW programs."""
    while begin < len(starts) - 1:
        end = begin + 1
        while end < len(starts) - 1 and starts[end + 1] - starts[begin] <= WINDOW:
            end += 1
        yield begin, end
        begin = end


def _rows(found: Sequence[Looked], sources: Sequence[str]) -> list[Mapping[str, Any]]:
    """A row for each different wrong program, which `judge` and `--wrong` could read."""
    told: dict[tuple[str, str], tuple[Attempt, str]] = {}
    for looked, source in zip(found, sources, strict=True):
        if looked.attempt is not None:
            key = looked.program.problem.id, looked.program.source
            told.setdefault(key, (looked.attempt, source))
    rows: list[Mapping[str, Any]] = []
    for wrong in number_wrong(told):
        attempt, source = told[wrong.task_id, wrong.source]
        rows.append(
            {
                "task_id": wrong.task_id,
                "wrong_id": wrong.wrong_id,
                "solution": wrong.source,
                "source": source,
                "passed": False,
                "result": str(attempt.verdict),
                "feedback": describe_feedback(attempt),
            }
        )
    return rows
