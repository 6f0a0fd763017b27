"""An iteration's row in metrics.jsonl: the same keys in every row of a run.

A number that an iteration could not measure (of a verdict that no program had, of a batch
without a valid row, of a validation that was not due) is nan here and null in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback.rewards.stepcoder import OUTCOMES
from stepcoder_jax.learning import metrics
from stepcoder_jax.records import Report


def of_judge(pool: Pool) -> dict[str, float]:
    """What the pool counted in this iteration, and how well it holds programs in."""
    counted = {
        f"judge/{name}": number
        for name, number in pool.metrics().items()
        if name not in ("queue", "busy")  # nothing is under way now
    }
    return counted | {"judge/level": pool.level, "judge/unsafe": int(pool.unsafe)}


def of_learning(
    looked: Mapping[str, Any], learnt: Mapping[str, Any], reports: Sequence[Report]
) -> dict[str, Any]:
    """What `Steps.learn` measured before its updates and in them.

    With a critic `looked` has "rows", moments of each row's values, told by verdict.
    """
    named = {name: number for name, number in looked.items() if name != "rows"}
    critic = of_critic(looked["rows"], reports) if "rows" in looked else {}
    return {**critic, **named, **learnt}


def of_critic(rows: metrics.ValueMoments, reports: Sequence[Report]) -> dict[str, Any]:
    """Bias and RMSE of the critic over the programs of each verdict.

    Rewards of a verdict are all equal, so its explained variance would say nothing.
    """
    numbers: dict[str, Any] = {}
    for verdict in OUTCOMES:
        chosen = np.array([report.verdict is verdict for report in reports], np.float32)
        # the shapes stay as they are, so that nothing is compiled again
        some = rows._replace(
            count=rows.count * chosen, errors_m2=np.asarray(rows.errors_m2) * chosen
        )
        bias, rmse = metrics.value_errors(some)
        numbers |= {f"value_bias/{verdict}": bias, f"value_rmse/{verdict}": rmse}
    return numbers
