"""PPO: what a batch of rollouts teaches (`make_experience`) and the update (`ppo_step`).

`ppo_pass` is both in one, for iterations of a single update. All are pure functions of
arrays and the config. `layout.place(tree, axis)` pins the batch axis of arrays to the
devices; a program for one device has `batching.ONE_DEVICE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import losses
from stepcoder_jax.learning.batching import Layout
from stepcoder_jax.learning.optimizers import make_optimizer
from stepcoder_jax.learning.updates import (
    Current,
    Logged,
    Metrics,
    Params,
    RolloutScores,
    accumulate_gradients,
    adapter_keys,
    choose_reference,
    counted_mask,
    mean_or_nan,
    optimizer_step,
    policy_metrics,
    ratio_metrics,
    run_networks,
    scan_minibatches,
    score_current,
    score_rollout,
    shuffle_order,
    stack_one,
    step_metrics,
    widen,
)
from stepcoder_jax.models import lora, policy
from stepcoder_jax.pytrees import Experience, Feedback, RewardScale, Rollout, TrainState

if TYPE_CHECKING:
    from stepcoder_jax.config import Config


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


class Updated(NamedTuple):
    """What the gradient changes: of an actor with LoRA its adapters."""

    actor: Params
    critic: Params
    actor_opt: Any
    critic_opt: Any


def init_state(config: Config, actor: Params) -> TrainState:
    """The state before the first iteration: a critic made from `actor`, moments of zero.

    With LoRA both get fresh adapters, and only these have moments.
    """
    keys = adapter_keys(config)
    critic = policy.init_critic(config.model, actor, keys[1])
    actor = policy.add_adapters(config.model, actor, keys[0])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        actor=actor,
        critic=critic,
        actor_opt=make_optimizer(config.ppo.actor).init(lora.split(actor)[0]),
        critic_opt=make_optimizer(config.ppo.critic).init(critic),
        reward_scale=adv.init_reward_scale(),
    )


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
        mean = jnp.sum(jnp.where(mask, x, 0.0), axis=1) / jnp.maximum(1.0, count)
        squares = jnp.where(mask, (x - mean[:, None]) ** 2, 0.0)
        return mean, jnp.sum(squares, axis=1)

    return ValueMoments(count, *moments(returns), *moments(values - returns))


def begin(
    config: Config, state: TrainState, rollout: Rollout, feedback: Feedback
) -> tuple[Experience, jax.Array, RewardScale]:
    """The masks of an experience that nobody has scored yet; its outcome rewards f32[B, T]
    as `ppo.scale_rewards` wants them; and the reward moments with this batch taken in.
    """
    mask = rollout.mask & feedback.valid[:, None]
    outcome = jnp.where(mask, feedback.rewards, 0.0)
    scale = adv.update_reward_scale(state.reward_scale, outcome.sum(axis=1), feedback.valid)
    if config.ppo.scale_rewards:
        outcome = outcome / adv.reward_divisor(scale)
    begun = Experience(
        tokens=rollout.tokens,
        prompt_length=rollout.prompt_length,
        length=rollout.length,
        mask=mask,
        loss_mask=mask & feedback.executed,
    )
    return begun, outcome, scale


def complete(
    config: Config, begun: Experience, outcome: jax.Array, scores: RolloutScores
) -> Experience:
    """The experience of rows whose scores are known, each row by itself."""
    ppo = config.ppo
    logprobs, ref_logprobs, _, values = scores
    rewards = adv.token_rewards(outcome, logprobs, ref_logprobs, begun.mask, ppo.kl_coef)
    advantages, returns = adv.gae(rewards, values, begun.mask, ppo.gamma, ppo.gae_lambda)
    return begun._replace(
        old_logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        old_values=values,
        advantages=advantages,
        returns=returns,
    )


def make_experience(
    config: Config,
    state: TrainState,
    reference: Params,
    rollout: Rollout,
    feedback: Feedback,
    layout: Layout,
) -> tuple[Experience, RewardScale, Metrics]:
    """All that the PPO epochs over one rollout batch need, computed before any update.

    Old logprobs and values come from the same graph as those of the update, so the first
    ratio is 1. Returns the experience, the reward moments with this batch taken in, and
    metrics; metrics["rows"] is a ValueMoments of f32[B]. With LoRA `reference` is not read:
    the actor's base is the reference.
    """
    begun, outcome, scale = begin(config, state, rollout, feedback)
    scores = score_rollout(config, state, reference, rollout, begun.mask, layout)
    experience = complete(config, begun, outcome, scores)
    if config.ppo.whiten_advantages:
        white = adv.whiten(experience.advantages, experience.loss_mask)
        differ = adv.have_spread(outcome.sum(axis=1), feedback.valid)
        white = jnp.where(differ, white, experience.advantages)
        experience = experience._replace(advantages=white)
    return experience, scale, experience_metrics(experience, rollout, scores.kl, scale)


def experience_metrics(
    experience: Experience, rollout: Rollout, kl: jax.Array, scale: RewardScale
) -> Metrics:
    """`updates.policy_metrics`, and what there is to tell of critic and rewards."""
    mask = experience.mask
    rows = value_moments(experience.old_values, experience.returns, mask)
    return policy_metrics(experience, rollout, kl) | {
        "value": mean_or_nan(experience.old_values, mask),
        "return": mean_or_nan(experience.returns, mask),
        "explained_variance": explained_variance(rows),
        "rows": rows,
        "reward_std": adv.reward_divisor(scale),
    }


def normalisers(config: Config, batch: Experience) -> tuple[jax.Array, jax.Array]:
    """What the sums of policy and value loss of one optimizer step are divided by, f32[].

    `ppo.normaliser` kept counts loss_mask, completion counts mask; the value loss counts
    mask. Over the whole minibatch: all micro-batches, all devices.
    """
    masks = counted_mask(config, batch), batch.mask
    counts = (jnp.sum(m, dtype=jnp.float32) for m in masks)
    actor, critic = (jnp.maximum(1.0, count) for count in counts)
    return actor, critic


def ppo_loss(
    config: Config,
    current: Current,
    batch: Experience,
    divisors: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, Logged]:
    """Loss of one micro-batch, already divided by its minibatch's counts; and sums to log.

    policy / n_policy - entropy_coef * entropy / n_policy + c * value / n_value, with
    c = value_coef on a shared trunk and 1 for a critic of its own.
    """
    ppo = config.ppo
    logprobs, old = current.logprobs, batch.old_logprobs
    surrogate, clipped = losses.policy_loss(
        logprobs, old, batch.advantages, batch.loss_mask, ppo.clip_eps
    )
    bonus = losses.sum_over(current.entropy, batch.loss_mask)
    error = losses.value_loss(
        current.values, batch.old_values, batch.returns, batch.mask, ppo.value_clip_eps
    )
    actor_loss = (surrogate.total - ppo.entropy_coef * bonus.total) / divisors[0]
    value_coef = ppo.value_coef if config.model.shared_trunk else 1.0
    logged = ratio_metrics(
        losses.log_ratio(logprobs, old, batch.loss_mask), batch.loss_mask
    )
    logged.sums.update(
        policy_loss=surrogate, clip_fraction=clipped, entropy=bonus, value_loss=error
    )
    return actor_loss + value_coef * error.total / divisors[1], logged


def minibatch_gradients(
    config: Config,
    params: tuple[Params, Params],
    frozen: Params,
    batch: Experience,
    layout: Layout,
) -> tuple[tuple[Params, Params], Metrics]:
    """Gradients of (actor, critic) over one minibatch; `frozen` is the actor's rest."""
    divisors = normalisers(config, batch)

    def loss(params: tuple[Params, Params], part: Experience) -> tuple[jax.Array, Logged]:
        actor, critic = lora.graft(frozen, params[0]), params[1]
        current = run_networks(config, actor, critic, part, layout.vocab_shards)
        return ppo_loss(config, current, part, divisors)

    return accumulate_gradients(config, loss, params, batch, batch, layout)[:2]


def scored_gradients(
    config: Config,
    state: TrainState,
    reference: Params,
    batch: tuple[Experience, jax.Array],
    layout: Layout,
) -> tuple[tuple[Params, Params], Metrics, RolloutScores]:
    """`minibatch_gradients` of what `begin` left, scored by the update's forward pass."""
    trained, frozen = lora.split(state.actor)
    reference = choose_reference(config, state.actor, reference)
    shards, columns = layout.vocab_shards, batch[0].mask.shape[1]
    divisors = normalisers(config, batch[0])

    def loss(params: tuple[Params, Params], part: Any) -> tuple[jax.Array, Logged]:
        begun, outcome = part
        actor = lora.graft(frozen, params[0])
        current = run_networks(config, actor, params[1], begun, shards)
        scores = score_current(config, actor, reference, current, begun, shards)
        value, logged = ppo_loss(
            config, current, complete(config, begun, outcome, scores), divisors
        )
        return value, logged._replace(rows=widen(scores, columns))

    params = (trained, state.critic)
    return accumulate_gradients(config, loss, params, batch, batch[0], layout)


def apply_gradients(
    config: Config,
    current: Updated,
    gradients: tuple[Params, Params],
    learn: tuple[jax.Array, jax.Array],
) -> Updated:
    """One step of the actor's and of the critic's optimizer, each where it may learn."""
    actor, actor_opt = optimizer_step(
        config.ppo.actor, current.actor, current.actor_opt, gradients[0], learn[0]
    )
    critic, critic_opt = optimizer_step(
        config.ppo.critic, current.critic, current.critic_opt, gradients[1], learn[1]
    )
    return Updated(actor, critic, actor_opt, critic_opt)


def update_networks(
    config: Config,
    current: Updated,
    gradients: tuple[Params, Params],
    batch: Experience,
    warm: jax.Array,
) -> tuple[Updated, Metrics]:
    """One step of both optimizers and the gradients' norms; the actor's only when `warm`.

    A batch without a token in a loss's mask leaves that network, its moments and its
    schedule untouched.
    """
    acts = jnp.any(batch.loss_mask)
    if config.model.shared_trunk:  # the value loss moves the trunk as well
        acts = jnp.any(batch.mask)
    learn = (warm & acts, jnp.any(batch.mask))
    norms = tuple(optax.tree.norm(x) for x in gradients)
    metrics = {
        "actor_grad_norm": norms[0],
        "critic_grad_norm": norms[1],
        "nonfinite": ~jnp.isfinite(norms[0] + norms[1]),
    }
    return apply_gradients(config, current, gradients, learn), metrics


def split_state(config: Config, state: TrainState) -> tuple[Updated, Params, jax.Array]:
    """What an update changes, the actor's rest, and whether the actor learns already.

    It does from iteration `critic_warmup_steps` on.
    """
    trained, frozen = lora.split(state.actor)
    current = Updated(trained, state.critic, state.actor_opt, state.critic_opt)
    return current, frozen, state.step >= config.ppo.critic_warmup_steps


def join_state(state: TrainState, current: Updated, frozen: Params) -> TrainState:
    """The state after an iteration's updates."""
    changed = current._asdict() | {"actor": lora.graft(frozen, current.actor)}
    return state._replace(step=state.step + 1, **changed)


def ppo_step(
    config: Config, state: TrainState, experience: Experience, layout: Layout
) -> tuple[TrainState, Metrics]:
    """All epochs and minibatches over one experience: arXiv:1707.06347, Algorithm 1.

    metrics["nonfinite"] counts updates whose gradient was not finite.
    """
    current, frozen, warm = split_state(config, state)

    def update(current: Updated, batch: Experience) -> tuple[Updated, Metrics]:
        params = (current.actor, current.critic)
        gradients, metrics = minibatch_gradients(config, params, frozen, batch, layout)
        current, more = update_networks(config, current, gradients, batch, warm)
        return current, metrics | more

    order = shuffle_order(config, state.step, experience.mask.shape[0])
    current, metrics = scan_minibatches(update, current, experience, order, layout)
    return join_state(state, current, frozen), metrics


def ppo_pass(
    config: Config,
    state: TrainState,
    reference: Params,
    rollout: Rollout,
    feedback: Feedback,
    layout: Layout,
) -> tuple[TrainState, Experience, Metrics, Metrics]:
    """`make_experience` and `ppo_step` in one, where `updates.learns_in_one_pass`.

    Actor and critic run forward once instead of twice, of nine passes in all (a backward
    one counts two) seven are left. Returns the state, which has the new reward moments, the
    experience, and the metrics of either.
    """
    begun, outcome, scale = begin(config, state, rollout, feedback)
    gradients, metrics, scores = scored_gradients(
        config, state, reference, (begun, outcome), layout
    )
    current, frozen, warm = split_state(config, state)
    current, more = update_networks(config, current, gradients, begun, warm)
    experience = complete(config, begun, outcome, scores)
    looked = experience_metrics(experience, rollout, scores.kl, scale)
    state = join_state(state._replace(reward_scale=scale), current, frozen)
    return state, experience, looked, step_metrics(stack_one(metrics | more))
