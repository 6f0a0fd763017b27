"""What steers learning beside the algorithm, for each of them: long answers, the sampler's
own distribution, the distance from the reference, the distance within an iteration.

All are off by default: then nothing of them is computed, stored or logged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning.losses import MaskedSum
from stepcoder_jax.learning.metrics import Metrics, mean_or_nan
from stepcoder_jax.pytrees import Experience, Feedback, Rollout

if TYPE_CHECKING:
    from stepcoder_jax.config import Config

Learn = Callable[[Any, Experience], tuple[Any, Metrics]]

# arXiv:1909.08593, section 2.2: what the error of the controller is clipped to
LARGEST_ERROR = 0.2
# Spinning Up (openai/spinningup, ppo.py) and Stable-Baselines3 stop at 1.5 times target_kl
TOLERANCE = 1.5


def overlong_penalty(count: jax.Array, limit: int, buffer: int) -> jax.Array:
    """Soft punishment f32[B] of answers of `count` i32[B] tokens.

    0 up to L - c tokens, (L - c - |y|) / c beyond, down to -1 at L = `limit`, with c =
    `buffer`. Source: arXiv:2503.14476, eq. 13. Differs: nothing is longer than L, since
    the sampler cuts there, so an answer that was cut has -1.
    """
    return jnp.clip((limit - buffer - count) / buffer, -1.0, 0.0)


def shape_overlong(
    config: Config, rollout: Rollout, feedback: Feedback
) -> tuple[Feedback, Metrics]:
    """Feedback whose rewards have `overlong_penalty` on each row's last token."""
    buffer, columns = config.ppo.overlong_buffer, rollout.mask.shape[1]
    if not buffer:
        return feedback, {}
    count = jnp.sum(rollout.mask, axis=1)
    penalty = overlong_penalty(count, columns, buffer)
    is_last = jnp.arange(columns)[None] == count[:, None] - 1
    rewards = feedback.rewards + jnp.where(is_last, penalty[:, None], 0.0)
    metrics = {
        "overlong_penalty": mean_or_nan(penalty, feedback.valid),
        "overlong_share": mean_or_nan((penalty < 0).astype(jnp.float32), feedback.valid),
    }
    return feedback._replace(rewards=rewards), metrics


def sampler_logprobs(rollout: Rollout, mask: jax.Array) -> jax.Array:
    """log mu f32[B, T] of the distribution mu that drew the tokens, 0 outside the mask.

    The sampler's own logprobs are those of its softmax over the whole vocabulary, in its
    own dtype; truncation by top-p, top-k or min-p divides what it keeps by the kept mass.
    """
    kept = jnp.log(jnp.where(mask, rollout.kept_mass, 1.0))
    return jnp.where(mask, rollout.logprobs - kept, 0.0)


def importance_weights(cap: float, batch: Experience) -> jax.Array:
    """Truncated importance weights f32[B, T], min(pi_old / mu, cap); 0 outside the mask.

    pi_old is the trainer's before any update, mu what the sampler drew from. They stand
    before the policy loss of each token, without a gradient of their own. Source: Yao et
    al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"
    (TIS, cap 2 there); Ionides 2008 for the truncation.
    """
    ratio = jnp.exp(jnp.where(batch.mask, batch.old_logprobs - batch.sampler_logprobs, 0.0))
    return jnp.where(batch.mask, jnp.minimum(ratio, cap), 0.0)


def weigh(config: Config, batch: Experience, surrogate: jax.Array) -> jax.Array:
    """Policy loss f32[B, T] with `importance_weights` before it, where they are on."""
    if not config.ppo.tis_cap:
        return surrogate
    return importance_weights(config.ppo.tis_cap, batch) * surrogate


def weight_metrics(config: Config, batch: Experience) -> Metrics:
    """Mean weight over the tokens of the loss, and the share that the cap holds back."""
    cap = config.ppo.tis_cap
    if not cap:
        return {}
    weights = importance_weights(cap, batch)
    capped = (weights >= cap).astype(jnp.float32)
    return {
        "tis_weight": mean_or_nan(weights, batch.loss_mask),
        "tis_capped": mean_or_nan(capped, batch.loss_mask),
    }


def answer_kl(batch: Experience) -> tuple[jax.Array, jax.Array]:
    """KL(pi || pi_ref) of whole answers, estimated by those drawn; and their number.

    The mean over valid rows of sum_t log pi_old - log pi_ref: arXiv:1909.08593, eq. 2.
    """
    rows = jnp.any(batch.mask, axis=1)
    sums = adv.masked_sum(batch.old_logprobs - batch.ref_logprobs, batch.mask, 1)
    number = jnp.sum(rows, dtype=jnp.float32)
    return adv.masked_sum(sums, rows) / jnp.maximum(1.0, number), number


def next_kl_coef(config: Config, coef: jax.Array, batch: Experience) -> jax.Array:
    """The KL coefficient of the next iteration, f32[].

    e = clip(KL / target - 1, -0.2, 0.2); beta <- beta (1 + e n / horizon), with KL and n,
    the rows that it was measured on, of `answer_kl`. Source: arXiv:1909.08593, section
    2.2, whose K_beta = 0.1 is n / horizon of its released code. Without a valid row it
    stays as it is.
    """
    kl, number = answer_kl(batch)
    error = kl / config.ppo.adaptive_kl_target - 1.0
    error = jnp.clip(error, -LARGEST_ERROR, LARGEST_ERROR)
    return coef * (1.0 + error * number / config.ppo.adaptive_kl_horizon)


def is_too_far(target: float, approx_kl: MaskedSum) -> jax.Array:
    """Whether a minibatch's mean KL(pi_old || pi) is above 1.5 times the target, bool[]."""
    mean = approx_kl.total / jnp.maximum(1.0, approx_kl.count)
    return mean > TOLERANCE * target


def stop_early(target: float, learn: Learn) -> Learn:
    """`learn` of (networks, whether to go on), for the minibatches of one iteration.

    The first minibatch that `is_too_far` changes nothing, and none after it is computed.
    metrics["taken"] tells of each whether its update was. Source: `target_kl` of Spinning
    Up and Stable-Baselines3. Differs: the critic stops as well.
    """

    def go_on(current: Any, batch: Experience) -> tuple[Any, Metrics]:
        new, metrics = learn(current, batch)
        goes_on = ~is_too_far(target, metrics["approx_kl"])
        new = jax.tree.map(lambda a, b: jnp.where(goes_on, a, b), new, current)
        return (new, goes_on), metrics | {"taken": goes_on}

    def visit(carry: Any, batch: Experience) -> tuple[Any, Metrics]:
        current, goes_on = carry
        shapes = jax.eval_shape(go_on, current, batch)[1]

        def skip(current: Any, batch: Experience) -> tuple[Any, Metrics]:
            metrics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            metrics["ratio_min"] = jnp.full_like(metrics["ratio_min"], jnp.inf)
            return (current, goes_on), metrics

        return jax.lax.cond(goes_on, go_on, skip, current, batch)

    return visit
