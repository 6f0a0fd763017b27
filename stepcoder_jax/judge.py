"""`stepcoder judge`: run the solutions of a problem file and count their verdicts."""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Sequence
from typing import Literal, TextIO

import tqdm
import tyro

from stepcoder_jax.config import ExecutionConfig
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.execution import Pool, PoolSettings
from stepcoder_jax.records import Problem, Program, Report, Verdict

_MOST_LISTED = 20
_EXIT_PASS, _EXIT_FAILED, _EXIT_BAD_INPUT = 0, 1, 2


@dataclasses.dataclass
class JudgeOptions:
    """Run every solution of a problem file in the sandbox; exit 1 when one fails."""

    path: tyro.conf.Positional[str]
    """A problem file: APPS+ v1, HumanEval or MBPP."""
    solutions: Literal["canonical"] = "canonical"
    """Which programs are run: the file's own solutions."""
    strict: bool = False
    """Stop at the first bad row instead of reporting and counting it."""
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)


def judge_file(options: JudgeOptions) -> int:
    """`stepcoder judge`; returns the exit code."""
    problems, complaints = read_any(options.path, strict=options.strict)
    settings = PoolSettings(**dataclasses.asdict(options.execution), coverage="none")
    return judge(problems, complaints, settings, sys.stdout)


def judge(
    problems: Sequence[Problem],
    complaints: Sequence[str],
    settings: PoolSettings,
    out: TextIO,
) -> int:
    """Run the canonical solution of every problem, print a table and the failing ids.

    Returns 0 when all of them pass, 1 when one does not, 2 when nothing could be run or
    rows were bad (`complaints`): their solutions were never judged.
    """
    for complaint in complaints:
        print(complaint, file=out)
    if not problems:
        print("no usable problem in the file", file=out)
        return _EXIT_BAD_INPUT
    programs = [Program(problem, problem.solution, 0, ()) for problem in problems]
    reports: list[Report | None] = [None] * len(programs)
    with Pool(settings) as pool, tqdm.tqdm(total=len(programs), unit="program") as bar:
        for index, report in pool.stream(programs):
            reports[index] = report
            bar.update()
    judged = [
        (problem, report)
        for problem, report in zip(problems, reports)
        if report is not None
    ]
    print(format_table(judged), file=out)
    failures = [(problem, report) for problem, report in judged if not report.passed]
    for problem, report in failures[:_MOST_LISTED]:
        print(f"{problem.id}: {describe_failure(report)}", file=out)
    if len(failures) > _MOST_LISTED:
        print(f"... and {len(failures) - _MOST_LISTED} more", file=out)
    if complaints:
        print(f"{len(complaints)} rows were bad and were not judged", file=out)
        return _EXIT_BAD_INPUT
    return _EXIT_FAILED if failures else _EXIT_PASS


def describe_failure(report: Report) -> str:
    """One line: the verdict, the test that decided it, and the error."""
    words = [str(report.verdict)]
    for number, test in enumerate(report.tests):
        if test.verdict is report.verdict:
            place = f" at line {test.line}" if test.line else ""
            words.append(f"in test {number}{': ' if test.error else ''}{test.error}{place}")
            break
    return " ".join([*words, report.message]).strip()


def format_table(judged: Sequence[tuple[Problem, Report]]) -> str:
    """Counts by difficulty and verdict; verdicts that nobody got have no column."""
    counts: dict[str, collections.Counter[Verdict]] = {}
    for problem, report in judged:
        row = counts.setdefault(problem.difficulty, collections.Counter())
        row[report.verdict] += 1
    total: collections.Counter[Verdict] = sum(counts.values(), collections.Counter())
    columns = [verdict for verdict in Verdict if total[verdict]]
    rows = [["difficulty", *map(str, columns), "all"]]
    for name, row in [*sorted(counts.items()), ("all", total)]:
        rows.append([name, *(str(row[v]) for v in columns), str(row.total())])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(row[1:], widths[1:]))
        for row in rows
    )
