"""Curriculum of code completion subtasks: where to cut, which cut is due, when to move on.

arXiv:2402.01391, section 3.1 and Algorithm 1. A problem starts with most of its canonical
solution given and ends with none of it. Where the paper is silent or misprinted
(`min(c - 1, 0)` would jump to the end at once) the docstrings say what is done here.
"""

from __future__ import annotations

import ast
import collections
import functools
import math
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stepcoder_jax.config import CCCSConfig, ConfigError, SamplingConfig
from stepcoder_jax.records import Problem, Report, Task

CONDITIONALS = (ast.If, ast.For, ast.AsyncFor, ast.While)
NEWLINE = re.compile(r"\r\n|\n|\r")  # Python's own line ends; str.splitlines knows more

# Last word of the host's random streams: default_rng([seed, epoch or step, stream]).
ORDER_STREAM = 1
FULL_STREAM = 2


class CurriculumState(NamedTuple):
    """Where each problem of the pool stands; checkpointed as it is."""

    stage: np.ndarray  # i32[N], c in Algorithm 1; 0 is the whole problem
    rho: np.ndarray  # f32[N], moving average of the pass rate at this stage
    visits: np.ndarray  # i32[N], iterations that drew the problem


@functools.lru_cache(maxsize=65536)
def conditionals(source: str) -> tuple[tuple[int, int], ...]:
    """Return (line, UTF-8 column) of each conditional statement, in order of appearance.

    `If` (each `elif` is one), `For`, `AsyncFor` and `While` at any depth; comprehensions,
    conditional expressions, `try` and `with` are none (the paper's figure 1 boxes for, if
    and elif). Raises SyntaxError when the source does not parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        tree = ast.parse(source)
    found = (node for node in ast.walk(tree) if isinstance(node, CONDITIONALS))
    return tuple(sorted((node.lineno, node.col_offset) for node in found))


def num_stages(count: int) -> int:
    """Return ceil(sqrt(E)), and 1 where a program has no conditional at all."""
    return max(1, math.isqrt(count - 1) + 1) if count > 0 else 1


def cut_index(count: int, stage: int) -> int:
    """Return s * c, the conditional before which stage c > 0 cuts.

    s = ceil(E / ceil(sqrt(E))) (Algorithm 1): E = 9 starts at the seventh conditional,
    then the fourth, then with nothing given.
    """
    stages = num_stages(count)
    if not 0 < stage < stages:
        raise ValueError(
            f"stage {stage} has no cut: {count} conditionals give stages 0 to {stages - 1}"
        )
    return math.ceil(count / stages) * stage


def problem_conditionals(problem: Problem) -> tuple[tuple[int, int], ...]:
    """Return the conditionals of a problem's canonical solution."""
    try:
        return conditionals(problem.solution)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = type(error).__name__
        if isinstance(error, SyntaxError):
            why = f"line {error.lineno}: {error.msg}"
        raise ConfigError(
            f"problem {problem.id}: the canonical solution does not parse ({why}); mend or "
            "drop the row, or set cccs.enabled=False"
        ) from error


def head(problem: Problem, stage: int) -> str:
    """Return what opens the response: the starter code, or at stage > 0 the prefix.

    Never both: the canonical solution usually repeats the starter code. The prefix is the
    canonical text before the line of conditional number s * c. Empty, or ends in a newline.
    """
    if stage == 0:
        starter = problem.starter_code.rstrip()
        return starter + "\n" if starter else ""
    found = problem_conditionals(problem)
    line = found[cut_index(len(found), stage)][0]
    # A compound statement always opens its line, so cutting whole lines loses nothing.
    line_ends = [match.end() for match in NEWLINE.finditer(problem.solution)]
    return problem.solution[: line_ends[line - 2]]


def initial(problems: Sequence[Problem], config: CCCSConfig) -> CurriculumState:
    """Return the state before the first iteration: c = ceil(sqrt(E)) - 1, rho = 0.

    Every stage is 0 when `config.enabled` is False.
    """
    stages = [
        num_stages(len(problem_conditionals(problem))) - 1 if config.enabled else 0
        for problem in problems
    ]
    return CurriculumState(
        stage=np.asarray(stages, np.int32),
        rho=np.zeros(len(problems), np.float32),
        visits=np.zeros(len(problems), np.int32),
    )


def draw(pool_size: int, count: int, step: int, seed: int) -> list[int]:
    """Return the pool rows of iteration `step`: a window on endless epoch permutations.

    Each epoch is a fresh permutation of the pool; where the window stands follows from
    (seed, step) alone, so a resumed run draws what the interrupted one would have drawn.
    """
    if pool_size < 1:
        raise ConfigError(
            "the pool of problems is empty; check data.path and data.pool_size"
        )
    orders: dict[int, np.ndarray] = {}
    rows = []
    for position in range(step * count, (step + 1) * count):
        epoch, place = divmod(position, pool_size)
        if epoch not in orders:
            rng = np.random.default_rng([seed, epoch, ORDER_STREAM])
            orders[epoch] = rng.permutation(pool_size)
        rows.append(int(orders[epoch][place]))
    return rows


def choose_full(count: int, fraction: float, step: int, seed: int) -> np.ndarray:
    """Return bool[count]: which of the drawn problems are posed whole.

    On average fraction * count of them; a draw settles the part after the point.
    """
    rng = np.random.default_rng([seed, step, FULL_STREAM])
    number = int(fraction * count + rng.random())
    chosen = np.zeros(count, bool)
    chosen[rng.permutation(count)[:number]] = True
    return chosen


def choose_tasks(
    problems: Sequence[Problem],
    state: CurriculumState,
    *,
    step: int,
    seed: int,
    sampling: SamplingConfig,
    config: CCCSConfig,
) -> list[Task]:
    """Return the iteration's tasks: each drawn problem at its stage, n times in a row.

    `config.full_fraction` of the problems are posed at stage 0 whatever their own stage
    (not in the paper, 0 in its presets). Task i of the list is global rollout
    step * len(tasks) + i.
    """
    rows = draw(len(problems), sampling.problems_per_step, step, seed)
    whole = choose_full(len(rows), config.full_fraction, step, seed)
    tasks = []
    for row, is_whole in zip(rows, whole):
        stage = 0 if is_whole else int(state.stage[row])
        problem = problems[row]
        task = Task(problem=problem, index=row, stage=stage, head=head(problem, stage))
        tasks.extend([task] * sampling.rollouts_per_problem)
    return tasks


def advance(
    state: CurriculumState,
    tasks: Sequence[Task],
    reports: Sequence[Report],
    config: CCCSConfig,
) -> CurriculumState:
    """Return the curriculum after an iteration; pure.

    Once per problem, rho <- alpha p + (1 - alpha) rho, with p the share of its valid
    rollouts at its current stage that passed every test; if rho > threshold (strictly) and
    c > 0, then c <- c - 1 and rho <- 0 (Algorithm 1, whose `min(c - 1, 0)` must be a max,
    and which says nothing of several rollouts per problem). Rollouts at another stage
    (`full_fraction`) and those that our own machinery failed on update nothing.
    """
    passed: dict[int, list[bool]] = collections.defaultdict(list)
    for task, report in zip(tasks, reports, strict=True):
        if report.is_valid and task.stage == state.stage[task.index]:
            passed[task.index].append(report.passed)
    stage, rho, visits = (array.copy() for array in state)
    visits[sorted({task.index for task in tasks})] += 1
    for row, outcomes in passed.items():
        rate = sum(outcomes) / len(outcomes)
        rho[row] = config.alpha * rate + (1 - config.alpha) * float(rho[row])
        if rho[row] > config.threshold and stage[row] > 0:
            stage[row] -= 1
            rho[row] = 0.0
    return CurriculumState(stage, rho, visits)


def metrics(state: CurriculumState, tasks: Sequence[Task]) -> dict[str, float]:
    """Return the curriculum's numbers for the log: stages posed, stages and visits held."""
    return {
        "cccs/stage0_share": float(np.mean([task.stage == 0 for task in tasks])),
        "cccs/mean_stage": float(state.stage.mean()),
        "cccs/done_share": float((state.stage == 0).mean()),
        "cccs/visits": float(state.visits.mean()),
    }
