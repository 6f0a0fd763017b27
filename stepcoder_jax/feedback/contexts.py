"""Contexts: wrong programs with what running them said, which RL answers (LEDEX).

A context is a task of one step: problem, wrong program and feedback are its prompt, and an
explanation and a better program the completion (arXiv:2405.18649, appendix A.3). The
rollouts of one are a group, since each is a row of the pool like a problem.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.split_rewards import (
    ExplanationMap,
    ProgramReward,
    Siblings,
    split_rewards,
)
from stepcoder_jax.pytrees import Feedback
from stepcoder_jax.records import Problem, Report, Task
from stepcoder_jax.similarity.embedders import Embedder


class Rating(NamedTuple):
    """How answers are rewarded: see `split_rewards`."""

    kind: ProgramReward
    embed: Embedder | None  # None: explanations have no reward
    explanation_map: ExplanationMap
    one_scalar: bool


class Contexts(NamedTuple):
    """What a run learns from; entry i of each list is row i of its pool."""

    names: list[str]  # the wrong programs' own
    tasks: list[Task]
    siblings: list[Siblings]
    rating: Rating

    def as_problems(self) -> list[Problem]:
        """Each as a problem under its own name, which holds all that it is made of."""
        return [
            dataclasses.replace(
                task.problem,
                id=name,
                metadata={
                    "variant": str(task.variant),
                    "before": [[x.source, x.feedback] for x in task.before],
                    "right": [list(texts) for texts in siblings],
                },
            )
            for name, task, siblings in zip(self.names, self.tasks, self.siblings)
        ]

    def pose(self, tasks: Sequence[Task]) -> list[Task]:
        """The contexts in the rows of tasks, whose problems have the limits of the run."""
        return [
            dataclasses.replace(self.tasks[task.index], problem=task.problem)
            for task in tasks
        ]

    def judge(
        self,
        tasks: Sequence[Task],
        answers: Sequence[Answer],
        reports: Sequence[Report],
        mask: np.ndarray,
        feedback: Feedback,
    ) -> tuple[Feedback, dict[str, np.ndarray]]:
        """The feedback with rewards of both parts of each answer, and columns.

        FGO's labels stay: tokens outside of the code, the explanation's too, are kept.
        """
        rewards, explained, columns = split_rewards(
            tasks,
            answers,
            reports,
            [self.siblings[task.index] for task in tasks],
            mask,
            embed=self.rating.embed,
            explanation_map=self.rating.explanation_map,
            kind=self.rating.kind,
            one_scalar=self.rating.one_scalar,
        )
        return feedback._replace(rewards=rewards, explained=explained), columns


def part_metrics(feedback: Feedback, mask: np.ndarray) -> dict[str, float]:
    """Means over valid rows: R(e), R(r), and the share that has an explanation.

    Both rewards are those of answers whose parts stand apart: an answer that is all
    explanation has one token for both. nan where no row counts.
    """
    count, explained, valid = mask.sum(axis=1), feedback.explained, feedback.valid
    opens = np.arange(mask.shape[1])[None] < explained[:, None]
    of_explanation = np.where(opens, feedback.rewards, 0).sum(axis=1)
    of_program = np.where(opens, 0, feedback.rewards).sum(axis=1)

    def mean(values: np.ndarray, rows: np.ndarray) -> float:
        return float(values[rows].mean()) if rows.any() else math.nan

    apart = valid & (explained < count)
    return {
        "split/reward_explanation": mean(of_explanation, apart & (explained > 0)),
        "split/reward_program": mean(of_program, apart),
        "split/explained": mean(explained > 0, valid),
    }
