"""Critic sampling: go on from the best part of what passes, or mend the best of what fails.

    draw N programs, and run the visible tests
    where P of them pass, refine: a critic reads each, and it is cut behind the prefix of
        the best chance, q_t = p(passed | w_1:t); N programs in all go on from there
    where none passes, repair: of the M failures with the best chance p(passed | W) the
        model reads what running them said, and N programs in all answer

Source: arXiv:2207.01780, section 3.3 (M = 1, one round; N = 200 there). Its code was not
released. Differs:
- it is cut behind whole lines, where the tokens of the rest do not depend on the cut, and
  never behind the last: nothing would be left to write.
- q_t is of the four classes of outcomes; the paper learns a second critic of two.
- the policy mends its own programs, from a prompt with the visible test that fails; the
  paper learns a seq2seq model that is given the outcome and the kind of error.
- a problem without visible tests, or whose programs were not judged, has its first N alone.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.turns import attempt_of, on_visible_tests, report_on_visible
from stepcoder_jax.records import Attempt, InputError, Program, Report, Task, Variant
from stepcoder_jax.strategies.driving import Ask, Run, Strategy, Value, Valued
from stepcoder_jax.strategies.rounds import Round, continue_task


class CriticSampling(NamedTuple):
    """How many programs are drawn in each of both rounds, and how many are mended."""

    samples: int  # N
    mended: int = 1  # M

    @classmethod
    def of_flags(cls, samples: int, rounds: int, greedy: bool) -> CriticSampling:
        """What the flags of `stepcoder evaluate` ask for; InputError for what cannot be."""
        if rounds:
            raise InputError(
                f"--critic: it has its one round of its own, got --rounds {rounds}; leave "
                "one of the two out"
            )
        if greedy:
            raise InputError(
                "--critic: a greedy program that goes on from its own prefix is the same "
                "again; add --samples-per-problem 2 or more"
            )
        return cls(samples)


def sample_by_critic(
    task: Task, asked: CriticSampling, cpu_seconds: float
) -> Strategy[list[list[Round]]]:
    """N chains of one problem: the i-th first answer, and the i-th of the second round.

    These two need not belong together: the second goes on from the best of all the first.
    `cpu_seconds` is the default limit of one test.
    """
    number = asked.samples
    first = yield from _answer([task] * number, 0)
    posed = yield from _refine(first)
    if not posed:
        posed = yield from _repair(first, asked.mended, cpu_seconds)
    if not posed:
        return [[turn] for turn in first]
    later = yield from _answer([posed[i % len(posed)] for i in range(number)], number)
    return [list(chain) for chain in zip(first, later, strict=True)]


def _answer(tasks: list[Task], draw: int) -> Strategy[list[Round]]:
    """An answer to each task, with its report on all tests and on the visible ones."""
    answers: list[Answer | None] = yield [
        Ask(task, draw + place) for place, task in enumerate(tasks)
    ]
    turns = [Round(*pair, None) for pair in zip(tasks, answers, strict=True)]
    written = [place for place, turn in enumerate(turns) if turn.program is not None]
    reports: list[Report] = yield [Run(_of(turns[place])) for place in written]
    for place, report in zip(written, reports, strict=True):
        seen = report_on_visible(_of(turns[place]), report)
        turns[place] = turns[place]._replace(report=report, seen=seen)
    unseen = [place for place in written if turns[place].seen is None]
    shown: list[Report] = yield [Run(on_visible_tests(_of(turns[i]))) for i in unseen]
    for place, report in zip(unseen, shown, strict=True):
        turns[place] = turns[place]._replace(seen=report)
    return turns


def _of(turn: Round) -> Program:
    assert turn.program is not None
    return turn.program


def _refine(first: list[Round]) -> Strategy[list[Task]]:
    """The tasks that go on from the best part of each program that passes what is shown."""
    seeds = [
        turn
        for turn in first
        if turn.seen and turn.seen.passed and turn.task.problem.visible_tests
    ]
    valued: list[Valued] = yield [Value(turn.task, _of(turn)) for turn in seeds]
    return [
        dataclasses.replace(turn.task, head=best_prefix(turn.task, _of(turn), told))
        for turn, told in zip(seeds, valued, strict=True)
    ]


def best_prefix(task: Task, program: Program, told: Valued) -> str:
    """The whole lines of a program behind which a critic gives it the best chance.

    Of equal ones the longest; the task's own head where the critic read no whole line.
    """
    source = program.source.encode("utf-8", "surrogatepass")
    last = len(source.rstrip())
    lines = [
        (chance, size)
        for size, chance in told.prefixes
        if size <= last and source[:size].endswith(b"\n")
    ]
    if not lines:
        return task.head
    return source[: max(lines)[1]].decode("utf-8", "surrogatepass")


def _repair(first: list[Round], mended: int, cpu_seconds: float) -> Strategy[list[Task]]:
    """The tasks that show the most promising failures to the model."""
    failed: list[tuple[Round, Attempt]] = []
    for turn in first:
        problem = turn.task.problem
        if turn.program is None or turn.seen is None or not problem.visible_tests:
            continue
        limit = problem.cpu_seconds or cpu_seconds
        attempt = attempt_of(turn.program, turn.seen, limit)
        if attempt is not None:
            failed.append((turn, attempt))
    valued: list[Valued] = yield [Value(turn.task, _of(turn)) for turn, _ in failed]
    order = sorted(range(len(failed)), key=lambda place: -valued[place].whole)
    chosen = [failed[place] for place in order[:mended]]
    return [continue_task(turn.task, told, Variant.DIRECT) for turn, told in chosen]
