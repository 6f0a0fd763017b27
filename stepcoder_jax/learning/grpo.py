"""GRPO: PPO's clipped update with the group's own rewards in place of a critic.

The rollouts of one task (one problem at one stage of the curriculum) are a group; each is
judged against the others (arXiv:2402.03300, section 4.1). The knobs of `grpo` also give
DAPO's clip-higher and token mean (arXiv:2503.14476) and Dr. GRPO's unbiased form
(arXiv:2503.20783). Batches, epochs, micro-batches, the entropy bonus, `normaliser` and the
actor's optimizer are those of `ppo`; its other fields are not read. There is no critic:
no parameters, no moments, no values.
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


class Updated(NamedTuple):
    """What the gradient changes: of an actor with LoRA its adapters."""

    actor: Params
    actor_opt: Any


def init_state(config: Config, actor: Params) -> TrainState:
    """The state before the first iteration: moments of zero, and no critic.

    With LoRA the actor gets fresh adapters, and only these have moments.
    """
    actor = policy.add_adapters(config.model, actor, adapter_keys(config)[0])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        actor=actor,
        critic=None,
        actor_opt=make_optimizer(config.ppo.actor).init(lora.split(actor)[0]),
        critic_opt=None,
        reward_scale=adv.init_reward_scale(),
    )


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
        total = jnp.sum(jnp.where(valid, x, 0.0), axis=1, keepdims=True)
        return total / jnp.maximum(1.0, number)

    centred = rewards - mean(rewards, count)
    std = jnp.sqrt(mean(centred**2, count - 1))
    high = jnp.max(jnp.where(valid, rewards, -jnp.inf), axis=1, keepdims=True)
    low = jnp.min(jnp.where(valid, rewards, jnp.inf), axis=1, keepdims=True)
    # by the spread, not by std: the mean of equal numbers may differ in the last bit
    differs = high - low > adv.SMALLEST_SPREAD
    advantages = centred / jnp.where(differs, std, 1.0) if scale_by_std else centred
    advantages = jnp.where(valid & differs, advantages, 0.0)
    metrics = {
        "grpo/equal_groups": jnp.sum(~differs, dtype=jnp.int32),
        "grpo/equal_share": jnp.mean(~differs, dtype=jnp.float32),
        "grpo/group_std": mean_or_nan(std, differs),
    }
    return advantages.reshape(-1), metrics


def begin(
    config: Config, rollout: Rollout, feedback: Feedback
) -> tuple[Experience, Metrics]:
    """An experience that nobody has scored yet, advantages included; metrics of the groups.

    Each token of a row has the row's advantage. The KL penalty is in the loss, so outcome
    rewards are taken as they are.
    """
    mask = rollout.mask & feedback.valid[:, None]
    outcome = jnp.where(mask, feedback.rewards, 0.0).sum(axis=1)
    advantages, metrics = group_advantages(
        outcome,
        feedback.valid,
        config.sampling.rollouts_per_problem,
        config.grpo.scale_by_std,
    )
    begun = Experience(
        tokens=rollout.tokens,
        prompt_length=rollout.prompt_length,
        length=rollout.length,
        mask=mask,
        loss_mask=mask & feedback.executed,
        advantages=jnp.where(mask, advantages[:, None], 0.0),
    )
    return begun, metrics


def complete(begun: Experience, scores: RolloutScores) -> Experience:
    """The experience of rows whose scores are known."""
    return begun._replace(old_logprobs=scores.logprobs, ref_logprobs=scores.ref_logprobs)


def make_experience(
    config: Config,
    state: TrainState,
    reference: Params,
    rollout: Rollout,
    feedback: Feedback,
    layout: Layout,
) -> tuple[Experience, RewardScale, Metrics]:
    """All that the epochs over one rollout batch need, computed before any update.

    The running reward moments are handed back unchanged. With LoRA `reference` is not read:
    the actor's base is the reference.
    """
    begun, group_metrics = begin(config, rollout, feedback)
    scores = score_rollout(config, state, reference, rollout, begun.mask, layout)
    experience = complete(begun, scores)
    metrics = policy_metrics(experience, rollout, scores.kl)
    return experience, state.reward_scale, metrics | group_metrics


def row_weights(config: Config, batch: Experience) -> jax.Array:
    """What each row's sum of token losses counts, f32[B], before `divisor`.

    1 / |o_i| with `grpo.average` sequence, else 1; |o_i| is the number of the row's tokens
    that `ppo.normaliser` counts.
    """
    if config.grpo.average != "sequence":
        return jnp.ones(batch.mask.shape[0])
    count = jnp.sum(counted_mask(config, batch), axis=1, dtype=jnp.float32)
    return 1.0 / jnp.maximum(1.0, count)


def divisor(config: Config, batch: Experience) -> jax.Array:
    """What the weighted sum of one optimizer step is divided by, f32[], at least 1.

    sequence    rows with a counted token: arXiv:2402.03300, eq. 3
    token       counted tokens: arXiv:2503.14476, section 3.3
    constant    rows with a token x the length limit T: arXiv:2503.20783, section 3.2
    Over the whole minibatch: all micro-batches, all devices.
    """
    counted = counted_mask(config, batch)
    if config.grpo.average == "token":
        number = jnp.sum(counted, dtype=jnp.float32)
    elif config.grpo.average == "sequence":
        number = jnp.sum(jnp.any(counted, axis=1), dtype=jnp.float32)
    else:
        rows = jnp.sum(jnp.any(batch.mask, axis=1), dtype=jnp.float32)
        number = rows * batch.mask.shape[1]
    return jnp.maximum(1.0, number)


def grpo_loss(
    config: Config, current: Current, batch: Experience, number: jax.Array
) -> tuple[jax.Array, Logged]:
    """Loss of one micro-batch, divided by its minibatch's `divisor`; and what to log.

    sum_i w_i sum_t m_it (surrogate_it + kl_coef k3_it - entropy_coef H_it) / number, with
    w of `row_weights`, m the `loss_mask` and k3 estimating KL(pi || pi_ref). Source:
    arXiv:2402.03300, eqs. 3 and 4, negated. What stands outside the mask, FGO's unexecuted
    code included, has exactly zero gradient, also by the KL: PPO's penalty on it still
    acts through the rewards of what comes before.
    """
    grpo, mask = config.grpo, batch.loss_mask
    logprobs, old = current.logprobs, batch.old_logprobs
    surrogate, held = losses.clipped_surrogate(
        logprobs, old, batch.advantages, mask, grpo.clip_low, grpo.clip_high
    )
    penalty = losses.k3(losses.log_ratio(logprobs, batch.ref_logprobs, mask))
    tokens = surrogate + grpo.kl_coef * penalty - config.ppo.entropy_coef * current.entropy
    weighted = tokens * row_weights(config, batch)[:, None]
    logged = ratio_metrics(losses.log_ratio(logprobs, old, mask), mask)
    logged.sums.update(
        policy_loss=losses.sum_over(surrogate, mask),
        clip_fraction=losses.sum_over(held, mask),
        entropy=losses.sum_over(current.entropy, mask),
        kl_loss=losses.sum_over(penalty, mask),
    )
    return adv.masked_sum(weighted, mask) / number, logged


def minibatch_gradients(
    config: Config, trained: Params, frozen: Params, batch: Experience, layout: Layout
) -> tuple[Params, Metrics]:
    """Gradients of the actor over one minibatch, its micro-batches one by one."""
    number = divisor(config, batch)

    def loss(trained: Params, part: Experience) -> tuple[jax.Array, Logged]:
        actor = lora.graft(frozen, trained)
        current = run_networks(config, actor, None, part, layout.vocab_shards)
        return grpo_loss(config, current, part, number)

    return accumulate_gradients(config, loss, trained, batch, batch, layout)[:2]


def scored_gradients(
    config: Config,
    state: TrainState,
    reference: Params,
    begun: Experience,
    layout: Layout,
) -> tuple[Params, Metrics, RolloutScores]:
    """`minibatch_gradients` of what `begin` left, scored by the update's forward pass."""
    trained, frozen = lora.split(state.actor)
    reference = choose_reference(config, state.actor, reference)
    shards, columns = layout.vocab_shards, begun.mask.shape[1]
    number = divisor(config, begun)

    def loss(trained: Params, part: Experience) -> tuple[jax.Array, Logged]:
        actor = lora.graft(frozen, trained)
        current = run_networks(config, actor, None, part, shards)
        scores = score_current(config, actor, reference, current, part, shards)
        value, logged = grpo_loss(config, current, complete(part, scores), number)
        return value, logged._replace(rows=widen(scores, columns))

    return accumulate_gradients(config, loss, trained, begun, begun, layout)


def update_actor(
    config: Config, current: Updated, gradient: Params, batch: Experience
) -> tuple[Updated, Metrics]:
    """One step of the optimizer and the gradient's norm.

    A batch without a token in the loss mask leaves parameters, moments and schedule
    untouched.
    """
    norm = optax.tree.norm(gradient)
    learn = jnp.any(batch.loss_mask)
    new = optimizer_step(config.ppo.actor, *current, gradient, learn)
    return Updated(*new), {"actor_grad_norm": norm, "nonfinite": ~jnp.isfinite(norm)}


def join_state(state: TrainState, current: Updated) -> TrainState:
    """The state after an iteration's updates."""
    frozen = lora.split(state.actor)[1]
    changed = current._asdict() | {"actor": lora.graft(frozen, current.actor)}
    return state._replace(step=state.step + 1, **changed)


def grpo_step(
    config: Config, state: TrainState, experience: Experience, layout: Layout
) -> tuple[TrainState, Metrics]:
    """All epochs and minibatches over one experience (arXiv:2402.03300, Algorithm 1).

    metrics["nonfinite"] counts updates whose gradient was not finite.
    """
    trained, frozen = lora.split(state.actor)

    def update(current: Updated, batch: Experience) -> tuple[Updated, Metrics]:
        gradient, metrics = minibatch_gradients(
            config, current.actor, frozen, batch, layout
        )
        current, more = update_actor(config, current, gradient, batch)
        return current, metrics | more

    order = shuffle_order(config, state.step, experience.mask.shape[0])
    current = Updated(trained, state.actor_opt)
    current, metrics = scan_minibatches(update, current, experience, order, layout)
    return join_state(state, current), metrics


def grpo_pass(
    config: Config,
    state: TrainState,
    reference: Params,
    rollout: Rollout,
    feedback: Feedback,
    layout: Layout,
) -> tuple[TrainState, Experience, Metrics, Metrics]:
    """`make_experience` and `grpo_step` in one, where `updates.learns_in_one_pass`.

    The actor runs forward once instead of twice. Returns the state, the experience, and the
    metrics of either.
    """
    begun, group_metrics = begin(config, rollout, feedback)
    gradient, metrics, scores = scored_gradients(config, state, reference, begun, layout)
    current = Updated(lora.split(state.actor)[0], state.actor_opt)
    current, more = update_actor(config, current, gradient, begun)
    experience = complete(begun, scores)
    looked = policy_metrics(experience, rollout, scores.kl) | group_metrics
    learnt = step_metrics(stack_one(metrics | more))
    return join_state(state, current), experience, looked, learnt
