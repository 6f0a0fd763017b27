"""The losses of PPO, GRPO and its kin, per token or as a sum over a mask.

Sums, not means: the caller divides by a count taken over all micro-batches and devices, so
that neither changes the gradient. What stands outside a mask has exactly zero gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from stepcoder_jax.learning.advantages import masked_sum

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

    from stepcoder_jax.config import Config
    from stepcoder_jax.pytrees import Experience


class MaskedSum(NamedTuple):
    """A sum over a mask and the number of True in that mask."""

    total: Any  # f32[]
    count: Any  # f32[]


def sum_over(x: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> MaskedSum:
    """Sum and count of x over mask."""
    return MaskedSum(masked_sum(x, mask), jnp.sum(mask, dtype=jnp.float32))


def counted_mask(config: Config, batch: Experience) -> Bool[Array, "B T"]:
    """The tokens whose number divides the policy loss, by `ppo.normaliser`: kept counts
    `loss_mask`, completion counts `mask`.
    """
    return batch.loss_mask if config.ppo.normaliser == "kept" else batch.mask


def log_ratio(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
) -> Float[Array, "B T"]:
    """log(pi / pi_old) on the mask, 0 elsewhere, so that no exp overflows out of sight."""
    return jnp.where(mask, logprobs - old_logprobs, 0.0)


def k3(log_ratio: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """Per token, an estimate of KL(pi || other) from samples of pi: never negative.

    k3 = other / pi - 1 - log(other / pi), with log_ratio = log(pi / other): `pi` must be
    the policy that drew the tokens. Source: joschu.net/blog/kl-approx.html;
    arXiv:2402.03300, eq. 4.
    """
    return jnp.expm1(-log_ratio) + log_ratio


def clipped_surrogate(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Clipped policy loss of each token, and 1 where the clip holds it back.

    max(-A ratio, -A clip(ratio, 1 - low, 1 + high)), ratio = pi / pi_old. Source:
    arXiv:1707.06347, eq. 7, negated; two bounds as in arXiv:2503.14476, section 3.1. Held
    back: tokens whose clipped term is strictly the greater.
    """
    ratio = jnp.exp(log_ratio(logprobs, old_logprobs, mask))
    plain = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    return jnp.maximum(plain, clipped), (clipped > plain).astype(jnp.float32)


def sequence_surrogate(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """`clipped_surrogate` of the sequence's ratio: GSPO.

    s_i = exp(mean over t of log(pi / pi_old)); each token has the value s_i, and the
    gradient s_i of its own log pi: sg(s_i) pi_t / sg(pi_t). Source: arXiv:2507.18071,
    GSPO by tokens as its GSPO-token, which is equal where a row has one advantage.
    Differs: the mean is over the tokens of the mask, so that what FGO leaves out does not
    move the ratio; with a mean per sequence that is also what the paper divides by.
    """
    ratio = log_ratio(logprobs, old_logprobs, mask)
    count = jnp.maximum(1, jnp.sum(mask, axis=1, keepdims=True))
    mean = jax.lax.stop_gradient(jnp.sum(ratio, axis=1, keepdims=True) / count)
    own = logprobs - jax.lax.stop_gradient(logprobs)  # 0, with the gradient of logprobs
    zeros = jnp.zeros_like(own)
    return clipped_surrogate(mean + own, zeros, advantages, mask, clip_low, clip_high)


def weighted_surrogate(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """REINFORCE with a clipped importance weight: CISPO.

    -sg(clip(ratio, 1 - low, 1 + high)) A log pi, so that no token loses its gradient.
    Source: arXiv:2506.13585, section 3.1, negated; low = 1 is no bound, as there. Also 1
    for each token whose ratio is outside the bounds.
    """
    ratio = jnp.exp(log_ratio(logprobs, old_logprobs, mask))
    weight = jax.lax.stop_gradient(jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high))
    held = (ratio < 1.0 - clip_low) | (ratio > 1.0 + clip_high)
    surrogate = -weight * advantages * jnp.where(mask, logprobs, 0.0)
    return surrogate, held.astype(jnp.float32)


def value_loss(
    values: Float[Array, "B T"],
    old_values: Float[Array, "B T"],
    returns: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    clip_eps: float,
) -> MaskedSum:
    """Clipped value loss.

    loss = sum 0.5 max((V - R)^2, (V_old + clip(V - V_old, -eps, eps) - R)^2).
    Source: the PPO release of OpenAI baselines (ppo2); no paper has it as an equation.
    """
    clipped = old_values + jnp.clip(values - old_values, -clip_eps, clip_eps)
    errors = jnp.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return sum_over(0.5 * errors, mask)
