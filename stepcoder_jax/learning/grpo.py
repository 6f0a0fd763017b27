"""GRPO: PPO's clipped update with the group's own rewards in place of a critic.

The rollouts of one task (one problem at one stage of the curriculum) are a group; each is
judged against the others (arXiv:2402.03300, section 4.1). The knobs of `grpo` also give
DAPO's clip-higher and token mean (arXiv:2503.14476) and Dr. GRPO's unbiased form
(arXiv:2503.20783), `estimator` the baselines of RLOO and of REINFORCE++, `policy_loss` GSPO
and CISPO. Batches, epochs, micro-batches, the entropy bonus, `normaliser`, the actor's
optimizer and what `controls` has are those of `ppo`; its other fields are not read. There
is no critic: no parameters, no moments, no values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import controls, losses
from stepcoder_jax.learning.metrics import Logged, Metrics, mean_or_nan, update_metrics
from stepcoder_jax.learning.scoring import Current, RolloutScores
from stepcoder_jax.learning.updates import Algorithm, Begun, begin_rows
from stepcoder_jax.pytrees import Experience, Feedback, RewardScale, Rollout

if TYPE_CHECKING:
    from stepcoder_jax.config import Config


def group_advantages(
    rewards: jax.Array, valid: jax.Array, group_size: int, scale_by_std: bool
) -> tuple[jax.Array, Metrics]:
    """Advantages f32[B] of rewards f32[B] against their groups, and what to log.

    A_i = (r_i - mean(r)) / std(r) over the valid rows of the group, 0 for the others; std
    is unbiased (n - 1), and left out without `scale_by_std` (Dr. GRPO: it favours problems
    that are nearly always, or nearly never, solved). A group whose valid rewards are all
    equal, or that has fewer than two, teaches nothing: exactly 0, and counted. Rows i * G
    to (i + 1) * G - 1 are group i. Source: arXiv:2402.03300, section 4.1.2; no term is
    added to std here, since groups without spread have left.
    """
    valid = valid.reshape(-1, group_size)
    rewards = rewards.reshape(-1, group_size)
    count = jnp.sum(valid, axis=1, keepdims=True, dtype=jnp.float32)

    def mean(x: jax.Array, number: jax.Array) -> jax.Array:
        return adv.masked_sum(x, valid, 1, keepdims=True) / jnp.maximum(1.0, number)

    centred = rewards - mean(rewards, count)
    std = jnp.sqrt(mean(centred**2, count - 1))
    # by the spread, not by std: the mean of equal numbers may differ in the last bit
    differs = adv.have_spread(rewards, valid, 1, keepdims=True)
    advantages = centred / jnp.where(differs, std, 1.0) if scale_by_std else centred
    advantages = jnp.where(valid & differs, advantages, 0.0)
    metrics = {
        "grpo/equal_groups": jnp.sum(~differs, dtype=jnp.int32),
        "grpo/equal_share": jnp.mean(~differs, dtype=jnp.float32),
        "grpo/group_std": mean_or_nan(std, differs),
    }
    return advantages.reshape(-1), metrics


def row_advantages(
    config: Config, rewards: jax.Array, valid: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Advantages f32[B] by `grpo.estimator`, before any whitening; and what to log.

    grpo    `group_advantages`
    rloo    r_i less the mean of the group's other valid rows, which is n / (n - 1) times
            r_i - mean(r): arXiv:2402.14740. Differs: the KL penalty is in the loss
    reinforce_plus_plus            r_i - mean(r) over the batch
    reinforce_plus_plus_baseline   r_i - mean(r) over the group
    """
    grpo, size = config.grpo, config.sampling.rollouts_per_problem
    by_std = grpo.estimator == "grpo" and grpo.scale_by_std
    advantages, metrics = group_advantages(rewards, valid, size, by_std)
    if grpo.estimator == "rloo":
        count = jnp.sum(valid.reshape(-1, size), axis=1, keepdims=True)
        others = count / jnp.maximum(1, count - 1)
        advantages = (advantages.reshape(-1, size) * others).reshape(-1)
    elif grpo.estimator == "reinforce_plus_plus":
        centred = rewards - adv.masked_mean(rewards, valid)
        differs = adv.have_spread(
            rewards, valid
        )  # else exactly 0, whatever the mean's bits
        advantages = jnp.where(valid & differs, centred, 0.0)
    return advantages, metrics


def penalises_rewards(config: Config) -> bool:
    """Whether the KL penalty is in the rewards, of each token, and not in the loss."""
    return config.grpo.estimator == "reinforce_plus_plus"


def begin(
    config: Config, scale: RewardScale, rollout: Rollout, feedback: Feedback
) -> Begun:
    """Advantages and metrics of the groups; each token of a row has the row's advantage.

    The KL penalty is in the loss, so outcome rewards are taken as they are (but see
    `penalises_rewards`), and the running reward moments are handed back unchanged. Where
    answers may open with an explanation, its tokens have the advantage of its own rewards
    among the group's explanations, and the others that of theirs among those that go on
    behind one.
    """
    rows = begin_rows(rollout, feedback)

    def judge(part: jax.Array) -> tuple[jax.Array, Metrics]:
        """Advantages f32[B, T] on the tokens of a part, of the rows that have some."""
        advantages, metrics = row_advantages(
            config,
            jnp.where(part, feedback.rewards, 0.0).sum(axis=1),
            feedback.valid & jnp.any(part, axis=1),
        )
        return jnp.where(part, advantages[:, None], 0.0), metrics

    if rows.explained is None:
        advantages, metrics = judge(rows.mask)
    else:
        opens = adv.in_explanation(rows.explained, rows.mask)
        advantages, metrics = judge(rows.mask & ~opens)
        others, more = judge(opens)
        advantages += others
        metrics |= {f"{name}_explained": number for name, number in more.items()}
    outcome = advantages if whitens(config) else None
    return Begun(rows._replace(advantages=advantages), outcome, scale, metrics)


def complete(
    config: Config, rows: Experience, outcome: jax.Array | None, scores: RolloutScores
) -> Experience:
    """The experience of rows whose scores are known.

    With `penalises_rewards` A_t = r - beta sum_{i >= t} log(pi_old / pi_ref)(y_i), r being
    the row's advantage so far: arXiv:2501.03262v8, eqs. 8 and 9. Whitening over the batch,
    eq. 10, follows. An explanation pays for its own tokens alone.
    """
    known = {"old_logprobs": scores.logprobs, "ref_logprobs": scores.ref_logprobs}
    if not penalises_rewards(config):
        return rows._replace(**known)
    coef, mask = adv.kl_coef_of(rows, config.grpo.kl_coef), rows.mask
    zeros = jnp.zeros(mask.shape, jnp.float32)
    penalty = adv.token_rewards(zeros, scores.logprobs, scores.ref_logprobs, mask, coef)
    discount: float | jax.Array = 1.0
    if rows.explained is not None:
        discount = adv.split_discounts(1.0, rows.explained, mask.shape[1])
    later, _ = adv.gae(penalty, zeros, mask, discount, 1.0)
    return rows._replace(advantages=rows.advantages + later, **known)


def whitens(config: Config) -> bool:
    """Whether advantages are normalised over the batch: REINFORCE++ does, with and without
    a baseline of the group (arXiv:2501.03262v8, eq. 10)."""
    return config.grpo.estimator.startswith("reinforce_plus_plus")


def row_weights(config: Config, batch: Experience) -> jax.Array:
    """What each row's sum of token losses counts, f32[B], before `divisors`.

    1 / |o_i| with `grpo.average` sequence, else 1; |o_i| is the number of the row's tokens
    that `ppo.normaliser` counts.
    """
    if config.grpo.average != "sequence":
        return jnp.ones(batch.mask.shape[0])
    count = jnp.sum(losses.counted_mask(config, batch), axis=1, dtype=jnp.float32)
    return 1.0 / jnp.maximum(1.0, count)


def divisors(config: Config, batch: Experience) -> jax.Array:
    """What the weighted sum of one optimizer step is divided by, f32[], at least 1.

    sequence    rows with a counted token: arXiv:2402.03300, eq. 3
    token       counted tokens: arXiv:2503.14476, section 3.3
    constant    rows with a token x the length limit T: arXiv:2503.20783, section 3.2
    Over the whole minibatch: all micro-batches, all devices.
    """
    counted = losses.counted_mask(config, batch)
    if config.grpo.average == "token":
        number = jnp.sum(counted, dtype=jnp.float32)
    elif config.grpo.average == "sequence":
        number = jnp.sum(jnp.any(counted, axis=1), dtype=jnp.float32)
    else:
        rows = jnp.sum(jnp.any(batch.mask, axis=1), dtype=jnp.float32)
        number = rows * batch.mask.shape[1]
    return jnp.maximum(1.0, number)


def policy_loss(
    config: Config, current: Current, batch: Experience
) -> tuple[jax.Array, jax.Array]:
    """Policy loss of each token by `grpo.policy_loss`, and 1 where a bound acts.

    GSPO has bounds of its own, `sequence_clip_low` and `sequence_clip_high`: the ratio of a
    sequence is a geometric mean, and a thousand times nearer to 1 than a token's.
    """
    grpo = config.grpo
    given = (current.logprobs, batch.old_logprobs, batch.advantages, batch.loss_mask)
    if grpo.policy_loss == "gspo":
        bounds = (grpo.sequence_clip_low, grpo.sequence_clip_high)
        return losses.sequence_surrogate(*given, *bounds)
    if grpo.policy_loss == "cispo":
        return losses.weighted_surrogate(*given, grpo.clip_low, grpo.clip_high)
    return losses.clipped_surrogate(*given, grpo.clip_low, grpo.clip_high)


def loss(
    config: Config, current: Current, batch: Experience, number: jax.Array
) -> tuple[jax.Array, Logged]:
    """Loss of one micro-batch, divided by its minibatch's `divisors`; and what to log.

    sum_i w_i sum_t m_it (surrogate_it + kl_coef k3_it - entropy_coef H_it) / number, with
    w of `row_weights`, m the `loss_mask` and k3 estimating KL(pi || pi_ref). Source:
    arXiv:2402.03300, eqs. 3 and 4, negated. What stands outside the mask, FGO's unexecuted
    code included, has exactly zero gradient, also by the KL: PPO's penalty on it still
    acts through the rewards of what comes before.
    """
    mask = batch.loss_mask
    surrogate, held = policy_loss(config, current, batch)
    surrogate = controls.weigh(config, batch, surrogate)
    penalty = losses.k3(losses.log_ratio(current.logprobs, batch.ref_logprobs, mask))
    coef = adv.kl_coef_of(batch, config.grpo.kl_coef)
    if penalises_rewards(config):
        coef = 0.0
    tokens = surrogate + coef * penalty - config.ppo.entropy_coef * current.entropy
    weighted = tokens * row_weights(config, batch)[:, None]
    logged = update_metrics(current, batch, surrogate, held)
    logged.sums["kl_loss"] = losses.sum_over(penalty, mask)
    return adv.masked_sum(weighted, mask) / number, logged


def kl_coef(config: Config) -> float:
    """`grpo.kl_coef`, of the penalty in the loss, or else in the rewards."""
    return config.grpo.kl_coef


GRPO = Algorithm(begin, complete, whitens, divisors, loss, kl_coef=kl_coef)
