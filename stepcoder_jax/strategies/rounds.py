"""Answer, run, read what running it said, answer again (arXiv:2405.18649, section 4).

Visible tests feed and all tests score: a chain of rounds goes on while a visible test
fails, whatever the others say. It ends without a verdict of its own where the judge fails,
where an answer holds no code, and where the next prompt would be too long.

With two variants each round has an answer of each to the same failure, and the better one
by the visible tests is taken. The paper takes the better one by the tests that score. The
second is not asked where the first one passes them all, since it could not be better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.turns import (
    Others,
    attempt_of,
    attempt_that_passes,
    on_visible_tests,
    report_on_visible,
    tell_less,
)
from stepcoder_jax.records import (
    Attempt,
    InputError,
    Program,
    Report,
    Task,
    Told,
    Variant,
    Verdict,
)
from stepcoder_jax.strategies.driving import Ask, Run, Strategy

VARIANTS = {
    "direct": (Variant.DIRECT,),
    "explain": (Variant.EXPLAIN,),
    "both": (Variant.DIRECT, Variant.EXPLAIN),
}


class Round(NamedTuple):
    """One answer, and its report on the problem's tests."""

    task: Task
    answer: Answer | None  # None: its prompt is too long
    report: Report | None  # None: there is no program to run
    seen: Report | None = None  # on the visible tests; None: nobody asked
    others: tuple[Round, ...] = ()  # answers to the same failure that were not taken

    @property
    def program(self) -> Program | None:
        return self.answer and self.answer.program


class Refinement(NamedTuple):
    """How often a model may mend its program, what it is asked for, and what it is told."""

    rounds: int
    variants: tuple[Variant, ...] = VARIANTS["direct"]
    told: Told = Told.TEST
    refine_all: bool = False  # those too that pass the visible tests
    others: Others = Others()
    seed: int = 0  # of what is told of others

    @classmethod
    def of_flags(
        cls, rounds: int, variant: str, told: Told, refine_all: bool, seed: int
    ) -> Refinement:
        """What the flags ask for; InputError for what cannot be."""
        if rounds < 0:
            raise InputError(f"--rounds: expected 0 or more, got {rounds}")
        if refine_all and not rounds:
            raise InputError("--refine-all: needs --rounds 1 or more, got none")
        return cls(rounds, VARIANTS[variant], told, refine_all, seed=seed)

    @property
    def answers(self) -> int:
        """How many answers a chain has at most."""
        return 1 + self.rounds * len(self.variants)


def refine(task: Task, asked: Refinement, cpu_seconds: float) -> Strategy[list[Round]]:
    """The rounds of one problem: the first answer, and at most `asked.rounds` more.

    `cpu_seconds` is the default limit of one test.
    """
    rounds: list[Round] = []
    tasks, draw = [task], 0
    while tasks:
        is_last = len(rounds) == asked.rounds
        turn = yield from _answer_best(tasks, draw, is_last)
        rounds.append(turn)
        draw += len(tasks)
        attempt = None if is_last else _attempt_of(turn, asked, cpu_seconds)
        tasks = (
            [continue_task(turn.task, attempt, variant) for variant in asked.variants]
            if attempt
            else []
        )
    return rounds


def fail_first(task: Task, cpu_seconds: float) -> Strategy[Attempt | None]:
    """What a model would read of its first answer; None where it could not go on."""
    turn = yield from _answer_best([task], 0, is_last=False)
    return _attempt_of(turn, Refinement(1), cpu_seconds)


def _answer_best(tasks: Sequence[Task], draw: int, is_last: bool) -> Strategy[Round]:
    """The answer to the first of these tasks, or a better one to another.

    In the last round visible tests are not run for themselves, unless to choose.
    """
    tried: list[Round] = []
    for number, task in enumerate(tasks):
        turn = yield from _answer(task, draw + number)
        turn = yield from _look(turn, is_last and len(tasks) == 1)
        tried.append(turn)
        if turn.seen and turn.seen.verdict in (Verdict.PASS, Verdict.INFRA):
            break
    best = max(tried, key=_standing)  # of equals the first
    return best._replace(others=tuple(turn for turn in tried if turn is not best))


def _answer(task: Task, draw: int) -> Strategy[Round]:
    answer: Answer | None = yield Ask(task, draw)
    if answer is None or answer.program is None:
        return Round(task, answer, None)
    report: Report = yield Run(answer.program)
    return Round(task, answer, report)


def _look(turn: Round, is_known: bool) -> Strategy[Round]:
    """The round with its report on the visible tests.

    They run where the report on all tests does not say, unless that must do (`is_known`).
    """
    if turn.program is None or turn.report is None:
        return turn
    seen = report_on_visible(turn.program, turn.report)
    if seen is None and not is_known:
        seen = yield Run(on_visible_tests(turn.program))
    return turn._replace(seen=seen)


def _standing(turn: Round) -> tuple[int, ...]:
    """The larger the better; our own failure is above all, for it ends the chain."""
    if turn.answer is None:
        return (0,)
    if turn.seen is None:
        return (1,)
    if turn.seen.verdict is Verdict.INFRA:
        return (4,)
    return (2 + turn.seen.passed, turn.seen.passed_tests)


def _attempt_of(turn: Round, asked: Refinement, cpu_seconds: float) -> Attempt | None:
    """What the model reads of a round; None where the chain ends."""
    problem, program = turn.task.problem, turn.program
    if program is None or turn.seen is None or not problem.visible_tests:
        return None
    attempt = attempt_of(program, turn.seen, problem.cpu_seconds or cpu_seconds)
    if attempt is None and turn.seen.passed and asked.refine_all:
        attempt = attempt_that_passes(program)
    if attempt is None:
        return None
    if asked.told is Told.RANDOM:
        text = asked.others.of_another(attempt, problem.id, asked.seed)
        return dataclasses.replace(attempt, feedback=text)
    return tell_less(attempt, asked.told)


def continue_task(task: Task, attempt: Attempt, variant: Variant) -> Task:
    """The task whose context has one attempt more."""
    before = (*task.before, attempt)
    return dataclasses.replace(task, stage=0, head="", before=before, variant=variant)
