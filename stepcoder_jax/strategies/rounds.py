"""Answer, run, read what running it said, answer again (arXiv:2405.18649, section 4).

Visible tests feed and all tests score: a chain of rounds goes on while a visible test
fails, whatever the others say. It ends without a verdict of its own where the judge fails,
where an answer holds no code, and where the next prompt would be too long.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.turns import attempt_of, on_visible_tests, tell_less
from stepcoder_jax.records import Attempt, Program, Report, Task, Told, Variant
from stepcoder_jax.strategies.driving import Ask, Run, Strategy


class Round(NamedTuple):
    """One answer, and its report on the problem's tests."""

    task: Task
    answer: Answer | None  # None: its prompt is too long
    report: Report | None  # None: there is no program to run


class Refinement(NamedTuple):
    """How often a model may mend its program, what it is asked for, and what it is told."""

    rounds: int
    variant: Variant = Variant.DIRECT
    told: Told = Told.TEST


def refine(task: Task, asked: Refinement, cpu_seconds: float) -> Strategy[list[Round]]:
    """The rounds of one problem: the first answer, and at most `asked.rounds` more.

    `cpu_seconds` is the default limit of one test.
    """
    rounds: list[Round] = []
    while True:
        answer: Answer | None = yield Ask(task)
        if answer is None or answer.program is None:
            return [*rounds, Round(task, answer, None)]
        report: Report = yield Run(answer.program)
        rounds.append(Round(task, answer, report))
        if len(rounds) > asked.rounds or not _has_more_to_see(answer.program, report):
            return rounds
        seen: Report = yield Run(on_visible_tests(answer.program))
        limit = task.problem.cpu_seconds or cpu_seconds
        attempt = attempt_of(answer.program, seen, limit)
        if attempt is None:
            return rounds
        task = continue_task(task, tell_less(attempt, asked.told), asked.variant)


def _has_more_to_see(program: Program, report: Report) -> bool:
    """Whether a visible test may fail."""
    visible = program.problem.visible_tests
    known = program.problem.tests
    return bool(visible) and not (report.passed and all(x in known for x in visible))


def continue_task(task: Task, attempt: Attempt, variant: Variant) -> Task:
    """The task whose context has one attempt more."""
    before = (*task.before, attempt)
    return dataclasses.replace(task, stage=0, head="", before=before, variant=variant)
