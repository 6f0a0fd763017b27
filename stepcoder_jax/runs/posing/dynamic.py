"""Dynamic sampling: groups whose rewards are all equal give way to other problems.

arXiv:2503.14476, section 3.2. Differs: the paper samples until the batch is full, and looks
at accuracies of 0 and 1; here the number of other problems is bounded
(`sampling.extra_problems`), since a model that solves nothing would sample for ever, and a
group is kept where its rewards differ. A batch has as many rollouts as ever, so nothing is
compiled again. Everything follows from (seed, step) and the curriculum: a resumed run draws
and drops the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.pytrees import Feedback, Rollout
from stepcoder_jax.records import Program, Report, Task

SMALLEST_SPREAD = 1e-6  # of rewards: what differs by less does so by rounding


class Own(NamedTuple):
    """What this host judged itself; entry i of each list is of row rows[i], ascending."""

    rows: list[int]
    answers: list[Answer]
    programs: list[Program]
    reports: list[Report]


class Batch(NamedTuple):
    """Judged rollouts; entry i of each is of rollout i, and a group's stand in a row."""

    tasks: list[Task]
    own: Own
    reports: list[Report]  # as far as all hosts know them
    rollout: Rollout
    feedback: Feedback
    columns: dict[str, np.ndarray]  # of `rewards.batch.numbers_of`


class Filled(NamedTuple):
    """What an iteration learns from, and all that was judged for it."""

    kept: Batch  # as large as the first batch
    judged: Batch  # the first batch, then the others in the order in which they were drawn
    groups: list[int]  # those of `judged` that are kept


# The tasks, and how many rollouts of the iteration were drawn before them.
Roll = Callable[[list[Task], int], Batch]


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """These rows of a batch, in this order."""
    rows = list(rows)
    place = {row: i for i, row in enumerate(rows)}
    own = batch.own
    ours = sorted((place[row], i) for i, row in enumerate(own.rows) if row in place)
    places = [i for _, i in ours]
    return Batch(
        [batch.tasks[row] for row in rows],
        Own(
            [row for row, _ in ours],
            [own.answers[i] for i in places],
            [own.programs[i] for i in places],
            [own.reports[i] for i in places],
        ),
        [batch.reports[row] for row in rows],
        on_arrays(lambda x: x[rows], batch.rollout),
        on_arrays(lambda x: x[rows], batch.feedback),
        {name: column[rows] for name, column in batch.columns.items()},
    )


def join(first: Batch, second: Batch) -> Batch:
    """The rows of one batch, then those of another."""
    one, other, columns = first.own, second.own, second.columns
    return Batch(
        [*first.tasks, *second.tasks],
        Own(
            [*one.rows, *(len(first.tasks) + row for row in other.rows)],
            [*one.answers, *other.answers],
            [*one.programs, *other.programs],
            [*one.reports, *other.reports],
        ),
        [*first.reports, *second.reports],
        on_arrays(lambda *x: np.concatenate(x), first.rollout, second.rollout),
        on_arrays(lambda *x: np.concatenate(x), first.feedback, second.feedback),
        {name: np.concatenate([x, columns[name]]) for name, x in first.columns.items()},
    )


def on_arrays(change: Callable[..., np.ndarray], *trees: Any) -> Any:
    """NamedTuples of arrays, some of which may be None in all of them."""
    fields = zip(*trees, strict=True)
    return type(trees[0])(
        *(None if each[0] is None else change(*map(np.asarray, each)) for each in fields)
    )


def have_spread(feedback: Feedback, group: int) -> np.ndarray:
    """bool[groups]: whether the rewards of a group's valid rows differ."""
    rewards = np.asarray(feedback.rewards).sum(axis=1).reshape(-1, group)
    valid = np.asarray(feedback.valid).reshape(-1, group)
    high = np.where(valid, rewards, -np.inf).max(axis=1)
    low = np.where(valid, rewards, np.inf).min(axis=1)
    return high - low > SMALLEST_SPREAD


def fill(first: Batch, candidates: Sequence[Task], group: int, roll: Roll) -> Filled:
    """Put groups with a spread in the place of those without, as far as candidates reach.

    `candidates` are the tasks of other problems, `group` in a row for each. As many are
    drawn at a time as groups without a spread are left; each of the new ones that has a
    spread takes the place of the first that has none. Where none is found, the batch stays
    what it was.
    """
    judged = first
    differ = have_spread(first.feedback, group)
    groups, flat = list(range(len(differ))), np.flatnonzero(~differ).tolist()
    left = list(candidates)
    while flat and left:
        now, left = left[: len(flat) * group], left[len(flat) * group :]
        new, begin = roll(now, len(judged.tasks)), len(judged.tasks) // group
        judged = join(judged, new)
        for place, differs in enumerate(have_spread(new.feedback, group)):
            if differs:
                groups[flat.pop(0)] = begin + place
    rows = [number * group + i for number in groups for i in range(group)]
    return Filled(select(judged, rows) if judged is not first else first, judged, groups)


def metrics(filled: Filled, group: int) -> dict[str, float]:
    """What it took and what it gave: shares of groups with a spread, and the costs.

    `dynamic/passes_per_1000_tokens` counts all that was generated, kept or not.
    """
    judged, first = filled.judged, len(filled.kept.tasks)
    differ = have_spread(judged.feedback, group)
    tokens = int(np.asarray(judged.rollout.mask).sum())
    passes = sum(report.is_valid and report.passed for report in judged.reports)
    return {
        "dynamic/spread_before": float(differ[: first // group].mean()),
        "dynamic/spread_after": float(differ[filled.groups].mean()),
        "dynamic/extra_rollouts": len(judged.tasks) - first,
        "dynamic/passes_per_1000_tokens": 1000 * passes / max(1, tokens),
    }


def dropped_rows(filled: Filled, group: int) -> Iterator[dict[str, Any]]:
    """The rows of dropped/STEP.jsonl: each group that was judged and not learnt from.

    `first` is the place of its first rollout among those of the iteration.
    """
    judged, kept = filled.judged, set(filled.groups)
    rewards = np.asarray(judged.feedback.rewards).sum(axis=1)
    tokens = np.asarray(judged.rollout.mask).sum(axis=1)
    for number in range(len(judged.tasks) // group):
        if number in kept:
            continue
        rows = range(number * group, (number + 1) * group)
        task = judged.tasks[rows[0]]
        yield {
            "problem": task.problem.id,
            "stage": task.stage,
            "first": rows[0],
            "verdicts": [str(judged.reports[row].verdict) for row in rows],
            "rewards": [float(f"{rewards[row]:.5g}") for row in rows],
            "tokens": [int(tokens[row]) for row in rows],
        }


def complaint(filled: Filled, group: int) -> str:
    """One line where no group at all has a spread, else ""."""
    differ = have_spread(filled.judged.feedback, group)
    if differ.any():
        return ""
    extra = len(filled.judged.tasks) - len(filled.kept.tasks)
    return (
        f"none of {len(differ)} groups has rewards that differ, {extra} rollouts beyond "
        "the batch included (sampling.extra_problems): it learns from what it has"
    )
