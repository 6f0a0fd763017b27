"""One failed program, and one answer to it: what the records of self-debugging are made of.

Visible tests feed and all tests score. Nothing that our own machinery failed on is a wrong
program, or an answer.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from stepcoder_jax import syntax
from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.turns import attempt_of, on_visible_tests, report_on_visible
from stepcoder_jax.records import Attempt, Program, Report, Task, Verdict
from stepcoder_jax.strategies.driving import Ask, Run, Strategy


class Fate(enum.StrEnum):
    """What becomes of a program that was drawn, or of an answer to a wrong one."""

    KEPT = "kept"
    PASSED = "passed"
    UNTOLD = "failed, but no visible test"  # so there is nothing to read
    NO_CODE = "without a whole block of code"
    COPIED = "the wrong program again"
    CODE_TOLD = "with code in the explanation"
    TOO_LONG = "too long a prompt"
    UNFAITHFUL = "asked for what the judge cannot carry"
    INFRA = "not judged"


class Looked(NamedTuple):
    """A program, and where it is wrong what its model reads of it."""

    program: Program
    fate: Fate
    attempt: Attempt | None = None


class Answered(NamedTuple):
    """An answer to a wrong program, and where it is kept its report on all tests."""

    fate: Fate
    answer: Answer | None = None  # None: its prompt is too long
    report: Report | None = None


def draw_wrong(task: Task, cpu_seconds: float) -> Strategy[Looked]:
    """A first answer, looked at; `cpu_seconds` is the default limit of one test."""
    answer: Answer | None = yield Ask(task)
    if answer is None or answer.program is None:
        fate = Fate.TOO_LONG if answer is None else Fate.NO_CODE
        return Looked(Program(task.problem, "", 0, ()), fate)
    report: Report = yield Run(answer.program)
    if report.passed or not _is_judged(report):
        return Looked(answer.program, Fate.PASSED if report.passed else _why(report))
    return (yield from look(answer.program, cpu_seconds, report))


def look(
    program: Program, cpu_seconds: float, report: Report | None = None
) -> Strategy[Looked]:
    """What a program that has failed shows on the visible tests.

    `report`, on all tests, saves a run where it has them all.
    """
    seen = report and report_on_visible(program, report)
    if seen is None:
        seen = yield Run(on_visible_tests(program))
    attempt = attempt_of(program, seen, program.problem.cpu_seconds or cpu_seconds)
    if attempt is not None:
        return Looked(program, Fate.KEPT, attempt)
    return Looked(program, Fate.UNTOLD if seen.passed else _why(seen))


def answer_wrong(task: Task, fence: str) -> Strategy[Answered]:
    """One answer to a task's last attempt; `fence` is what opens a block of code."""
    answer: Answer | None = yield Ask(task)
    fate = _read(task, answer, fence)
    if fate is not Fate.KEPT:
        return Answered(fate, answer)
    assert answer is not None and answer.program is not None
    report: Report = yield Run(answer.program)
    return Answered(Fate.KEPT if _is_judged(report) else _why(report), answer, report)


def _read(task: Task, answer: Answer | None, fence: str) -> Fate:
    """What can be told of an answer before it has run."""
    if answer is None:
        return Fate.TOO_LONG
    if answer.program is None:
        return Fate.NO_CODE
    if syntax.is_same(task.before[-1].source, answer.program.source):
        return Fate.COPIED
    lines = answer.explanation.split("\n")
    return Fate.CODE_TOLD if any(x.startswith(fence) for x in lines) else Fate.KEPT


def _is_judged(report: Report) -> bool:
    return report.verdict is not Verdict.INFRA and not report.unfaithful


def _why(report: Report) -> Fate:
    return Fate.INFRA if report.verdict is Verdict.INFRA else Fate.UNFAITHFUL
