"""The online buffer: batches are drawn from the rollouts of the last iterations. RLTF.

Source: the released code of arXiv:2307.04349, Zyq-scut/RLTF, datasets/memory_pool.py and
train_online_v1.py. There the newest 6400 samples stay, as many of the oldest leave as
arrive, batches are drawn from all of them, and a sample keeps the reward and the greedy
baseline that it had on arrival. Differs: it learns from the first iteration on, not once
the buffer is full; an iteration draws as many rollouts as it has sampled, so each is learnt
from once on average; where rewards are compared within groups, whole groups are drawn.

A rollout's old logprobs are those of the policy that learns from it, as for fresh ones, so
its first ratio is 1 and nothing corrects for its age, as in RLTF's loss; `ppo.tis_cap`
does. Everything follows from (seed, step) and the rollouts. All hosts know the arrays of
all rollouts, so the buffer is the same on each and needs no gather; programs and reports,
of which each host has its own, are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.pytrees import Feedback, Rollout
from stepcoder_jax.records import Report
from stepcoder_jax.runs.posing.dynamic import Batch, on_arrays
from stepcoder_jax.runs.shares.known import Known

STREAM = 11  # last word of default_rng([seed, step, stream]), beside those of cccs


class Buffer(NamedTuple):
    """Rollouts of the last iterations, the oldest first; all arrays are [rows, ...]."""

    rollout: Rollout
    feedback: Feedback
    known: Known  # what metrics need of their reports
    born: np.ndarray  # i32[rows], the iteration that sampled each


class Drawn(NamedTuple):
    """What an iteration learns from."""

    rollout: Rollout
    feedback: Feedback
    reports: list[Report]
    places: np.ndarray  # i64[B], row of the iteration's own batch -> row here, -1: none
    metrics: dict[str, float]


def push(buffer: Buffer | None, fresh: Batch, step: int, capacity: int) -> Buffer:
    """The buffer with the rollouts of iteration `step`; the oldest beyond `capacity` leave.

    None is a buffer that holds nothing yet.
    """
    born = np.full(len(fresh.tasks), step, np.int32)
    new = Buffer(fresh.rollout, fresh.feedback, Known.of(fresh.reports), born)
    parts = [new] if buffer is None else [buffer, new]

    def join(*arrays: np.ndarray) -> np.ndarray:
        return np.concatenate(arrays)[-capacity:]

    rollout, feedback, known = (
        on_arrays(join, *trees) for trees in zip(*(part[:3] for part in parts))
    )
    return Buffer(rollout, feedback, known, join(*(part.born for part in parts)))


def choose(rows: int, batch: int, unit: int, seed: int, step: int) -> np.ndarray:
    """Rows i64[batch] of a buffer that iteration `step` learns from, ascending.

    Drawn without replacement, `unit` neighbours at a time.
    """
    rng = np.random.default_rng([seed, step, STREAM])
    units = np.sort(rng.choice(rows // unit, batch // unit, replace=False))
    places: np.ndarray = (units[:, None] * unit + np.arange(unit)).reshape(-1)
    return places


def draw(buffer: Buffer, batch: int, unit: int, seed: int, step: int) -> Drawn:
    """The batch of iteration `step`, whose own rollouts are the last of the buffer."""
    rows = choose(len(buffer.born), batch, unit, seed, step)
    rollout, feedback, known = (on_arrays(lambda x: x[rows], tree) for tree in buffer[:3])
    places = np.full(batch, -1)
    first = len(buffer.born) - batch
    is_own = rows >= first
    places[rows[is_own] - first] = np.flatnonzero(is_own)
    age = step - buffer.born[rows]
    metrics = {
        "buffer/rows": len(buffer.born),
        "buffer/stale_share": float((age > 0).mean()),
        "buffer/mean_age": float(age.mean()),
    }
    return Drawn(rollout, feedback, known.reports(), places, metrics)


def of_batch(fresh: Batch) -> Drawn:
    """An iteration's own batch, which it learns from without a buffer."""
    places = np.arange(len(fresh.tasks))
    return Drawn(fresh.rollout, fresh.feedback, fresh.reports, places, {})


def to_arrays(buffer: Buffer) -> dict[str, Any]:
    """The buffer as nested dicts of arrays, for a checkpoint."""
    trees = buffer._asdict()
    born = trees.pop("born")
    named = {
        name: {field: x for field, x in tree._asdict().items() if x is not None}
        for name, tree in trees.items()
    }
    return {**named, "born": born}


def from_arrays(arrays: Mapping[str, Any]) -> Buffer:
    """The buffer that `to_arrays` named."""
    return Buffer(
        Rollout(**arrays["rollout"]),
        Feedback(**arrays["feedback"]),
        Known(**arrays["known"]),
        np.asarray(arrays["born"]),
    )
