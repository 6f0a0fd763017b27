"""The paper's method: the curriculum, the mask of executed code, rewards."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from stepcoder_jax.config.ranges import ABOVE_ZERO, BELOW_ONE, FINITE, SHARE, Ranges
from stepcoder_jax.config.section import Section


@dataclasses.dataclass
class CCCSConfig(Section):
    """Curriculum of code completion subtasks (section 3.1, Algorithm 1)."""

    enabled: bool = True
    alpha: float = 0.3  # moving average of the pass rate; the paper gives no value
    threshold: float = 0.5  # rho above which a problem moves on; the paper gives no value
    full_fraction: float = 0.0  # share of problems posed at stage 0 whatever their stage

    ranges: ClassVar[Ranges] = {
        "alpha": ABOVE_ZERO,
        "threshold": BELOW_ONE,
        "full_fraction": SHARE,
    }


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
