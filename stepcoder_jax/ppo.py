"""PPO: what a batch of rollouts teaches (`make_experience`) and the update (`ppo_step`).

Both are pure functions of arrays and the config. `layout.place(tree, axis)` pins the batch
axis of arrays to the devices; a program for one device has `batching.ONE_DEVICE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stepcoder_jax import advantages as adv
from stepcoder_jax import losses
from stepcoder_jax.batching import Layout
from stepcoder_jax.models import lora, policy
from stepcoder_jax.optimizers import make_optimizer
from stepcoder_jax.pytrees import Experience, Feedback, RewardScale, Rollout, TrainState
from stepcoder_jax.updates import (
    Logged,
    Metrics,
    Params,
    accumulate_gradients,
    adapter_keys,
    completion_tokens,
    counted_mask,
    optimizer_step,
    policy_metrics,
    ratio_metrics,
    scan_minibatches,
    score_rollout,
    shuffle_order,
)
from stepcoder_jax.vocabulary import Scoring, score_tokens

if TYPE_CHECKING:
    from stepcoder_jax.config import Config


class ValueMoments(NamedTuple):
    """Sums per row from which the critic's explained variance of any group follows."""

    count: Any  # f32[B]
    returns: Any  # f32[B]
    squared_returns: Any  # f32[B]
    errors: Any  # f32[B], returns - values
    squared_errors: Any  # f32[B]


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

    Takes jax or numpy arrays f32[B]: select the rows of a verdict first, if you like.
    """
    count, *sums = (x.sum() for x in moments)
    count = jnp.maximum(1.0, count)
    mean, square, error, squared_error = (x / count for x in sums)
    variance = square - mean**2
    unexplained = squared_error - error**2
    return jnp.where(
        variance > 1e-12, 1.0 - unexplained / jnp.maximum(variance, 1e-12), 0.0
    )


def value_moments(values: jax.Array, returns: jax.Array, mask: jax.Array) -> ValueMoments:
    """Sums over the mask of each row, of values and returns f32[B, T]."""
    errors = returns - values
    terms = (jnp.ones_like(values), returns, returns**2, errors, errors**2)
    return ValueMoments(*(jnp.sum(jnp.where(mask, x, 0.0), axis=1) for x in terms))


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
    ppo = config.ppo
    mask = rollout.mask & feedback.valid[:, None]
    scores = score_rollout(config, state, reference, rollout, mask, layout)
    logprobs, ref_logprobs, kl, values = scores
    outcome = jnp.where(mask, feedback.rewards, 0.0)
    scale = adv.update_reward_scale(state.reward_scale, outcome.sum(axis=1), feedback.valid)
    if ppo.scale_rewards:
        outcome = outcome / adv.reward_divisor(scale)
    rewards = adv.token_rewards(outcome, logprobs, ref_logprobs, mask, ppo.kl_coef)
    advantages, returns = adv.gae(rewards, values, mask, ppo.gamma, ppo.gae_lambda)
    loss_mask = mask & feedback.executed
    if ppo.whiten_advantages:
        advantages = adv.whiten(advantages, loss_mask)
    experience = Experience(
        tokens=rollout.tokens,
        prompt_length=rollout.prompt_length,
        length=rollout.length,
        mask=mask,
        loss_mask=loss_mask,
        old_logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        old_values=values,
        advantages=advantages,
        returns=returns,
    )
    metrics = experience_metrics(experience, rollout, kl)
    return experience, scale, metrics | {"reward_std": adv.reward_divisor(scale)}


def experience_metrics(experience: Experience, rollout: Rollout, kl: jax.Array) -> Metrics:
    """`updates.policy_metrics`, and what there is to tell of the critic."""
    mask = experience.mask
    rows = value_moments(experience.old_values, experience.returns, mask)
    return policy_metrics(experience, rollout, kl) | {
        "value": adv.masked_mean(experience.old_values, mask),
        "return": adv.masked_mean(experience.returns, mask),
        "explained_variance": explained_variance(rows),
        "rows": rows,
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
    params: tuple[Params, Params],
    frozen: Params,
    config: Config,
    batch: Experience,
    divisors: tuple[jax.Array, jax.Array],
    vocab_shards: int,
) -> tuple[jax.Array, Logged]:
    """Loss of one micro-batch, already divided by its minibatch's counts; and sums to log.

    policy / n_policy - entropy_coef * entropy / n_policy + c * value / n_value, with
    c = value_coef on a shared trunk and 1 for a critic of its own. `params` are trained;
    `frozen` is the rest of the actor.
    """
    ppo = config.ppo
    columns = batch.mask.shape[1]
    actor, critic = lora.graft(frozen, params[0]), params[1]
    hidden, values = policy.hidden_and_values(
        config.model, actor, critic, batch.tokens, batch.prompt_length, columns
    )
    chosen = completion_tokens(batch.tokens, batch.prompt_length, columns)
    scoring = Scoring(config.sampling.temperature, vocab_shards, entropy=True)
    logprobs, entropy = score_tokens(policy.lm_head(actor), hidden, chosen, scoring)
    old = batch.old_logprobs
    surrogate, clipped = losses.policy_loss(
        logprobs, old, batch.advantages, batch.loss_mask, ppo.clip_eps
    )
    bonus = losses.sum_over(entropy, batch.loss_mask)
    error = losses.value_loss(
        values, batch.old_values, batch.returns, batch.mask, ppo.value_clip_eps
    )
    actor_loss = (surrogate.total - ppo.entropy_coef * bonus.total) / divisors[0]
    value_coef = ppo.value_coef if config.model.shared_trunk else 1.0
    log_ratio = losses.log_ratio(logprobs, old, batch.loss_mask)
    sums, extremes = ratio_metrics(log_ratio, batch.loss_mask)
    sums |= {
        "policy_loss": surrogate,
        "clip_fraction": clipped,
        "entropy": bonus,
        "value_loss": error,
    }
    return actor_loss + value_coef * error.total / divisors[1], (sums, extremes)


def minibatch_gradients(
    config: Config,
    params: tuple[Params, Params],
    frozen: Params,
    batch: Experience,
    layout: Layout,
) -> tuple[tuple[Params, Params], Metrics]:
    """Gradients of (actor, critic) over one minibatch, its micro-batches one by one."""
    divisors = normalisers(config, batch)

    def loss(params: tuple[Params, Params], part: Experience) -> tuple[jax.Array, Logged]:
        return ppo_loss(params, frozen, config, part, divisors, layout.vocab_shards)

    return accumulate_gradients(config, loss, params, batch, layout)


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


def ppo_step(
    config: Config, state: TrainState, experience: Experience, layout: Layout
) -> tuple[TrainState, Metrics]:
    """All epochs and minibatches over one experience.

    The actor learns from iteration `critic_warmup_steps` on. A minibatch without a token
    in a loss's mask leaves that network, its moments and its schedule untouched. Source:
    arXiv:1707.06347, Algorithm 1. metrics["nonfinite"] counts updates whose gradient was
    not finite.
    """
    warm = state.step >= config.ppo.critic_warmup_steps
    trained, frozen = lora.split(state.actor)

    def update(current: Updated, batch: Experience) -> tuple[Updated, Metrics]:
        params = (current.actor, current.critic)
        gradients, metrics = minibatch_gradients(config, params, frozen, batch, layout)
        acts = jnp.any(batch.loss_mask)
        if config.model.shared_trunk:  # the value loss moves the trunk as well
            acts = jnp.any(batch.mask)
        learn = (warm & acts, jnp.any(batch.mask))
        norms = tuple(optax.tree.norm(x) for x in gradients)
        metrics |= {
            "actor_grad_norm": norms[0],
            "critic_grad_norm": norms[1],
            "nonfinite": ~jnp.isfinite(norms[0] + norms[1]),
        }
        return apply_gradients(config, current, gradients, learn), metrics

    order = shuffle_order(config, state.step, experience.mask.shape[0])
    current = Updated(trained, state.critic, state.actor_opt, state.critic_opt)
    current, metrics = scan_minibatches(update, current, experience, order, layout)
    changed = current._asdict() | {"actor": lora.graft(frozen, current.actor)}
    return state._replace(step=state.step + 1, **changed), metrics
