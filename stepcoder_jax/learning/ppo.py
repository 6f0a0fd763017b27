"""PPO: GAE against a critic, the clipped policy loss and the clipped value loss.

Old logprobs are those of the policy before the iteration's first update; the KL penalty is
in the rewards. `updates` does the rest, which no algorithm has for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import controls, losses
from stepcoder_jax.learning.metrics import Logged, update_metrics
from stepcoder_jax.learning.scoring import Current, RolloutScores
from stepcoder_jax.learning.updates import Algorithm, Begun, begin_rows
from stepcoder_jax.pytrees import Experience, Feedback, RewardScale, Rollout

if TYPE_CHECKING:
    from stepcoder_jax.config import Config


def begin(
    config: Config, scale: RewardScale, rollout: Rollout, feedback: Feedback
) -> Begun:
    """Outcome rewards as `ppo.scale_rewards` wants them, and the reward moments with this
    batch taken in.
    """
    rows = begin_rows(rollout, feedback)
    outcome = jnp.where(rows.mask, feedback.rewards, 0.0)
    scale = adv.update_reward_scale(scale, outcome.sum(axis=1), feedback.valid)
    divisor = adv.reward_divisor(scale)
    if config.ppo.scale_rewards:
        outcome = outcome / divisor
    return Begun(rows, outcome, scale, {"reward_std": divisor})


def complete(
    config: Config, rows: Experience, outcome: jax.Array, scores: RolloutScores
) -> Experience:
    """The experience of rows whose scores are known, each row by itself."""
    logprobs, ref_logprobs, _, values = scores
    coef = adv.kl_coef_of(rows, config.ppo.kl_coef)
    rewards = adv.token_rewards(outcome, logprobs, ref_logprobs, rows.mask, coef)
    advantages, returns = estimate(config, rows, rewards, values)
    return rows._replace(
        old_logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        old_values=values,
        advantages=advantages,
        returns=returns,
    )


def parted(config: Config, rows: Experience) -> jax.Array:
    """Tokens of the explanation that are apart from the program behind them, i32[B].

    All of them with `ppo.coupling` hard_split; else 0, as arXiv:2405.18649 prints it
    (appendix A.3).
    """
    if config.ppo.coupling == "hard_split" and rows.explained is not None:
        return rows.explained
    return jnp.zeros(rows.mask.shape[0], jnp.int32)


def estimate(
    config: Config, rows: Experience, rewards: jax.Array, values: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Advantages and returns, f32[B, T]: per token by GAE, or with `ppo.value_unit` answer
    per part, where neither gamma nor lambda has two actions to stand between.
    """
    ppo, mask = config.ppo, rows.mask
    if ppo.value_unit == "answer":
        return adv.part_advantages(rewards, values, mask, parted(config, rows))
    discount: float | jax.Array = ppo.gamma
    if ppo.coupling == "hard_split":
        apart = parted(config, rows)
        discount = adv.split_discounts(ppo.gamma, apart, mask.shape[1])
    return adv.gae(rewards, values, mask, discount, ppo.gae_lambda)


def value_mask(config: Config, rows: Experience) -> jax.Array:
    """bool[B, T]: the tokens whose value is learnt; the first ones, where a value is that
    of a whole part."""
    if config.ppo.value_unit == "token":
        return rows.mask
    return adv.first_tokens(parted(config, rows), rows.mask)


def whitens(config: Config) -> bool:
    """Whether advantages are whitened: `ppo.whiten_advantages`."""
    return config.ppo.whiten_advantages


def divisors(config: Config, batch: Experience) -> tuple[jax.Array, jax.Array]:
    """What the sums of policy and value loss of one optimizer step are divided by, f32[].

    `ppo.normaliser` kept counts loss_mask, completion counts mask; the value loss counts
    `value_mask`. Over the whole minibatch: all micro-batches, all devices.
    """
    masks = losses.counted_mask(config, batch), value_mask(config, batch)
    counts = (jnp.sum(m, dtype=jnp.float32) for m in masks)
    actor, critic = (jnp.maximum(1.0, count) for count in counts)
    return actor, critic


def loss(
    config: Config,
    current: Current,
    batch: Experience,
    divisors: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, Logged]:
    """Loss of one micro-batch, already divided by its minibatch's counts; and sums to log.

    policy / n_policy - entropy_coef * entropy / n_policy + c * value / n_value, with
    c = value_coef on a shared trunk and 1 for a critic of its own. With the execution mask
    the policy loss is arXiv:2402.01391, eq. 5.
    """
    ppo = config.ppo
    surrogate, held = losses.clipped_surrogate(
        current.logprobs,
        batch.old_logprobs,
        batch.advantages,
        batch.loss_mask,
        ppo.clip_eps,
        ppo.clip_eps,
    )
    surrogate = controls.weigh(config, batch, surrogate)
    logged = update_metrics(current, batch, surrogate, held)
    valued = value_mask(config, batch)
    error = losses.value_loss(
        current.values, batch.old_values, batch.returns, valued, ppo.value_clip_eps
    )
    policy, entropy = logged.sums["policy_loss"], logged.sums["entropy"]
    actor_loss = (policy.total - ppo.entropy_coef * entropy.total) / divisors[0]
    value_coef = ppo.value_coef if config.model.shared_trunk else 1.0
    logged.sums["value_loss"] = error
    return actor_loss + value_coef * error.total / divisors[1], logged


def kl_coef(config: Config) -> float:
    """`ppo.kl_coef`, of the penalty in the rewards."""
    return config.ppo.kl_coef


PPO = Algorithm(begin, complete, whitens, divisors, loss, value_mask, kl_coef)
