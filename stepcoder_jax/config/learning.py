"""How a batch is learnt from: the optimizer, PPO, and GRPO or CodeRL in its place."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from stepcoder_jax.config.ranges import (
    ABOVE_ZERO,
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
    # the rate's way down over run.total_steps, to this share of it
    decay: Literal["none", "linear", "cosine"] = "none"
    floor: float = 0.0

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("learning_rate", "warmup_steps", "weight_decay"), NATURAL),
        **dict.fromkeys(("b1", "b2"), BELOW_ONE),
        **dict.fromkeys(("eps", "max_grad_norm"), POSITIVE),
        "floor": SHARE,
    }


@dataclasses.dataclass
class PPOConfig(Section):
    """Clipped PPO with a token-level KL penalty in the reward.

    Fields that have nothing to do with a critic, with clipping or with KL (epochs to
    widths, entropy_coef, normaliser, offload_reference, overlong_buffer to
    adaptive_kl_horizon, actor) hold for GRPO as well.
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
    kl_warning: float = 0.5  # nats per token to the reference, warned of above; 0: never
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
    # see controls.py: tokens before the length limit in which an answer is punished more
    # and more for its length (DAPO); 0: none
    overlong_buffer: int = 0
    # largest weight of a token for what the sampler drew from was not the policy: bfloat16,
    # truncation (truncated importance sampling; its authors' is 2); 0: no weights
    tis_cap: float = 0.0
    # KL to the old policy, in nats per token, beyond which (1.5 times) an iteration's
    # updates end; 0: none
    target_kl: float = 0.0
    # KL to the reference, in nats per answer, that kl_coef is steered to over so many
    # rollouts; 0: kl_coef stays
    adaptive_kl_target: float = 0.0
    adaptive_kl_horizon: int = 10000
    actor: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    critic: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1.5e-6)
    )

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("num_epochs", "num_minibatches", "num_micro_batches"), COUNT),
        **dict.fromkeys(("value_coef", "entropy_coef", "kl_coef", "kl_warning"), NATURAL),
        "widths": COUNT,
        "clip_eps": WITHIN,
        "value_clip_eps": POSITIVE,
        **dict.fromkeys(("gamma", "gae_lambda"), SHARE),
        **dict.fromkeys(("critic_warmup_steps", "overlong_buffer"), NATURAL),
        **dict.fromkeys(("tis_cap", "target_kl", "adaptive_kl_target"), NATURAL),
        "adaptive_kl_horizon": COUNT,
    }

    @property
    def decays(self) -> bool:
        """Whether run.total_steps is part of what is computed."""
        return self.actor.decay != "none" or self.critic.decay != "none"


@dataclasses.dataclass
class GRPOConfig(Section):
    """The group's rewards in place of a critic; read with `algorithm` grpo alone.

    The defaults are GRPO's (arXiv:2402.03300; its clip is not given). DAPO
    (arXiv:2503.14476) has clip_high 0.28, average token and kl_coef 0; Dr. GRPO
    (arXiv:2503.20783) scale_by_std False, average constant and kl_coef 0.
    """

    # what a reward is judged against: see grpo.row_advantages; the last two are normalised
    # over the batch, and reinforce_plus_plus has its KL penalty in the rewards
    estimator: Literal[
        "grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"
    ] = "grpo"
    # the policy loss: see grpo.policy_loss
    policy_loss: Literal["clipped", "gspo", "cispo"] = "clipped"
    scale_by_std: bool = True  # of estimator grpo: divide by the group's standard deviation
    clip_low: float = 0.2  # with cispo 1 is no bound
    clip_high: float = 0.2  # above clip_low: clip-higher, room for tokens that were rare
    sequence_clip_low: float = 3e-4  # of gspo, in place of the other two
    sequence_clip_high: float = 4e-4
    average: Literal["sequence", "token", "constant"] = "sequence"  # see grpo.divisors
    kl_coef: float = 0.04  # of the k3 estimate in the loss; 0: none

    ranges: ClassVar[Ranges] = {
        "clip_low": ABOVE_ZERO,
        "sequence_clip_low": WITHIN,
        **dict.fromkeys(("clip_high", "sequence_clip_high"), POSITIVE),
        "kl_coef": NATURAL,
    }


@dataclasses.dataclass
class CodeRLConfig(Section):
    """The loss of CodeRL and of RLTF; read with `algorithm` coderl alone.

    Source: arXiv:2207.01780, section 3.2; the defaults are its released scripts'.
    """

    # what a program's reward is judged against: that of the model's greedy program for the
    # same prompt, or 0
    baseline: Literal["greedy", "none"] = "greedy"
    # the folder of an outcome head (`stepcoder head`), whose q_t weighs each token; "": all
    # weigh 1
    critic: str = ""
    supervised: float = 1.0  # weight of the loss of written programs; 0: none are learnt

    ranges: ClassVar[Ranges] = {"supervised": NATURAL}


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


def group_rules(config: Config) -> Rules:
    """Of what GRPO's kin do in place of GRPO."""
    grpo, is_grpo = config.grpo, config.algorithm == "grpo"
    for name, own in (("estimator", "grpo"), ("policy_loss", "clipped")):
        is_default = getattr(grpo, name) == own
        yield (
            f"grpo.{name}",
            is_grpo or is_default,
            f"{own} with algorithm={config.algorithm}",
        )
    yield (
        "grpo.clip_low",
        grpo.clip_low < 1 or grpo.policy_loss == "cispo",
        f"less than 1 with grpo.policy_loss={grpo.policy_loss}",
    )
    yield (
        "grpo.average",
        not is_grpo or grpo.policy_loss != "gspo" or grpo.average == "sequence",
        "sequence with grpo.policy_loss=gspo, whose loss is a mean over sequences",
    )


def coderl_rules(config: Config) -> Rules:
    """Of what CodeRL has in place of PPO's critic and of its KL penalty."""
    is_ours = config.algorithm == "coderl"
    yield (
        "coderl.critic",
        is_ours or not config.coderl.critic,
        f'"" with algorithm={config.algorithm}, which weighs no token by it',
    )
    yield (
        "algorithm",
        not (is_ours and config.data.contexts),
        "ppo or grpo with data.contexts, whose answers coderl has no greedy program for",
    )
    yield (
        "ppo.adaptive_kl_target",
        not (is_ours and config.ppo.adaptive_kl_target),
        "0 with algorithm=coderl, which has no KL penalty",
    )


def control_rules(config: Config) -> Rules:
    """Of what steers learning beside the algorithm."""
    ppo, columns = config.ppo, config.sampling.max_completion_length
    yield (
        "ppo.overlong_buffer",
        ppo.overlong_buffer <= columns,
        f"at most sampling.max_completion_length={columns}",
    )
    yield (
        "ppo.target_kl",
        not ppo.target_kl or ppo.num_epochs * ppo.num_minibatches > 1,
        "0, since the only update of an iteration (ppo.num_epochs x ppo.num_minibatches) "
        "has none before it that could have gone too far",
    )
    owner = "ppo" if config.algorithm == "ppo" else "grpo"
    yield (
        "ppo.adaptive_kl_target",
        not ppo.adaptive_kl_target or getattr(config, owner).kl_coef > 0,
        f"0, since {owner}.kl_coef=0 stays 0 whatever it is multiplied by",
    )
    for network, settings in (("actor", ppo.actor), ("critic", ppo.critic)):
        yield (
            f"ppo.{network}.floor",
            settings.decay != "none" or not settings.floor,
            f"0 with ppo.{network}.decay=none, which leaves the rate as it is",
        )
