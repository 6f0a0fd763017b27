"""What is drawn: prompts, and rollouts for each of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from stepcoder_jax.config.ranges import (
    ABOVE_ZERO,
    BELOW_ONE,
    COUNT,
    NATURAL,
    POSITIVE,
    Ranges,
    Rules,
)
from stepcoder_jax.config.section import Section

if TYPE_CHECKING:
    from stepcoder_jax.config.whole import Config

# values of grpo.estimator that judge a rollout without the others of its problem
ALONE = ("reinforce_plus_plus",)


@dataclasses.dataclass
class PromptConfig(Section):
    """How a problem is put before the model."""

    template: Literal["deepseek", "plain", "chat"] = "deepseek"  # chat: the tokenizer's own
    # tokens, head included; problems with longer prompts are left out, and named
    max_prompt_length: int = 1024
    fence: str = "```"
    show_visible: bool = False  # tests that may be shown, where the statement does not
    # what RL asks for in a context: a better program, or first what is wrong
    variant: Literal["direct", "explain"] = "direct"

    ranges: ClassVar[Ranges] = {"max_prompt_length": COUNT}


@dataclasses.dataclass
class SamplingConfig(Section):
    """Rollouts: n per problem by nucleus sampling (paper: 16, 0.8, 0.9, 1024)."""

    problems_per_step: int = 16
    rollouts_per_problem: int = 16
    max_completion_length: int = 1024
    temperature: float = 0.8
    top_p: float = 0.9  # 1: off
    top_k: int = 0  # 0: off
    min_p: float = 0.0  # share of the largest probability; 0: off
    chunk: int = 32  # tokens decoded between two looks of the host
    slots: int = 0  # rollouts decoded at a time, the others wait; 0: all of an iteration
    # the weights while decoding: whole on each device (but for mesh.tensor), or split over
    # mesh.fsdp as well; auto: split where a plan by shapes says that the whole does not fit
    layout: Literal["auto", "replicated", "split"] = "auto"
    # dynamic sampling: most other problems that an iteration may draw in the place of those
    # whose rollouts are all rewarded alike; 0: off
    extra_problems: int = 0
    # rollouts of the last iterations that a batch is drawn from (RLTF's online buffer); 0:
    # each iteration learns from its own
    buffer: int = 0

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("problems_per_step", "rollouts_per_problem"), COUNT),
        **dict.fromkeys(("max_completion_length", "chunk"), COUNT),
        **dict.fromkeys(("top_k", "slots", "extra_problems", "buffer"), NATURAL),
        "temperature": POSITIVE,  # PPO explores
        "top_p": ABOVE_ZERO,
        "min_p": BELOW_ONE,
    }


def group_rules(config: Config) -> Rules:
    """Of the rollouts of one problem."""
    rollouts, ours = config.sampling.rollouts_per_problem, config.grpo.estimator
    in_groups = config.algorithm == "grpo" and ours not in ALONE
    least, why = (2, " (a group of algorithm=grpo)") if in_groups else (1, "")
    yield "sampling.rollouts_per_problem", rollouts >= least, f"at least {least}{why}"
    yield (
        "sampling.extra_problems",
        in_groups or not config.sampling.extra_problems,
        "0, since only groups (algorithm=grpo) can be without a spread of rewards",
    )


def buffer_rules(config: Config) -> Rules:
    """Of the rollouts that stay for later iterations."""
    rows, group = config.sampling.buffer, config.sampling.rollouts_per_problem
    yield (
        "sampling.buffer",
        not rows or (rows >= config.batch_size and rows % group == 0),
        f"0, or at least the {config.batch_size} rollouts of an iteration, and whole "
        f"groups of sampling.rollouts_per_problem={group}",
    )


def length_rules(config: Config) -> Rules:
    """Of a prompt and its completion, which the model must have positions for."""
    completion = config.sampling.max_completion_length
    positions = config.model.max_positions
    yield (
        "prompt.max_prompt_length",
        config.prompt.max_prompt_length + completion <= positions,
        f"at most model.max_positions={positions} less "
        f"sampling.max_completion_length={completion}",
    )
