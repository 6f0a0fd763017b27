"""The problems that a run learns from, and those that it is evaluated on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from stepcoder_jax.config.paths import SHIPPED, has_problems
from stepcoder_jax.config.ranges import COUNT, NATURAL, Ranges, Rules
from stepcoder_jax.config.section import Section

if TYPE_CHECKING:
    from stepcoder_jax.config.whole import Config


@dataclasses.dataclass
class DataConfig(Section):
    """Where problems come from."""

    # a tier of the generated benchmark (builtin, guarded, dialect), or a problem file
    path: str = "builtin"
    validation: str = ""  # file of the validation split, where path is a file
    test: str = ""  # file of the test split, where path is a file
    difficulties: tuple[str, ...] = ()  # that RL and SFT learn from; (): all
    pool_size: int = 0  # problems that RL draws from; 0: all of the train split
    # records of `stepcoder refine`: then RL answers their wrong programs, each a context of
    # its own, and poses no problem as such
    contexts: tuple[str, ...] = ()
    # how RL draws problems: each as often, or by their pass rates in the file of `profile`,
    # which `stepcoder data profile` writes
    sample: Literal["uniform", "profile"] = "uniform"
    profile: str = ""
    # stop at a bad row, or a prompt that is too long, instead of leaving it out
    strict: bool = False

    ranges: ClassVar[Ranges] = {"pool_size": NATURAL}


@dataclasses.dataclass
class EvaluationConfig(Section):
    """Greedy pass@1; test is read only before and after a run."""

    every: int = 0  # iterations (of SFT: updates) between validation runs; 0: never
    # in place of `every`: validate after the first iteration that reaches each multiple of
    # so many generated completion tokens; 0: never
    every_tokens: int = 0
    validation_problems: int = 200
    test_problems: int = 0  # 0: no evaluation before and after the run
    batch_size: int = 100
    # a file of other runs' curves, which are told and drawn beside this run's validation
    # (results/drawing/README.md has its form); "": none
    beside: str = ""

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("every", "every_tokens"), NATURAL),
        **dict.fromkeys(("validation_problems", "test_problems"), NATURAL),
        "batch_size": COUNT,
    }

    @property
    def has_validation(self) -> bool:
        """Whether a run measures itself: before learning, on the way, at its end."""
        return self.every > 0 or self.every_tokens > 0


def rules(config: Config) -> Rules:
    """Of when a run is evaluated, and on what."""
    evaluation, data = config.evaluation, config.data
    for name in ("validation", "test"):
        yield (
            f"data.{name}",
            data.path not in SHIPPED or not getattr(data, name),
            f"none with data.path={data.path}, which has its own {name} problems",
        )
    yield (
        "evaluation.beside",
        not evaluation.beside or evaluation.has_validation,
        '"" without validation (evaluation.every or evaluation.every_tokens)',
    )
    by_profile = data.sample == "profile"
    yield (
        "data.profile",
        bool(data.profile) == by_profile,
        "a file of `stepcoder data profile`"
        if by_profile
        else '"" with data.sample=uniform',
    )
    yield (
        "data.sample",
        not by_profile or not data.contexts,
        "uniform, since data.contexts are answered and have no pass rates",
    )
    yield (
        "data.sample",
        not by_profile or config.cccs.prefix != "random" or not config.cccs.enabled,
        "uniform with cccs.prefix=random, which draws a stage each time",
    )
    yield (
        "evaluation.every_tokens",
        not (evaluation.every and evaluation.every_tokens),
        "0, since evaluation.every says when to validate (or set --evaluation.every 0)",
    )
    yield (
        "evaluation.test_problems",
        not evaluation.test_problems
        or config.data.path in SHIPPED
        or bool(config.data.test)
        or not has_problems(data.path),  # then that is to be mended, see preflight.py
        "0, since there is no file of test problems (or set --data.test FILE)",
    )
