"""What a stage gives, where a problem begins, when it moves: a rule per `cccs.prefix`.

A stage is a number; 0 is the whole problem under each rule, and E is the number of
conditionals of the canonical solution.

prefix     a stage > 0 is                  first stage        moves
cccs       c of Algorithm 1, s * c given   ceil(sqrt E) - 1   by the average pass rate
random     the conditionals given          E - 1, the most    never; each pose draws
half       the conditionals given          floor(E / 2)       never
adaptive   the conditionals given          the paper's cut    by the group's pass rate

`cccs` is arXiv:2402.01391, Algorithm 1. The others are controls, not in the paper. They cut
by the same rules of text, before conditional 0 .. E - 1, and before conditional 0 is whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stepcoder_jax.config import CCCSConfig

# Times 1 / alpha: visits after which rho has forgotten its start at 0 but for e ** -3, 5 %.
SETTLED = 3


def num_stages(count: int) -> int:
    """Return ceil(sqrt(E)), and 1 where a program has no conditional at all."""
    return max(1, math.isqrt(count - 1) + 1) if count > 0 else 1


def cut_index(count: int, stage: int) -> int:
    """Return s * c, the conditional before which stage c > 0 of the paper cuts.

    s = ceil(E / ceil(sqrt(E))) (Algorithm 1): E = 9 starts at the seventh conditional,
    then the fourth, then with nothing given.
    """
    stages = num_stages(count)
    if not 0 < stage < stages:
        raise ValueError(
            f"stage {stage} has no cut: {count} conditionals give stages 0 to {stages - 1}"
        )
    return math.ceil(count / stages) * stage


def given(count: int, stage: int, config: CCCSConfig) -> int:
    """Return how many of E = `count` conditionals are given at a stage; 0 at stage 0."""
    return cut_index(count, stage) if stage and config.prefix == "cccs" else stage


def first(count: int, config: CCCSConfig) -> int:
    """Return the stage that a problem with E = `count` conditionals begins at.

    `adaptive` begins with the paper's first cut, so that it differs from `cccs` in how it
    moves, and not in how much is given before anything is known.
    """
    last = num_stages(count) - 1
    if config.prefix == "half":
        return count // 2
    if config.prefix == "random":
        return max(0, count - 1)
    if config.prefix == "adaptive":
        return cut_index(count, last) if last else 0
    return last


def reachable(count: int, config: CCCSConfig) -> Sequence[int]:
    """Return the stages, ascending, that a problem may ever be posed at."""
    if config.prefix == "cccs":
        return range(num_stages(count))
    if config.prefix == "half":
        whole = {0} if config.full_fraction else set()
        return sorted({count // 2} | whole)
    return range(max(1, count))


def moved(
    count: int, stage: int, visits: int, rho: np.float32, rate: float, config: CCCSConfig
) -> int:
    """Return the stage after a visit; `rho` and `visits` at `stage` have it in them.

    `cccs`      rho > threshold (strictly) and c > 0 gives c - 1 (Algorithm 1, whose
                `min(c - 1, 0)` must be a max). With `demote` > 0 (not in the paper),
                rho < demote after at least 3 / alpha visits gives c + 1, at most the first
                stage; before, rho is low since it began at 0.
    `adaptive`  a pass rate of 0 gives one conditional more, at most E - 1; one above the
                threshold one less, at least 0.
    `random`, `half`  never move.
    """
    if config.prefix == "cccs":
        if rho > config.threshold and stage > 0:
            return stage - 1
        is_settled = visits >= SETTLED / config.alpha
        if is_settled and rho < config.demote:
            return min(stage + 1, first(count, config))
    elif config.prefix == "adaptive":
        if rate > config.threshold:
            return max(stage - 1, 0)
        if rate == 0:
            return min(stage + 1, max(0, count - 1))
    return stage
