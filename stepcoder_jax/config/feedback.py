"""The paper's method: the curriculum, the mask of executed code, rewards."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, Literal

from stepcoder_jax.config.ranges import (
    ABOVE_ZERO,
    BELOW_ONE,
    SHARE,
    Range,
    Ranges,
    Rules,
)
from stepcoder_jax.config.section import Section

if TYPE_CHECKING:
    from stepcoder_jax.config.whole import Config

# of a reward and of a weight: squares of their products are finite in float32
LARGEST = 1e6


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


def split_term(text: str) -> tuple[str, float]:
    """Name and weight of a term of `reward.terms`; nan where that is no number."""
    name, equals, weight = text.rpartition("=")
    if not equals:
        return text, 1.0
    try:
        return name, float(weight)
    except ValueError:
        return name, math.nan


def term_rules(config: Config) -> Rules:
    """Of the terms of the reward: each is a name with a weight."""
    terms = config.reward.terms
    yield "reward.terms", bool(terms), "one NAME or NAME=WEIGHT at least"
    for text in terms:
        name, weight = split_term(text)
        yield (
            "reward.terms",
            bool(name) and abs(weight) <= LARGEST,
            f"NAME or NAME=WEIGHT with a finite weight (at most {LARGEST:g}, either sign) "
            f"in place of {text!r}",
        )
    named = "rlcf" in [split_term(text)[0] for text in terms]
    is_set = bool(config.reward.rlcf_discriminator)
    expected = (
        "the folder of a pair head (`stepcoder head RUN --kind pair`), since reward.terms "
        "have rlcf"
    )
    none = '"" without rlcf in reward.terms, which alone asks it'
    yield "reward.rlcf_discriminator", named == is_set, expected if named else none
    yield (
        "reward.terms",
        not config.data.contexts or tuple(terms) == ("stepcoder",),
        "stepcoder alone, since data.contexts have rewards of their own",
    )


def context_rules(config: Config) -> Rules:
    """Of contexts, in which nothing of a solution is given, and of an explanation."""
    has_contexts, reward = bool(config.data.contexts), config.reward
    why = "since data.contexts are answered"
    yield "cccs.enabled", not (has_contexts and config.cccs.enabled), f"False, {why} whole"
    yield (
        "execution.tests",
        not has_contexts or config.execution.tests == "run_all",
        f"run_all, {why}, whose reward counts the tests that pass",
    )
    explains = has_contexts and config.prompt.variant == "explain"
    none = "since no data.contexts ask for an explanation (prompt.variant)"
    asked = config.prompt.variant == "direct" or has_contexts
    yield "prompt.variant", asked, "direct, since there are no data.contexts"
    for name, is_default, default in (
        ("reward.encoder", not reward.encoder, '""'),
        ("reward.one_scalar", not reward.one_scalar, "False"),
        ("ppo.coupling", config.ppo.coupling == "printed", "printed"),
    ):
        yield name, explains or is_default, f"{default}, {none}"
    has_two = explains and reward.explanation != "none" and not reward.one_scalar
    yield (
        "ppo.coupling",
        config.ppo.coupling == "printed" or not reward.one_scalar,
        "printed with reward.one_scalar, which parts no answer",
    )
    yield (
        "ppo.scale_rewards",
        not (has_two and config.ppo.scale_rewards and config.algorithm == "ppo"),
        "False, since an answer's two rewards have a spread each, and one scale already",
    )


@dataclasses.dataclass
class FGOConfig(Section):
    """Fine-grained optimisation: which completion tokens the policy loss keeps."""

    mask: Literal["executed", "random", "inverse", "none"] = "executed"
    granularity: Literal["statement", "expression"] = "statement"  # expression: see fgo.py
    keep_uncompiled: bool = True  # a program that does not compile keeps all its tokens


@dataclasses.dataclass
class RewardConfig(Section):
    """Outcome rewards by verdict class (eq. 3); in a context those of split_rewards.py."""

    passed: float = 1.0
    wrong: float = -0.3
    runtime: float = -0.6  # runtime, timeout, memory, output
    compile: float = -1.0
    # what programs earn, NAME or NAME=WEIGHT each: see feedback/rewards/README.md
    terms: tuple[str, ...] = ("stepcoder",)
    # of located, on the error's tokens: shared among them (RLTF's paper), or as released
    located_alpha: Literal["paper", "released"] = "paper"
    # of rlcf: the folder of a pair head (`stepcoder head`), and where its compile penalty
    # stands, on the first token of the error or, as a control, on the last one of all
    rlcf_discriminator: str = ""
    rlcf_locate: bool = True
    # with data.contexts, of the program: tests and likeness to right ones, or one of these
    program: Literal["paper", "tests", "tests_then_codebleu", "gain"] = "paper"
    # and of the explanation: by the paper's map, by it within [-5, 5], by one that is
    # fitted to the records, or not at all
    explanation: Literal["paper", "clipped", "fitted", "none"] = "paper"
    encoder: str = ""  # a sentence encoder's folder; "": TF-IDF over the records
    one_scalar: bool = False  # both rewards on the last token, for all of the answer

    ranges: ClassVar[Ranges] = dict.fromkeys(
        ("passed", "wrong", "runtime", "compile"), Range(-LARGEST, LARGEST)
    )
