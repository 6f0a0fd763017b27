"""Chains of answers, each to what the one before made of its tests: what is counted of one.

A chain that has ended keeps its last answer: after round r it counts by the answer of round
r, or by the last one before. An answer without code counts as one that does not compile.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from stepcoder_jax import syntax
from stepcoder_jax.feedback import answers
from stepcoder_jax.feedback.turns import expected_literals
from stepcoder_jax.records import Program, Report, Verdict
from stepcoder_jax.results.judged import outcome_of
from stepcoder_jax.results.outcomes import Outcome
from stepcoder_jax.similarity.lexemes import overlap
from stepcoder_jax.strategies.rounds import Round


class End(enum.StrEnum):
    """Why a chain has no more answers."""

    PASSES = "visible tests pass"
    ROUNDS = "rounds are over"
    CODE = "no code"
    LENGTH = "prompt too long"
    INFRA = "not judged (infra)"
    UNFAITHFUL = "a value that cannot be carried"
    BLIND = "no visible tests"


class Link(NamedTuple):
    """One answer of a chain, and what else was answered to the same failure."""

    outcome: Outcome
    has_code: bool = True
    is_unchanged: bool = False  # the program of the answer before, by its syntax
    similar: float = 0.0  # to the program of the answer before, by its tokens
    holds_expected: bool = False  # a value that a visible test expects, written out
    passes_visible: bool | None = None  # None: not known
    variant: str = ""  # "" of the first answer
    answers: int = 1  # that were drawn
    without_code: int = 0  # of them


class Chain(NamedTuple):
    """The first answer to a problem, and those that followed."""

    links: tuple[Link, ...]
    end: End = End.ROUNDS

    def after(self, rounds: int) -> Outcome:
        """What has become of it after so many rounds."""
        return self.links[min(rounds, len(self.links) - 1)].outcome

    def is_right(self, rounds: int) -> bool:
        """Whether the last answer after so many rounds passes."""
        return self.after(rounds).verdict is Verdict.PASS

    def was_right(self, rounds: int) -> bool:
        """Whether any of the answers up to there passes."""
        return any(self.is_right(place) for place in range(rounds + 1))

    @property
    def task(self) -> str:
        return self.links[0].outcome.task

    @property
    def is_judged(self) -> bool:
        """Whether our own machinery did not fail on any of its answers."""
        verdicts = [link.outcome.verdict for link in self.links]
        return self.end is not End.INFRA and Verdict.INFRA not in verdicts

    @property
    def is_weak(self) -> bool:
        return any(link.outcome.weak for link in self.links)


class Played(NamedTuple):
    """A chain, and its last program with its report."""

    chain: Chain
    program: Program
    report: Report


def read_rounds(rounds: Sequence[Round]) -> Played:
    """What is counted of a chain of rounds."""
    problem = rounds[0].task.problem
    expected = expected_literals(problem)
    links: list[Link] = []
    program, report = _program_of(rounds[0])
    for turn in rounds:
        if turn.answer is None:
            break
        drawn = [x.answer for x in (turn, *turn.others) if x.answer is not None]
        before, program, report = program, *_program_of(turn)
        link = Link(
            outcome_of(problem, report, turn.answer.truncated),
            has_code=False,
            variant=str(turn.task.variant) if turn.task.before else "",
            answers=len(drawn),
            without_code=sum(answer.program is None for answer in drawn),
        )
        if turn.program is not None:
            link = link._replace(
                has_code=True,
                is_unchanged=bool(links) and syntax.is_same(before.source, program.source),
                similar=overlap(before.source, program.source) if links else 0.0,
                holds_expected=syntax.holds_one_of(program.source, expected),
                passes_visible=turn.seen.passed if turn.seen else None,
            )
        links.append(link)
    return Played(Chain(tuple(links), _end_of(rounds[-1])), program, report)


def _program_of(turn: Round) -> tuple[Program, Report]:
    if turn.program is None or turn.report is None:
        return answers.stand_in(turn.task, 0), answers.without_code(turn.task)
    return turn.program, turn.report


def _end_of(turn: Round) -> End:
    """Why nothing follows a chain's last round."""
    if turn.answer is None:
        return End.LENGTH
    if turn.program is None:
        return End.CODE
    reports = [report for report in (turn.report, turn.seen) if report]
    if any(report.verdict is Verdict.INFRA for report in reports):
        return End.INFRA
    if not turn.task.problem.visible_tests:
        return End.BLIND
    if turn.seen is None:
        return End.ROUNDS
    if turn.seen.passed:
        return End.PASSES
    return End.UNFAITHFUL if turn.seen.unfaithful else End.ROUNDS
