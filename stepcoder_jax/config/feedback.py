"""The paper's method: the curriculum, the mask of executed code, rewards."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from stepcoder_jax.config.ranges import (
    ABOVE_ZERO,
    BELOW_ONE,
    FINITE,
    SHARE,
    Ranges,
    Rules,
)
from stepcoder_jax.config.section import Section

if TYPE_CHECKING:
    from stepcoder_jax.config.whole import Config


@dataclasses.dataclass
class CCCSConfig(Section):
    """Curriculum of code completion subtasks (section 3.1, Algorithm 1)."""

    enabled: bool = True
    # how much of the solution is given: the paper's rule, or a control (see stages.py)
    prefix: Literal["cccs", "random", "half", "adaptive"] = "cccs"
    alpha: float = 0.3  # moving average of the pass rate; the paper gives no value
    threshold: float = 0.5  # pass rate above which less is given; the paper gives no value
    demote: float = 0.0  # average pass rate below which cccs goes back a stage; 0: never
    full_fraction: float = 0.0  # share of problems posed at stage 0 whatever their stage

    ranges: ClassVar[Ranges] = {
        "alpha": ABOVE_ZERO,
        **dict.fromkeys(("threshold", "demote"), BELOW_ONE),
        "full_fraction": SHARE,
    }


def curriculum_rules(config: Config) -> Rules:
    """Of the way back of the paper's stages, which no other prefix has."""
    cccs = config.cccs
    yield (
        "cccs.demote",
        not cccs.demote or cccs.prefix == "cccs",
        f"0 with cccs.prefix={cccs.prefix}, since only cccs has stages to go back to",
    )
    yield (
        "cccs.demote",
        not cccs.demote or cccs.demote < cccs.threshold,
        f"less than cccs.threshold={cccs.threshold}, which moves a problem on",
    )


@dataclasses.dataclass
class FGOConfig(Section):
    """Fine-grained optimisation: which completion tokens the policy loss keeps."""

    mask: Literal["executed", "random", "inverse", "none"] = "executed"
    granularity: Literal["statement", "expression"] = "statement"  # expression: see fgo.py
    keep_uncompiled: bool = True  # a program that does not compile keeps all its tokens


@dataclasses.dataclass
class RewardConfig(Section):
    """Outcome rewards by verdict class (eq. 3)."""

    passed: float = 1.0
    wrong: float = -0.3
    runtime: float = -0.6  # runtime, timeout, memory, output
    compile: float = -1.0

    ranges: ClassVar[Ranges] = dict.fromkeys(
        ("passed", "wrong", "runtime", "compile"), FINITE
    )
