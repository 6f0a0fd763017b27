"""Greedy pass@1: how `stepcoder train` and `stepcoder sft` measure themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepcoder_jax.feedback import cuts
from stepcoder_jax.records import Problem, Task, Verdict, order_difficulties
from stepcoder_jax.results.summary import Graded
from stepcoder_jax.runs.generate import Coder, complete_greedily


def whole_tasks(problems: Sequence[Problem]) -> list[Task]:
    """Every problem at stage 0: nothing of its solution is given."""
    return [
        Task(problem, i, stage=0, head=cuts.head(problem, 0))
        for i, problem in enumerate(problems)
    ]


def grade(
    coder: Coder, actor: Any, problems: Sequence[Problem], label: str
) -> list[Graded]:
    """Greedy pass@1's raw material: the verdict of one greedy program per problem."""
    reports = complete_greedily(coder, actor, whole_tasks(problems), label).briefly()
    return [
        Graded(problem.id, problem.difficulty, report.verdict)
        for problem, report in zip(problems, reports, strict=True)
    ]


def pass_rate(rows: Sequence[Graded]) -> float:
    """Share that passed, over the rows that our own machinery did not fail on."""
    valid = [
        row.verdict is Verdict.PASS for row in rows if row.verdict is not Verdict.INFRA
    ]
    return float(np.mean(valid)) if valid else float("nan")


def scores(rows: Sequence[Graded], prefix: str) -> dict[str, float]:
    """Metrics: pass@1 overall and by difficulty, and the share that compiles."""
    numbers = {f"{prefix}/pass@1": pass_rate(rows)}
    for difficulty in order_difficulties(row.difficulty for row in rows):
        chosen = [row for row in rows if row.difficulty == difficulty]
        numbers[f"{prefix}/pass@1_{difficulty}"] = pass_rate(chosen)
    known = [row.verdict for row in rows if row.verdict is not Verdict.INFRA]
    compiled = [verdict is not Verdict.COMPILE for verdict in known]
    numbers[f"{prefix}/compiles"] = float(np.mean(compiled)) if known else float("nan")
    return numbers


def unmeasured(problems: Sequence[Problem], prefix: str) -> dict[str, float]:
    """What `scores` of these problems would be called, each nan: nobody has judged them."""
    rows = [Graded(x.id, x.difficulty, Verdict.INFRA) for x in problems]
    return scores(rows, prefix) if rows else {}
