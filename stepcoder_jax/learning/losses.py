"""The losses of PPO and GRPO, per token or as a sum over a mask.

Sums, not means: the caller divides by a count taken over all micro-batches and devices, so
that neither changes the gradient. What stands outside a mask has exactly zero gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

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
