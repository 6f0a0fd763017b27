"""What is logged of a batch before its updates, and of the updates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import losses
from stepcoder_jax.pytrees import Experience, Rollout

if TYPE_CHECKING:
    from stepcoder_jax.learning.scoring import Current

Metrics = dict[str, Any]


class Logged(NamedTuple):
    """What is kept of a micro-batch beside its gradients."""

    sums: Metrics  # over masks, to be added
    extremes: Metrics
    rows: Any = ()  # arrays [b, T], one row for each of the micro-batch


class ValueMoments(NamedTuple):
    """Moments per row, centred before they are squared, that any group of rows can join.

    Sums of squares alone would not do: of values near 1 with a spread of 1e-4, float32
    leaves nothing of their difference.
    """

    count: Any  # f32[B], completion tokens of the row
    returns: Any  # f32[B], their mean
    returns_m2: Any  # f32[B], sum of squared distances from that mean
    errors: Any  # f32[B], mean of values - returns
    errors_m2: Any  # f32[B], sum of squared distances from that mean


def mean_or_nan(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of x where mask is True, for the log; nan for an empty mask, where 0 would be a
    number that nobody measured.
    """
    return jnp.where(jnp.any(mask), adv.masked_mean(x, mask), jnp.nan)


def policy_metrics(experience: Experience, rollout: Rollout, kl: jax.Array) -> Metrics:
    """Means over the batch, before any update; kl f32[B, T] is exact, per token."""
    mask, loss_mask = experience.mask, experience.loss_mask
    mismatch = jnp.abs(rollout.logprobs - experience.old_logprobs)
    sampled = experience.old_logprobs - experience.ref_logprobs
    return {
        "kl": mean_or_nan(kl, mask),
        "kl_executed": mean_or_nan(kl, loss_mask),
        "kl_unexecuted": mean_or_nan(kl, mask & ~loss_mask),
        "kl_sampled": mean_or_nan(sampled, mask),
        "masked_fraction": mean_or_nan((~loss_mask).astype(jnp.float32), mask),
        "kept_mass": mean_or_nan(rollout.kept_mass, mask),
        "logprob_mismatch": mean_or_nan(mismatch, mask),
        "logprob_mismatch_max": jnp.where(
            jnp.any(mask), jnp.max(jnp.where(mask, mismatch, 0.0)), jnp.nan
        ),
        "advantage": mean_or_nan(experience.advantages, loss_mask),
        "truncated_fraction": jnp.mean(rollout.truncated, dtype=jnp.float32),
        "completion_length": jnp.mean(rollout.length - rollout.prompt_length),
    }


def critic_metrics(experience: Experience, mask: jax.Array) -> Metrics:
    """What there is to tell of values and returns over the mask of those that are learnt;
    "rows" is a `ValueMoments` of f32[B]."""
    rows = value_moments(experience.old_values, experience.returns, mask)
    return {
        "value": mean_or_nan(experience.old_values, mask),
        "return": mean_or_nan(experience.returns, mask),
        "explained_variance": explained_variance(rows),
        "rows": rows,
    }


def explained_variance(moments: ValueMoments) -> jax.Array:
    """1 - Var(returns - values) / Var(returns) over the rows given; 0 without spread.

    Spread below 1e-6 of the numbers' size is float32's rounding. Takes jax or numpy arrays
    f32[B].
    """
    mean, m2 = join_moments(moments.count, moments.returns, moments.returns_m2)
    bias, unexplained = join_moments(moments.count, moments.errors, moments.errors_m2)
    size = jnp.maximum(1.0, jnp.maximum(jnp.abs(mean), jnp.abs(bias)))
    least = moments.count.sum() * (adv.SMALLEST_SPREAD * size) ** 2
    return jnp.where(m2 > least, 1.0 - unexplained / jnp.maximum(m2, least), 0.0)


def join_moments(count: Any, means: Any, m2: Any) -> tuple[jax.Array, jax.Array]:
    """Mean and sum of squared distances from it, of rows f32[B] together.

    Source: Chan, Golub, LeVeque 1979, eq. 2.1, for any number of parts.
    """
    total = jnp.maximum(1.0, count.sum())
    mean = (count * means).sum() / total
    return mean, m2.sum() + (count * (means - mean) ** 2).sum()


def value_errors(moments: ValueMoments) -> tuple[jax.Array, jax.Array]:
    """Bias and RMSE of the values of the rows given: mean(values - returns) and
    sqrt(mean((values - returns)^2)); nan of none.
    """
    total = moments.count.sum()
    bias, m2 = join_moments(moments.count, moments.errors, moments.errors_m2)
    none = total == 0
    rmse = jnp.sqrt(m2 / jnp.maximum(1.0, total) + bias**2)
    return jnp.where(none, jnp.nan, bias), jnp.where(none, jnp.nan, rmse)


def value_moments(values: jax.Array, returns: jax.Array, mask: jax.Array) -> ValueMoments:
    """Moments over the mask of each row, of values and returns f32[B, T]."""
    count = jnp.sum(mask, axis=1, dtype=jnp.float32)

    def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = adv.masked_sum(x, mask, 1) / jnp.maximum(1.0, count)
        return mean, adv.masked_sum((x - mean[:, None]) ** 2, mask, 1)

    return ValueMoments(count, *moments(returns), *moments(values - returns))


def ratio_metrics(log_ratio: jax.Array, mask: jax.Array) -> Logged:
    """What r = log(pi / pi_old) f32[B, T] says of an update's size, as `Logged`.

    approx_kl sums exp(r) - 1 - r: k3 of KL(pi_old || pi), since pi_old drew the tokens.
    Without a token in the mask ratio_max is 0 and ratio_min infinite.
    """
    sums = {"approx_kl": losses.sum_over(losses.k3(-log_ratio), mask)}
    extremes = {
        "ratio_max": jnp.exp(jnp.max(jnp.where(mask, log_ratio, -jnp.inf))),
        "ratio_min": jnp.exp(jnp.min(jnp.where(mask, log_ratio, jnp.inf))),
    }
    return Logged(sums, extremes)


def update_metrics(
    current: Current, batch: Experience, surrogate: jax.Array, held: jax.Array
) -> Logged:
    """What each policy loss logs: `ratio_metrics`, and sums over `loss_mask` of the two
    that `losses.clipped_surrogate` gives and of the entropy.
    """
    mask = batch.loss_mask
    ratio = losses.log_ratio(current.logprobs, batch.old_logprobs, mask)
    logged = ratio_metrics(ratio, mask)
    logged.sums.update(
        policy_loss=losses.sum_over(surrogate, mask),
        clip_fraction=losses.sum_over(held, mask),
        entropy=losses.sum_over(current.entropy, mask),
    )
    return logged


def stack_one(metrics: Metrics) -> Metrics:
    """The metrics of an iteration's only update as those of several are stacked."""
    return jax.tree.map(lambda x: x[None], metrics)


def step_metrics(stacked: Metrics) -> Metrics:
    """Metrics of an iteration from those of its updates, stacked on axis 0.

    nan where no token of a mask was there to be counted.
    """
    means = {
        name: jnp.where(x.count.sum() > 0, x.total.sum() / x.count.sum(), jnp.nan)
        for name, x in stacked.items()
        if isinstance(x, losses.MaskedSum)
    }
    norms = {name: x for name, x in stacked.items() if name.endswith("_grad_norm")}
    taken = stacked.get("taken")
    if taken is None:
        norms = {name: x.mean() for name, x in norms.items()}
    else:  # some were stopped by ppo.target_kl
        norms = {name: mean_or_nan(x, taken) for name, x in norms.items()}
        norms["updates"] = jnp.sum(taken, dtype=jnp.int32)
    high, low = stacked["ratio_max"], stacked["ratio_min"]

    def known(ratio: jax.Array, of: jax.Array) -> jax.Array:
        return jnp.where(of > 0, ratio, jnp.nan)  # the maximum over no token is 0

    return (
        means
        | norms
        | {
            "ratio_max_first": known(high[0], high[0]),
            "ratio_min_first": known(low[0], high[0]),
            "ratio_max": known(high.max(), high.max()),
            "ratio_min": known(low.min(), high.max()),
            "nonfinite": jnp.sum(stacked["nonfinite"], dtype=jnp.int32),
            "nonfinite_first": jnp.argmax(stacked["nonfinite"]),
        }
    )
