"""`stepcoder sample MODEL`: greedy programs, what ran of them, and what a test says.

With --rounds, what the model then reads of a program that fails a visible test, and what it
answers.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.feedback import fgo, turns
from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.rewards import batch, rlcf
from stepcoder_jax.feedback.rewards.table import load_terms
from stepcoder_jax.feedback.rewards.terms import Term
from stepcoder_jax.records import Report, Told
from stepcoder_jax.results import report
from stepcoder_jax.runs import failing, restore
from stepcoder_jax.runs.generate import Player, hear_others, refine_all
from stepcoder_jax.runs.greedy import whole_tasks
from stepcoder_jax.sampling.drawing import Truncation
from stepcoder_jax.strategies.rounds import Refinement, Round


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The flags of `stepcoder sample`."""

    run: str
    split: Split
    step: int | None
    before: bool
    problems: str  # a file; "": those of the split
    count: int
    rounds: int  # answers after the first
    variant: str  # of strategies.rounds.VARIANTS
    feedback: Told
    refine_all: bool
    asked: restore.Asked


def sample_run(wanted: Wanted) -> int:
    """Show greedy programs: what ran, what did not, verdict, reward, the failing test."""
    if wanted.count < 1:
        raise ConfigError(f"--count: expected at least 1, got {wanted.count}")
    asked = Refinement.of_flags(
        wanted.rounds, wanted.variant, wanted.feedback, wanted.refine_all, seed=0
    )
    restore.check_problems(wanted.run, wanted.problems)
    ansi = report.wants_colour(sys.stdout)
    place = (wanted.run, wanted.step, wanted.before)
    with restore.opened(*place, asked=wanted.asked) as (config, coder, actor, label):
        picked = restore.pick(
            wanted.run,
            config,
            wanted.problems,
            wanted.split,
            wanted.count,
            coder.tokenizer,
            visible=wanted.rounds > 0,
        )
        kept, tests = Path(wanted.run) / "rewards", config.execution.tests
        terms = load_terms(config.reward.terms, tests, kept)
        told = [term for term in terms if not rlcf.is_asked(term)]
        if len(told) < len(terms):
            print("rewards are shown without rlcf: its discriminator is asked in training")
        look = Look(config, told, ansi)
        tasks = whole_tasks(picked.problems)
        player = Player(coder, actor, len(tasks), Truncation(0.0), seed=0)
        asked = hear_others(player, tasks, asked)
        print(f"{wanted.run}, {label}, greedy")
        for chain in refine_all(player, tasks, asked):
            problem = chain[0].task.problem
            statement = report.show_controls(problem.statement.strip())
            print(f"\n{report.show_controls(problem.id)}: {statement}")
            for number, turn in enumerate(chain):
                for other in turn.others:
                    print(show_round(other, number, look))
                    print("not taken: the visible tests say that another one is as good")
                print(show_round(turn, number, look))
            if wanted.rounds and not problem.visible_tests:
                print("no visible tests: there is nothing that the model may read")
    return 0


class Look(NamedTuple):
    """By what a program is shown."""

    config: Config
    terms: Sequence[Term]  # of its reward
    ansi: bool


def show_round(turn: Round, number: int, look: Look) -> str:
    """What the model read, unless it is the problem, and what it answered."""
    lines = []
    if turn.task.before:
        request = turns.REQUESTS[turn.task.variant]
        read = filter(None, [turn.task.before[-1].feedback, request])
        told = report.show_controls("\n".join(read))
        lines += [f"round {number}, the model reads:", *_indent(told)]
    if turn.answer is None:
        return "\n".join([*lines, "not asked: its prompt would be too long"])
    if turn.answer.explanation.strip():
        said = report.show_controls(turn.answer.explanation.strip())
        lines += ["it answers:", *_indent(said)]
    if turn.answer.program is None or turn.report is None:
        return "\n".join([*lines, "its answer holds no whole block of code"])
    return "\n".join([*lines, show_program(turn.answer, turn.report, look)])


def show_program(answer: Answer, judged: Report, look: Look) -> str:
    """What ran, what did not, verdict, reward, the failing test."""
    config, program = look.config, answer.program
    assert program is not None
    kept = fgo.byte_mask(program.source, judged, config.fgo.keep_uncompiled)
    mask = np.zeros((1, config.sampling.max_completion_length), bool)
    mask[0, : len(program.token_spans)] = True
    values, _ = batch.add_up(
        look.terms, [program], [judged], mask, config.reward, [answer.truncated]
    )
    shown = report.show(program, judged, kept, float(values.sum()), look.ansi)
    return shown if judged.passed else f"{shown}\n{failing.describe(program, judged)}"


def _indent(text: str) -> list[str]:
    return [f"  {line}".rstrip() for line in text.split("\n")]
