"""An iteration of learning, whichever the algorithm: experience, minibatches, optimizers.

Algorithms differ in advantages and losses alone: an `Algorithm` says how. A minibatch is
one step of each optimizer; its micro-batches are rows that fit into memory together, and
sums over all of them are divided by counts of the whole minibatch, so that the split
changes nothing.

Read `make_experience` and `update`; `one_pass` is both in one, for iterations of a single
update. All are pure functions of arrays and the config. `layout.place(tree, axis)` pins the
batch axis of arrays to the devices; a program for one device has `batching.ONE_DEVICE`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import controls
from stepcoder_jax.learning.batching import (
    Layout,
    accumulate_gradients,
    scan_minibatches,
    shuffle_order,
)
from stepcoder_jax.learning.metrics import (
    Logged,
    Metrics,
    critic_metrics,
    policy_metrics,
    stack_one,
    step_metrics,
)
from stepcoder_jax.learning.optimizers import make_optimizer, rate_share
from stepcoder_jax.learning.scoring import (
    Current,
    RolloutScores,
    choose_reference,
    run_networks,
    score_current,
    score_rollout,
    widen,
)
from stepcoder_jax.models import lora, policy
from stepcoder_jax.pytrees import Experience, Feedback, RewardScale, Rollout, TrainState

if TYPE_CHECKING:
    from stepcoder_jax.config import Config, OptimizerConfig

Params = Any

# apart from the keys of sampling, whose first fold is the iteration
ADAPTER_STREAM = 0x7FFFFFFE


class Begun(NamedTuple):
    """What is known of a batch before the networks score it."""

    experience: Experience  # its masks, and what needs no scores
    outcome: Any  # f32[B, T], rewards that `complete` wants; None where it wants none
    reward_scale: RewardScale  # this batch taken in, where the algorithm keeps moments
    metrics: Metrics


class Algorithm(NamedTuple):
    """Where algorithms differ: what a rollout is worth, and the loss that follows.

    All are pure functions. `loss` takes what `divisors` gives.
    """

    begin: Callable[[Config, RewardScale, Rollout, Feedback], Begun]
    # (config, experience, outcome, scores), each row by itself
    complete: Callable[[Config, Experience, Any, RolloutScores], Experience]
    whitens: Callable[[Config], bool]  # advantages over all rows, before the first update
    # of one minibatch: counts that its sums are divided by
    divisors: Callable[[Config, Experience], Any]
    # of one micro-batch, divided by its minibatch's `divisors`; and sums to log
    loss: Callable[[Config, Current, Experience, Any], tuple[jax.Array, Logged]]
    # bool[B, T], the tokens whose value a critic learns: then `complete` fills old_values
    # and returns; None: there is no critic
    value_mask: Callable[[Config, Experience], jax.Array] | None = None
    # of the penalty against the reference, at the start; None: it has none
    kl_coef: Callable[[Config], float] | None = None

    @property
    def has_critic(self) -> bool:
        return self.value_mask is not None


class Updated(NamedTuple):
    """What the gradient changes: of an actor with LoRA its adapters; no critic is None."""

    actor: Params
    critic: Params
    actor_opt: Any
    critic_opt: Any


def adapter_keys(config: Config) -> jax.Array:
    """Keys of the actor's and of the critic's fresh adapters, from the run's seed."""
    key = jax.random.fold_in(jax.random.key(config.run.seed), ADAPTER_STREAM)
    return jax.random.split(key)


def init_state(algorithm: Algorithm, config: Config, actor: Params) -> TrainState:
    """The state before the first iteration: moments of zero, and a critic made from
    `actor`, where the algorithm has one.

    With LoRA both get fresh adapters, and only these have moments.
    """
    keys = adapter_keys(config)
    critic = critic_opt = None
    if algorithm.has_critic:
        critic = policy.init_critic(config.model, actor, keys[1])
        critic_opt = make_optimizer(config.ppo.critic).init(critic)
    actor = policy.add_adapters(config.model, actor, keys[0])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        actor=actor,
        critic=critic,
        actor_opt=make_optimizer(config.ppo.actor).init(lora.split(actor)[0]),
        critic_opt=critic_opt,
        reward_scale=adv.init_reward_scale(),
        kl_coef=init_kl_coef(algorithm, config),
    )


def init_kl_coef(algorithm: Algorithm, config: Config) -> jax.Array | None:
    """The KL coefficient of the first iteration, where one moves it."""
    if algorithm.kl_coef is None or not config.ppo.adaptive_kl_target:
        return None
    return jnp.float32(algorithm.kl_coef(config))


def learns_in_one_pass(algorithm: Algorithm, config: Config) -> bool:
    """Whether the only update of an iteration can score its rows as it goes.

    It starts from the policy that the rows are scored by, so its own forward pass computes
    what `make_experience` would have computed before. Whitened advantages need all rows
    before the first gradient.
    """
    is_only = config.ppo.num_epochs * config.ppo.num_minibatches == 1
    return is_only and not algorithm.whitens(config)


def begin_rows(rollout: Rollout, feedback: Feedback) -> Experience:
    """An experience that nobody has scored or judged yet: tokens and masks."""
    mask = rollout.mask & feedback.valid[:, None]
    return Experience(
        tokens=rollout.tokens,
        prompt_length=rollout.prompt_length,
        length=rollout.length,
        mask=mask,
        loss_mask=mask & feedback.executed,
        explained=feedback.explained,
    )


def begin_batch(
    algorithm: Algorithm,
    config: Config,
    state: TrainState,
    rollout: Rollout,
    feedback: Feedback,
) -> Begun:
    """`Algorithm.begin`, with what `controls` add to it."""
    feedback, metrics = controls.shape_overlong(config, rollout, feedback)
    begun = algorithm.begin(config, state.reward_scale, rollout, feedback)
    rows = begun.experience
    if config.ppo.tis_cap:
        drawn = controls.sampler_logprobs(rollout, rows.mask)
        rows = rows._replace(sampler_logprobs=drawn)
    if state.kl_coef is not None:
        each = jnp.broadcast_to(state.kl_coef, rows.length.shape)
        rows = rows._replace(kl_coef=each)
        metrics |= {"kl_coef": state.kl_coef}
    return begun._replace(experience=rows, metrics=begun.metrics | metrics)


def make_experience(
    algorithm: Algorithm,
    config: Config,
    state: TrainState,
    reference: Params,
    rollout: Rollout,
    feedback: Feedback,
    layout: Layout,
) -> tuple[Experience, RewardScale, Metrics]:
    """All that the epochs over one rollout batch need, computed before any update.

    Old logprobs and values come from the same graph as those of the update, so the first
    ratio is 1. Advantages are whitened only where the outcome rewards of rows with a kept
    token differ; else they stay as they are, and noise stays small. Returns the experience,
    the reward moments and metrics. With LoRA `reference` is not read: the actor's base is
    the reference.
    """
    begun = begin_batch(algorithm, config, state, rollout, feedback)
    mask = begun.experience.mask
    scores = score_rollout(config, state, reference, rollout, mask, layout)
    experience = algorithm.complete(config, begun.experience, begun.outcome, scores)
    if algorithm.whitens(config):
        white = adv.whiten(experience.advantages, experience.loss_mask)
        counted = jnp.any(experience.loss_mask, axis=1)  # a row may have no token in it
        differ = adv.have_spread(begun.outcome.sum(axis=1), counted)
        white = jnp.where(differ, white, experience.advantages)
        experience = experience._replace(advantages=white)
    metrics = experience_metrics(algorithm, config, experience, rollout, scores.kl)
    return experience, begun.reward_scale, metrics | begun.metrics


def experience_metrics(
    algorithm: Algorithm,
    config: Config,
    experience: Experience,
    rollout: Rollout,
    kl: jax.Array,
) -> Metrics:
    """What there is to tell of policy and critic before any update; of rollouts alone."""
    if config.learnt_rows > config.batch_size:  # written programs are behind them
        drawn = jax.tree.map(lambda x: x[: config.batch_size], (experience, rollout, kl))
        experience, rollout, kl = drawn
    metrics = policy_metrics(experience, rollout, kl)
    metrics |= controls.weight_metrics(config, experience)
    if algorithm.value_mask is not None:
        valued = algorithm.value_mask(config, experience)
        metrics |= critic_metrics(experience, valued)
    return metrics


def minibatch_loss(
    algorithm: Algorithm, config: Config, frozen: Params, batch: Experience, layout: Layout
) -> Callable[[tuple[Params, Params], Experience], tuple[jax.Array, Logged]]:
    """The loss of a part of one minibatch by (actor, critic), divided by the whole's
    counts; `frozen` is the actor's rest."""
    divisors = algorithm.divisors(config, batch)

    def loss(params: tuple[Params, Params], part: Experience) -> tuple[jax.Array, Logged]:
        actor = lora.graft(frozen, params[0])
        current = run_networks(config, actor, params[1], part, layout.vocab_shards)
        return algorithm.loss(config, current, part, divisors)

    return loss


def minibatch_gradients(
    algorithm: Algorithm,
    config: Config,
    params: tuple[Params, Params],
    frozen: Params,
    batch: Experience,
    layout: Layout,
) -> tuple[tuple[Params, Params], Metrics]:
    """Gradients of (actor, critic) over one minibatch; `frozen` is the actor's rest."""
    loss = minibatch_loss(algorithm, config, frozen, batch, layout)
    return accumulate_gradients(config, loss, params, batch, batch, layout)[:2]


def scored_gradients(
    algorithm: Algorithm,
    config: Config,
    state: TrainState,
    reference: Params,
    begun: Begun,
    layout: Layout,
) -> tuple[tuple[Params, Params], Metrics, RolloutScores]:
    """`minibatch_gradients` of what has begun, scored by the update's forward pass."""
    trained, frozen = lora.split(state.actor)
    reference = choose_reference(config, state.actor, reference)
    shards, columns = layout.vocab_shards, begun.experience.mask.shape[1]
    divisors = algorithm.divisors(config, begun.experience)

    def loss(params: tuple[Params, Params], part: Any) -> tuple[jax.Array, Logged]:
        rows, outcome = part
        actor = lora.graft(frozen, params[0])
        current = run_networks(config, actor, params[1], rows, shards)
        scores = score_current(config, actor, reference, current, rows, shards)
        experience = algorithm.complete(config, rows, outcome, scores)
        value, logged = algorithm.loss(config, current, experience, divisors)
        return value, logged._replace(rows=widen(scores, columns))

    batch = begun.experience, begun.outcome
    params = (trained, state.critic)
    return accumulate_gradients(config, loss, params, batch, begun.experience, layout)


def optimizer_step(
    config: OptimizerConfig,
    params: Params,
    state: Any,
    gradient: Params,
    learn: jax.Array,
    share: jax.Array | None,
) -> tuple[Params, Any]:
    """Parameters and optimizer state after one step, taken only where `learn` is True.

    Where it is False, parameters, moments and the schedule's count stay as they are.
    `share` is that of the rate which decay has left; None: it does not decay.
    """
    changes, new_state = make_optimizer(config).update(gradient, state, params)
    if share is not None:
        changes = jax.tree.map(lambda x: x * share.astype(x.dtype), changes)
    new = (optax.apply_updates(params, changes), new_state)
    return jax.tree.map(lambda a, b: jnp.where(learn, a, b), new, (params, state))


def update_networks(
    config: Config,
    current: Updated,
    gradients: tuple[Params, Params],
    batch: Experience,
    step: jax.Array,
    sums: Metrics,
    is_sound: jax.Array,
) -> tuple[Updated, Metrics]:
    """One step of each optimizer in iteration `step`, and the gradients' norms.

    Beside a critic the actor learns from iteration `critic_warmup_steps` on. A batch
    without a token in a loss's mask leaves that network, its moments and its schedule
    untouched. So does, for both networks, a gradient or a loss of `sums` that is not
    finite, and a state that is not `is_sound` (see `update`); "nonfinite" says so.
    """
    has_critic = current.critic is not None
    warm = step >= config.ppo.critic_warmup_steps if has_critic else True
    shares = [
        rate_share(settings, step, config.run.total_steps)
        for settings in (config.ppo.actor, config.ppo.critic)
    ]
    acts, critic = batch.loss_mask, (current.critic, current.critic_opt)
    norms = {"actor_grad_norm": optax.tree.norm(gradients[0])}
    if has_critic:
        norms["critic_grad_norm"] = optax.tree.norm(gradients[1])
    values = [x.total for name, x in sums.items() if name.endswith("_loss")]
    is_sound &= jnp.isfinite(sum(norms.values())) & jnp.isfinite(sum(values))
    if has_critic:
        judges = is_sound & jnp.any(batch.mask)
        critic = optimizer_step(config.ppo.critic, *critic, gradients[1], judges, shares[1])
        if config.model.shared_trunk:  # the value loss moves the trunk as well
            acts = batch.mask
    learn = is_sound & warm & jnp.any(acts)
    actor = (current.actor, current.actor_opt)
    actor = optimizer_step(config.ppo.actor, *actor, gradients[0], learn, shares[0])
    metrics = norms | {"nonfinite": ~is_sound}
    return Updated(actor[0], critic[0], actor[1], critic[1]), metrics


def split_state(state: TrainState) -> tuple[Updated, Params]:
    """What an update changes, and the actor's rest."""
    trained, frozen = lora.split(state.actor)
    current = Updated(trained, state.critic, state.actor_opt, state.critic_opt)
    return current, frozen


def join_state(
    config: Config,
    state: TrainState,
    current: Updated,
    frozen: Params,
    experience: Experience,
    learnt: Metrics,
) -> TrainState:
    """The state after an iteration's updates; one that was left out is no iteration."""
    is_whole = learnt["nonfinite"] == 0
    changed = current._asdict() | {"actor": lora.graft(frozen, current.actor)}
    if state.kl_coef is not None:
        coef = controls.next_kl_coef(config, state.kl_coef, experience)
        changed["kl_coef"] = jnp.where(is_whole, coef, state.kl_coef)
    return state._replace(step=state.step + is_whole, **changed)


def keep_scale(before: RewardScale, after: RewardScale, left_out: jax.Array) -> RewardScale:
    """The reward moments after an iteration of which so many updates were left out."""
    return jax.tree.map(lambda a, b: jnp.where(left_out == 0, b, a), before, after)


def update(
    algorithm: Algorithm,
    config: Config,
    state: TrainState,
    experience: Experience,
    layout: Layout,
) -> tuple[TrainState, Metrics]:
    """All epochs and minibatches over one experience: arXiv:1707.06347, Algorithm 1.

    The first update whose gradient is not finite is left out, and so are those behind it:
    the state is that before it, with the iteration's number. metrics["nonfinite"] counts
    them, and metrics["nonfinite_first"] is the first's place.
    """
    current, frozen = split_state(state)

    def learn(
        carried: tuple[Updated, jax.Array], batch: Experience
    ) -> tuple[tuple[Updated, jax.Array], Metrics]:
        current, is_sound = carried
        params = (current.actor, current.critic)
        gradients, sums = minibatch_gradients(
            algorithm, config, params, frozen, batch, layout
        )
        given = (gradients, batch, state.step, sums, is_sound)
        new, more = update_networks(config, current, *given)
        return (new, ~more["nonfinite"]), sums | more

    order = shuffle_order(config, state.step, experience.mask.shape[0])
    batches, begun = (experience, order, layout), (current, jnp.bool_(True))
    if config.ppo.target_kl:
        careful = controls.stop_early(config.ppo.target_kl, learn)
        start = (begun, jnp.bool_(True))
        ((current, _), _), metrics = scan_minibatches(careful, start, *batches)
    else:
        (current, _), metrics = scan_minibatches(learn, begun, *batches)
    return join_state(config, state, current, frozen, experience, metrics), metrics


def one_pass(
    algorithm: Algorithm,
    config: Config,
    state: TrainState,
    reference: Params,
    rollout: Rollout,
    feedback: Feedback,
    layout: Layout,
) -> tuple[TrainState, Experience, Metrics, Metrics]:
    """`make_experience` and `update` in one, where `learns_in_one_pass`.

    Actor and critic run forward once instead of twice: of nine passes in all (a backward
    one counts two) seven are left, and four of five without a critic. Returns the state,
    which has the new reward moments, the experience, and the metrics of either. An update
    that is not finite is left out as in `update`.
    """
    begun = begin_batch(algorithm, config, state, rollout, feedback)
    gradients, metrics, scores = scored_gradients(
        algorithm, config, state, reference, begun, layout
    )
    current, frozen = split_state(state)
    given = (gradients, begun.experience, state.step, metrics, jnp.bool_(True))
    current, more = update_networks(config, current, *given)
    experience = algorithm.complete(config, begun.experience, begun.outcome, scores)
    looked = experience_metrics(algorithm, config, experience, rollout, scores.kl)
    looked |= begun.metrics
    learnt = step_metrics(stack_one(metrics | more))
    scale = keep_scale(state.reward_scale, begun.reward_scale, learnt["nonfinite"])
    state = state._replace(reward_scale=scale)
    state = join_state(config, state, current, frozen, experience, learnt)
    return state, experience, looked, learnt
