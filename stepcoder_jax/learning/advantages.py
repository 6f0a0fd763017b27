"""From outcome rewards to advantages: KL penalty, GAE, whitening, running reward scale.

An answer may be an explanation of |e| tokens and then a program, each with a reward of its
own (arXiv:2405.18649): `explained` i32[B] has |e| of each row, 0 where there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from stepcoder_jax.pytrees import Experience, RewardScale

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

# a running standard deviation below this is rounding, not spread: rewards stay as they are
SMALLEST_SPREAD = 1e-6


def masked_sum(
    x: Float[Array, "*shape"],
    mask: Bool[Array, "*shape"],
    axis: int | None = None,
    keepdims: bool = False,
) -> Float[Array, "*shape"]:
    """Sum of x where mask is True; what stands elsewhere, even NaN, has no influence."""
    return jnp.sum(jnp.where(mask, x, 0.0), axis=axis, keepdims=keepdims)


def masked_mean(x: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, ""]:
    """Mean of x where mask is True; 0 for an empty mask."""
    return masked_sum(x, mask) / jnp.maximum(1, jnp.sum(mask))


def have_spread(
    rewards: Float[Array, "*shape"],
    valid: Bool[Array, "*shape"],
    axis: int | None = None,
    keepdims: bool = False,
) -> Bool[Array, "*shape"]:
    """Whether the rewards of valid rows differ by more than rounding; False of none."""
    high = jnp.max(jnp.where(valid, rewards, -jnp.inf), axis=axis, keepdims=keepdims)
    low = jnp.min(jnp.where(valid, rewards, jnp.inf), axis=axis, keepdims=keepdims)
    return high - low > SMALLEST_SPREAD


def token_rewards(
    outcome: Float[Array, "B T"],
    logprobs: Float[Array, "B T"],
    ref_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    kl_coef: float | Float[Array, "B 1"],
) -> Float[Array, "B T"]:
    """Rewards with the KL penalty of every completion token.

    r_t = outcome_t - kl_coef * (log pi(y_t) - log pi_ref(y_t)) on the mask, 0 elsewhere.
    Source: arXiv:2402.01391, eq. 4; the penalty is on tokens, as in arXiv:2203.02155.
    """
    return jnp.where(mask, outcome - kl_coef * (logprobs - ref_logprobs), 0.0)


def kl_coef_of(rows: Experience, fixed: float) -> float | Float[Array, "B 1"]:
    """The KL coefficient of each row: `fixed`, unless a controller moves it."""
    return fixed if rows.kl_coef is None else rows.kl_coef[:, None]


def gae(
    rewards: Float[Array, "B T"],
    values: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    discount: float | Float[Array, "B T"],
    gae_lambda: float,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Generalized advantage estimates and returns, 0 outside the mask.

    delta_t = r_t + g_t V_{t+1} - V_t; A_t = delta_t + g_t lambda A_{t+1};
    return_t = A_t + V_t; V and A after the last masked token are 0. `discount` is g: one
    gamma, or one for each token, where a 0 ends what the tokens before it are worth.
    Source: arXiv:1707.06347, eqs. 11-12; g as in rlax. Differs: positions outside the mask
    are skipped; t + 1 is the next position inside it.
    """

    def step(carry, column):
        next_value, next_advantage = carry
        reward, value, keep, gamma, decay = column
        delta = reward + gamma * next_value - value
        advantage = delta + decay * next_advantage
        carry = (
            jnp.where(keep, value, next_value),
            jnp.where(keep, advantage, next_advantage),
        )
        return carry, jnp.where(keep, advantage, 0.0)

    zeros = jnp.zeros(rewards.shape[0], jnp.float32)
    factors = (discount, discount * gae_lambda)
    over = [jnp.broadcast_to(jnp.float32(x), rewards.shape).T for x in factors]
    columns = (rewards.T, values.T, mask.T, *over)
    _, advantages = jax.lax.scan(step, (zeros, zeros), columns, reverse=True)
    return advantages.T, jnp.where(mask, advantages.T + values, 0.0)


def in_explanation(
    explained: Int[Array, " B"], mask: Bool[Array, "B T"]
) -> Bool[Array, "B T"]:
    """The tokens of the mask that are an explanation's."""
    return mask & (jnp.arange(mask.shape[1])[None] < explained[:, None])


def split_discounts(
    gamma: float, explained: Int[Array, " B"], num_columns: int
) -> Float[Array, "B T"]:
    """gamma at each token, but 0 at the last one of an explanation: g of `gae`.

    So no reward and no value of the program reaches the explanation before it.
    """
    column = jnp.arange(num_columns)[None]
    return jnp.where(column == explained[:, None] - 1, 0.0, jnp.float32(gamma))


def first_tokens(
    explained: Int[Array, " B"], mask: Bool[Array, "B T"]
) -> Bool[Array, "B T"]:
    """The first token of each part of an answer: of the explanation, of the program."""
    column = jnp.arange(mask.shape[1])[None]
    return mask & ((column == 0) | (column == explained[:, None]))


def part_advantages(
    rewards: Float[Array, "B T"],
    values: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    explained: Int[Array, " B"],
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Advantages and returns of parts of an answer, each taken as one action.

    Of a part, A = R - V for all its tokens: R is the sum of its rewards, V the value where
    its first token is predicted. Of an answer that is not parted (`explained` 0) V is read
    at the last prompt token. Source: arXiv:2410.02089, appendix B.6. Differs: the KL
    penalty in R is the sum over tokens, not of a geometric mean.
    """
    opens = in_explanation(explained, mask)
    of_first, of_second = (
        masked_sum(rewards, part, 1, keepdims=True) for part in (opens, mask & ~opens)
    )
    returns = jnp.where(opens, of_first, of_second)
    first = jnp.minimum(explained[:, None], mask.shape[1] - 1)  # all may be explanation
    later = jnp.take_along_axis(values, first, axis=1)
    baseline = jnp.where(opens, values[:, :1], later)
    return jnp.where(mask, returns - baseline, 0.0), jnp.where(mask, returns, 0.0)


def whiten(x: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """(x - mean) / sqrt(var + 1e-8) over the mask, 0 elsewhere; var is unbiased.

    Numbers that are all equal become 0. Any noise above 1e-4 is blown up to 1, so whoever
    whitens advantages first asks whether rewards `have_spread`: where they do not, all that
    differs is the critic's noise and the KL penalty.
    """
    mean = masked_mean(x, mask)
    squares = masked_sum((x - mean) ** 2, mask)
    variance = squares / jnp.maximum(1, jnp.sum(mask) - 1)
    return jnp.where(mask, (x - mean) * jax.lax.rsqrt(variance + 1e-8), 0.0)


def init_reward_scale() -> RewardScale:
    """Moments of no rewards at all."""
    return RewardScale(*(jnp.zeros((), jnp.float32) for _ in range(3)))


def update_reward_scale(
    scale: RewardScale, outcome: Float[Array, " B"], valid: Bool[Array, " B"]
) -> RewardScale:
    """Take the outcome rewards of the valid rows into the running moments.

    Source: the parallel form of Welford's algorithm (Chan, Golub, LeVeque 1979, eq. 2.1).
    """
    count = jnp.sum(valid, dtype=jnp.float32)
    mean = masked_sum(outcome, valid) / jnp.maximum(1.0, count)
    m2 = masked_sum((outcome - mean) ** 2, valid)
    total = scale.count + count
    share = count / jnp.maximum(1.0, total)
    shift = mean - scale.mean
    return RewardScale(
        count=total,
        mean=scale.mean + shift * share,
        m2=scale.m2 + m2 + shift**2 * scale.count * share,
    )


def reward_divisor(scale: RewardScale) -> Float[Array, ""]:
    """Running unbiased standard deviation of outcome rewards; 1 while there is no spread.

    The authors' released PPO divides by it without subtracting the mean.
    """
    std = jnp.sqrt(scale.m2 / jnp.maximum(1.0, scale.count - 1))
    return jnp.where(std > SMALLEST_SPREAD, std, 1.0)
