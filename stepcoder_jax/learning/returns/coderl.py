"""CodeRL: REINFORCE whose tokens weigh what a critic says, and written programs beside it.

    L      = L_rl + coderl.supervised L_ce
    L_rl   = - mean over sampled tokens of ret_t log pi(w_t)
    L_ce   = - mean over written tokens of log pi(w_t)
    ret_t  = q_t (r(W) - r(W_base))

Source: arXiv:2207.01780, sections 3.1 (L_ce) and 3.2 (returns, baseline, q_t). W_base is
the model's greedy program for the same prompt; q_t is the chance that an error critic,
having read up to token t, gives to the outcome that W really had (models/heads.py). RLTF
(arXiv:2307.04349, section 3.3) has the same without a critic, and more rewards.

Paper and released code differ; we take the side that is named first:
- means over tokens (code), not sums over a program (paper): lengths do not set the rate.
- both losses are in each update (paper); in the code they take turns in micro-batches.
- samples and baselines are the present policy's; CodeRL draws both once, from the model
  that RL begins with. RLTF samples as it learns, and takes the greedy program of the day.
- written programs are drawn as the code does, not those of the rollouts' problems: as many
  as there are rollouts, at the stage at which the curriculum poses each.
The ratio to the policy that sampled stands nowhere: a second epoch is off-policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import controls, losses
from stepcoder_jax.learning.metrics import Logged, mean_or_nan, update_metrics
from stepcoder_jax.learning.scoring import Current, RolloutScores
from stepcoder_jax.learning.updates import Algorithm, Begun, begin_rows
from stepcoder_jax.pytrees import Experience, Feedback, RewardScale, Rollout

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

    from stepcoder_jax.config import Config


def token_returns(
    rewards: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    baseline: Float[Array, " B"],
    values: Float[Array, "B T"],
) -> Float[Array, "B T"]:
    """ret_t = q_t (R - R_base + T r_t) on the mask, 0 elsewhere.

    R is the reward on a row's last token, which is of all the program, r_t one that stands
    on another token and is of that token alone, T the number of the row's tokens. So
    `located` is RLTF's L_fine, whose factor 1 / T our mean has already: in its released
    code q_t ((R - 0.3 m_t) - R_base), m_t being 1 on the line of the error.
    """
    count = jnp.sum(mask, axis=1, keepdims=True)
    is_last = mask & (jnp.arange(mask.shape[1])[None] == count - 1)
    whole = adv.masked_sum(rewards, is_last, 1, keepdims=True) - baseline[:, None]
    own = jnp.where(mask & ~is_last, rewards, 0.0) * count
    return jnp.where(mask, values * (whole + own), 0.0)


def begin(
    config: Config, scale: RewardScale, rollout: Rollout, feedback: Feedback
) -> Begun:
    """Returns of the rollouts, which are known before any network has looked.

    Rewards are taken as they are, and the running reward moments are handed back. A
    written program has no return.
    """
    del config
    rows = begin_rows(rollout, feedback)
    number, columns = rows.mask.shape
    baseline, values = feedback.baseline, feedback.token_values
    baseline = jnp.zeros(number) if baseline is None else baseline
    values = jnp.ones((number, columns)) if values is None else values
    written = feedback.written
    sampled = rows.mask
    if written is not None:
        sampled = sampled & ~written[:, None]
    returns = token_returns(feedback.rewards, sampled, baseline, values)
    metrics = {
        "coderl/baseline": mean_or_nan(baseline, jnp.any(sampled, axis=1)),
        "coderl/token_value": mean_or_nan(values, sampled),
    }
    return Begun(rows._replace(advantages=returns, written=written), None, scale, metrics)


def complete(
    config: Config, rows: Experience, outcome: None, scores: RolloutScores
) -> Experience:
    """The experience of rows whose scores are known; these are logged alone."""
    del config, outcome
    return rows._replace(old_logprobs=scores.logprobs, ref_logprobs=scores.ref_logprobs)


def whitens(config: Config) -> bool:
    """No: a return is judged against the greedy program's."""
    del config
    return False


def split(batch: Experience, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The tokens of a mask bool[B, T] that were sampled, and those that were written."""
    if batch.written is None:
        return mask, jnp.zeros_like(mask)
    return mask & ~batch.written[:, None], mask & batch.written[:, None]


def divisors(config: Config, batch: Experience) -> tuple[jax.Array, jax.Array]:
    """What the sums of L_rl and L_ce of one optimizer step are divided by, f32[].

    Sampled tokens that `ppo.normaliser` counts, and written ones; at least 1 each. Over the
    whole minibatch: all micro-batches, all devices.
    """
    sampled, written = (
        jnp.maximum(1.0, jnp.sum(mask, dtype=jnp.float32))
        for mask in split(batch, losses.counted_mask(config, batch))
    )
    return sampled, written


def loss(
    config: Config,
    current: Current,
    batch: Experience,
    divisors: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, Logged]:
    """L of one micro-batch, already divided by its minibatch's counts; and sums to log.

    What FGO leaves out of a sampled program has no part. The entropy bonus and
    `ppo.tis_cap` act on sampled tokens alone.
    """
    sampled, written = split(batch, batch.loss_mask)
    drawn = batch._replace(loss_mask=sampled)
    surrogate = -batch.advantages * jnp.where(sampled, current.logprobs, 0.0)
    surrogate = controls.weigh(config, drawn, surrogate)
    logged = update_metrics(current, drawn, surrogate, jnp.zeros_like(surrogate))
    policy, entropy = logged.sums["policy_loss"], logged.sums["entropy"]
    total = (policy.total - config.ppo.entropy_coef * entropy.total) / divisors[0]
    if batch.written is not None:
        imitated = losses.sum_over(-current.logprobs, written)
        logged.sums["ce_loss"] = imitated
        total += config.coderl.supervised * imitated.total / divisors[1]
    return total, logged


CODERL = Algorithm(begin, complete, whitens, divisors, loss)
