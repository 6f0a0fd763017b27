"""How a batch is learnt from: the optimizer, PPO, and GRPO in its place."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from stepcoder_jax.config.ranges import (
    BELOW_ONE,
    COUNT,
    NATURAL,
    POSITIVE,
    SHARE,
    WITHIN,
    Ranges,
    Rules,
    divides,
)
from stepcoder_jax.config.section import Section

if TYPE_CHECKING:
    from stepcoder_jax.config.whole import Config


@dataclasses.dataclass
class OptimizerConfig(Section):
    """AdamW with global-norm clipping and linear warm-up (authors' later release)."""

    # bytes of state per parameter: 8, 2, nearly none (b1, b2 and eps are then not read)
    name: Literal["adamw", "adamw8bit", "adafactor"] = "adamw"
    learning_rate: float = 5e-7
    warmup_steps: int = 0  # optimizer steps
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-6
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("learning_rate", "warmup_steps", "weight_decay"), NATURAL),
        **dict.fromkeys(("b1", "b2"), BELOW_ONE),
        **dict.fromkeys(("eps", "max_grad_norm"), POSITIVE),
    }


@dataclasses.dataclass
class PPOConfig(Section):
    """Clipped PPO with a token-level KL penalty in the reward.

    Fields that have nothing to do with a critic, with clipping or with KL (epochs to
    widths, entropy_coef, normaliser, offload_reference, actor) hold for GRPO as well.
    """

    num_epochs: int = 1
    num_minibatches: int = 1
    num_micro_batches: int = 1  # gradient accumulation inside a minibatch
    widths: tuple[int, ...] = ()  # row widths that micro-batches may be trimmed to
    clip_eps: float = 0.2
    value_clip_eps: float = 0.2
    value_coef: float = 1.0  # only with a shared trunk; a separate critic has its own Adam
    entropy_coef: float = 0.0
    kl_coef: float = 0.05
    gamma: float = 1.0
    gae_lambda: float = 0.95
    # of an explanation and the program behind it, which are rewarded apart: whether the
    # program's reward reaches the explanation (the paper's, discounted), or stops before it
    coupling: Literal["printed", "hard_split"] = "printed"
    # what one value and one advantage are of: a token, or all of an answer (a part of it
    # with hard_split)
    value_unit: Literal["token", "answer"] = "token"
    whiten_advantages: bool = False
    scale_rewards: bool = True  # divide outcome rewards by their running standard deviation
    normaliser: Literal["kept", "completion"] = "kept"
    offload_reference: bool = False  # keep it in the host's memory between its uses
    critic_warmup_steps: int = 0  # iterations in which only the critic learns
    actor: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    critic: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1.5e-6)
    )

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("num_epochs", "num_minibatches", "num_micro_batches"), COUNT),
        **dict.fromkeys(("value_coef", "entropy_coef", "kl_coef"), NATURAL),
        "widths": COUNT,
        "clip_eps": WITHIN,
        "value_clip_eps": POSITIVE,
        **dict.fromkeys(("gamma", "gae_lambda"), SHARE),
        "critic_warmup_steps": NATURAL,
    }


@dataclasses.dataclass
class GRPOConfig(Section):
    """The group's rewards in place of a critic; read with `algorithm` grpo alone.

    The defaults are GRPO's (arXiv:2402.03300; its clip is not given). DAPO
    (arXiv:2503.14476) has clip_high 0.28, average token and kl_coef 0; Dr. GRPO
    (arXiv:2503.20783) scale_by_std False, average constant and kl_coef 0.
    """

    scale_by_std: bool = True  # divide a group's advantages by its standard deviation
    clip_low: float = 0.2
    clip_high: float = 0.2  # above clip_low: clip-higher, room for tokens that were rare
    average: Literal["sequence", "token", "constant"] = "sequence"  # see grpo.divisors
    kl_coef: float = 0.04  # of the k3 estimate in the loss; 0: none

    ranges: ClassVar[Ranges] = {
        "clip_low": WITHIN,
        "clip_high": POSITIVE,
        "kl_coef": NATURAL,
    }


def reference_rules(config: Config) -> Rules:
    """Of the reference, which may be the base of adapters."""
    yield (
        "ppo.offload_reference",
        not (config.ppo.offload_reference and config.model.lora_rank),
        "False, since with model.lora_rank the reference is the base itself",
    )


def value_rules(config: Config) -> Rules:
    """Of values of whole answers, which have nothing behind them to discount."""
    ppo = config.ppo
    yield (
        "ppo.gamma",
        ppo.value_unit == "token" or ppo.gamma == 1,
        "1 with ppo.value_unit=answer, which discounts nothing",
    )


def batch_rules(config: Config) -> Rules:
    """Of the parts of a batch, which is rollouts."""
    ppo = config.ppo
    yield "ppo.num_minibatches", *divides(ppo.num_minibatches, config.batch_size)
    rows = config.batch_size // max(1, ppo.num_minibatches)
    yield "ppo.num_micro_batches", *divides(ppo.num_micro_batches, rows)
