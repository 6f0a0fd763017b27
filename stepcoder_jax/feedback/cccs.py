"""Curriculum of code completion subtasks: the state, what is posed, what is learnt of it.

arXiv:2402.01391, section 3.1 and Algorithm 1. A problem starts with most of its canonical
solution given and ends with none of it. `cuts` tells where a solution can be cut, `stages`
how much a stage gives and when it is left, for the paper's rule and its controls
(`cccs.prefix`). Where the paper is silent or misprinted the docstrings say what is done.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stepcoder_jax.config import CCCSConfig, ConfigError, SamplingConfig
from stepcoder_jax.feedback import cuts, stages
from stepcoder_jax.records import Problem, Report, Task

# Last word of the host's random streams: default_rng([seed, epoch or step, stream]).
ORDER_STREAM = 1
FULL_STREAM = 2
CUT_STREAM = 4  # 3 is that of fgo.mask=random and of sft.per_problem
EXTRA_ORDER_STREAM = 7  # 5 and 6 are those of lessons
EXTRA_FULL_STREAM = 8
WEIGHTED_STREAM = 9
EXTRA_WEIGHTED_STREAM = 10


class CurriculumState(NamedTuple):
    """Where each problem of the pool stands; checkpointed as it is."""

    stage: np.ndarray  # i32[N], see `stages`; 0 is the whole problem
    rho: np.ndarray  # f32[N], moving average of the pass rate at this stage
    visits: np.ndarray  # i32[N], iterations that drew the problem
    stage_visits: np.ndarray  # i32[N], those of them that rho has averaged


def from_arrays(arrays: Mapping[str, np.ndarray]) -> CurriculumState:
    """Return the state whose fields a checkpoint holds.

    Checkpoints from before `cccs.demote` have no visits at the stage: they are 0 then, as
    if each problem had just come to its stage. Nothing read them: such a run demotes none.
    """
    missing = {"stage_visits": np.zeros_like(arrays["visits"])}
    return CurriculumState(**{**missing, **arrays})


def count_conditionals(problem: Problem, config: CCCSConfig) -> int:
    """Return E; 0 without `config.enabled`, as if there were nothing to cut before."""
    return len(cuts.problem_conditionals(problem)) if config.enabled else 0


def pose(problem: Problem, index: int, stage: int, config: CCCSConfig) -> Task:
    """Return the task of a problem, row `index` of its pool, at a stage."""
    count = count_conditionals(problem, config)
    head = cuts.head(problem, stages.given(count, stage, config))
    return Task(problem=problem, index=index, stage=stage, head=head)


def pose_all(problem: Problem, index: int, config: CCCSConfig) -> list[Task]:
    """Return the tasks that a run may make of a problem, one per stage."""
    found = stages.reachable(count_conditionals(problem, config), config)
    return [pose(problem, index, stage, config) for stage in found]


def initial(problems: Sequence[Problem], config: CCCSConfig) -> CurriculumState:
    """Return the state before the first iteration: each first stage, rho = 0.

    Every stage is 0 when `config.enabled` is False.
    """
    counts = [count_conditionals(problem, config) for problem in problems]
    return CurriculumState(
        stage=np.asarray([stages.first(count, config) for count in counts], np.int32),
        rho=np.zeros(len(problems), np.float32),
        visits=np.zeros(len(problems), np.int32),
        stage_visits=np.zeros(len(problems), np.int32),
    )


def draw(pool_size: int, count: int, step: int, seed: int) -> list[int]:
    """Return the pool rows of iteration `step`: a window on endless epoch permutations.

    Each epoch is a fresh permutation of the pool; where the window stands follows from
    (seed, step) alone, so a resumed run draws what the interrupted one would have drawn.
    """
    return window(pool_size, step * count, count, seed, ORDER_STREAM)


def window(pool_size: int, first: int, count: int, seed: int, stream: int) -> list[int]:
    """Return `count` rows from place `first` of endless permutations of the pool on."""
    if pool_size < 1:
        raise ConfigError(
            "the pool of problems is empty; check data.path and data.pool_size"
        )
    orders: dict[int, np.ndarray] = {}
    rows = []
    for position in range(first, first + count):
        epoch, place = divmod(position, pool_size)
        if epoch not in orders:
            rng = np.random.default_rng([seed, epoch, stream])
            orders[epoch] = rng.permutation(pool_size)
        rows.append(int(orders[epoch][place]))
    return rows


def draw_weighted(
    chances: np.ndarray, count: int, step: int, seed: int, stream: int
) -> list[int]:
    """Return `count` pool rows of iteration `step`, drawn by f64[N] of sum 1.

    Without replacement, as far as the pool reaches.
    """
    rng = np.random.default_rng([seed, step, stream])
    again = count > len(chances)
    return rng.choice(len(chances), count, replace=again, p=chances).tolist()


def choose_full(
    count: int, fraction: float, step: int, seed: int, stream: int = FULL_STREAM
) -> np.ndarray:
    """Return bool[count]: which of the drawn problems are posed whole.

    On average fraction * count of them; a draw settles the part after the point.
    """
    rng = np.random.default_rng([seed, step, stream])
    number = int(fraction * count + rng.random())
    chosen = np.zeros(count, bool)
    chosen[rng.permutation(count)[:number]] = True
    return chosen


def draw_cuts(counts: Sequence[int], step: int, seed: int) -> list[int]:
    """Return a stage of `random` for each drawn problem: uniform over 0 .. E - 1.

    `counts` are their E; 0 where E is 0. Place i of the list has a draw of its own, which
    follows from (seed, step, i) whatever the other problems are.
    """
    rng = np.random.default_rng([seed, step, CUT_STREAM])
    return [int(share * count) for share, count in zip(rng.random(len(counts)), counts)]


def choose_tasks(
    problems: Sequence[Problem],
    state: CurriculumState,
    *,
    step: int,
    seed: int,
    sampling: SamplingConfig,
    config: CCCSConfig,
    chances: np.ndarray | None = None,
) -> list[Task]:
    """Return the iteration's tasks: each drawn problem at its stage, n times in a row.

    Drawn by `draw`, or by `chances` f64[N] where there are some.

    With `config.prefix` random the stage is drawn each time, once for all n: they are a
    group. `config.full_fraction` of the problems are posed at stage 0 whatever their own
    stage (not in the paper, 0 in its presets). Task i of the list is global rollout
    step * len(tasks) + i.
    """
    number = sampling.problems_per_step
    if chances is None:
        rows = draw(len(problems), number, step, seed)
    else:
        rows = draw_weighted(chances, number, step, seed, WEIGHTED_STREAM)
    due = [int(state.stage[row]) for row in rows]
    if config.prefix == "random":
        counts = [count_conditionals(problems[row], config) for row in rows]
        due = draw_cuts(counts, step, seed)
    whole = choose_full(len(rows), config.full_fraction, step, seed)
    stages_due = np.where(whole, 0, due)
    return pose_groups(problems, rows, stages_due, sampling.rollouts_per_problem, config)


def pose_groups(
    problems: Sequence[Problem],
    rows: Sequence[int],
    due: Sequence[int] | np.ndarray,
    group: int,
    config: CCCSConfig,
) -> list[Task]:
    """Return the tasks of these rows of the pool at these stages, each `group` times."""
    posed = (pose(problems[row], row, int(c), config) for row, c in zip(rows, due))
    return [task for task in posed for _ in range(group)]


def choose_extra(
    problems: Sequence[Problem],
    state: CurriculumState,
    tasks: Sequence[Task],
    *,
    step: int,
    seed: int,
    sampling: SamplingConfig,
    config: CCCSConfig,
    chances: np.ndarray | None = None,
) -> list[Task]:
    """Return the tasks that may take the place of some of `tasks`, those of the iteration.

    Of at most `sampling.extra_problems` other problems: a window on permutations of their
    own, less what `tasks` has. Their stages are found as those of `choose_tasks` are, by
    draws of their own.
    """
    drawn, extra = {task.index for task in tasks}, sampling.extra_problems
    if not extra:
        return []
    first, count = step * extra, extra + len(drawn)
    if chances is None:
        near = window(len(problems), first, count, seed, EXTRA_ORDER_STREAM)
    else:
        most = min(count, len(problems))
        near = draw_weighted(chances, most, step, seed, EXTRA_WEIGHTED_STREAM)
    rows = [row for row in dict.fromkeys(near) if row not in drawn][:extra]
    due = [int(state.stage[row]) for row in rows]
    if config.prefix == "random":
        counts = [count_conditionals(problems[row], config) for row in rows]
        others = [0] * sampling.problems_per_step  # whose draws come before
        due = draw_cuts([*others, *counts], step, seed)[len(others) :]
    share = config.full_fraction
    whole = choose_full(len(rows), share, step, seed, EXTRA_FULL_STREAM)
    stages_due = np.where(whole, 0, due)
    return pose_groups(problems, rows, stages_due, sampling.rollouts_per_problem, config)


def advance(
    state: CurriculumState,
    tasks: Sequence[Task],
    reports: Sequence[Report],
    config: CCCSConfig,
) -> CurriculumState:
    """Return the curriculum after an iteration; pure.

    Once per problem, rho <- alpha p + (1 - alpha) rho, with p the share of its valid
    rollouts at its current stage that passed every test (Algorithm 1 says nothing of
    several rollouts per problem); then it moves if `stages.moved` says so, and rho and the
    visits at the stage are 0 again. Rollouts at another stage (`full_fraction`, most of
    `random`) and those that our own machinery failed on update nothing.
    """
    passed: dict[int, list[bool]] = collections.defaultdict(list)
    problems = {task.index: task.problem for task in tasks}
    for task, report in zip(tasks, reports, strict=True):
        if report.is_valid and task.stage == state.stage[task.index]:
            passed[task.index].append(report.passed)
    stage, rho, visits, stage_visits = (array.copy() for array in state)
    visits[sorted(problems)] += 1
    for row, outcomes in passed.items():
        rate = sum(outcomes) / len(outcomes)
        rho[row] = config.alpha * rate + (1 - config.alpha) * float(rho[row])
        stage_visits[row] += 1
        count = count_conditionals(problems[row], config)
        before, lately = int(stage[row]), int(stage_visits[row])
        stage[row] = stages.moved(count, before, lately, rho[row], rate, config)
        if stage[row] != before:
            rho[row], stage_visits[row] = 0.0, 0
    return CurriculumState(stage, rho, visits, stage_visits)


def metrics(
    state: CurriculumState,
    tasks: Sequence[Task],
    reports: Sequence[Report],
    config: CCCSConfig,
) -> dict[str, float]:
    """Return the curriculum's numbers for the log: what was posed and passed, what is held.

    Of the rollouts: the share posed whole, the mean share of conditionals given, the pass
    rates of those posed whole and of the others (nan where there is no valid one). Of the
    pool as they were drawn from it: mean stage, share at stage 0, visits.
    """
    counts = [count_conditionals(task.problem, config) for task in tasks]
    shares = [
        stages.given(count, task.stage, config) / max(1, count)
        for count, task in zip(counts, tasks)
    ]
    return {
        "cccs/stage0_share": float(np.mean([task.stage == 0 for task in tasks])),
        "cccs/given_share": float(np.mean(shares)),
        "cccs/pass_rate_stage0": _pass_rate(tasks, reports, is_whole=True),
        "cccs/pass_rate_given": _pass_rate(tasks, reports, is_whole=False),
        "cccs/mean_stage": float(state.stage.mean()),
        "cccs/done_share": float((state.stage == 0).mean()),
        "cccs/visits": float(state.visits.mean()),
    }


def _pass_rate(tasks: Sequence[Task], reports: Sequence[Report], is_whole: bool) -> float:
    passed = [
        report.passed
        for task, report in zip(tasks, reports, strict=True)
        if report.is_valid and (task.stage == 0) == is_whole
    ]
    return float(np.mean(passed)) if passed else math.nan
