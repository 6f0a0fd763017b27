"""What PPO and GRPO share: scoring rollouts, epochs of minibatches, the optimizer's step.

Both algorithms differ in their advantages and losses alone. A minibatch is one step of an
optimizer; its micro-batches are rows that fit into memory together, and sums over all of
them are divided by counts of the whole minibatch, so that the split changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import losses
from stepcoder_jax.learning.batching import (
    Layout,
    join_rows,
    split_by_length,
    switch_width,
    trim,
)
from stepcoder_jax.learning.optimizers import make_optimizer
from stepcoder_jax.learning.vocabulary import Scoring, compare_tokens, score_tokens
from stepcoder_jax.models import lora, policy
from stepcoder_jax.pytrees import Experience, Rollout, TrainState

if TYPE_CHECKING:
    from stepcoder_jax.config import Config, OptimizerConfig

Params = Any
Metrics = dict[str, Any]

# apart from the keys of sampling, whose first fold is the iteration
SHUFFLE_STREAM = 0x7FFFFFFF
ADAPTER_STREAM = 0x7FFFFFFE


class Logged(NamedTuple):
    """What is kept of a micro-batch beside its gradients."""

    sums: Metrics  # over masks, to be added
    extremes: Metrics
    rows: Any = ()  # arrays [b, T], one row for each of the micro-batch


class RolloutScores(NamedTuple):
    """What the networks say of completion tokens before any update."""

    logprobs: Any  # f32[B, T]
    ref_logprobs: Any  # f32[B, T]
    kl: Any  # f32[B, T], exact KL(pi || pi_ref) where each token is predicted
    values: Any  # f32[B, T]; None without a critic


def adapter_keys(config: Config) -> jax.Array:
    """Keys of the actor's and of the critic's fresh adapters, from the run's seed."""
    key = jax.random.fold_in(jax.random.key(config.run.seed), ADAPTER_STREAM)
    return jax.random.split(key)


def learns_in_one_pass(config: Config) -> bool:
    """Whether the only update of an iteration can score its rows as it goes.

    It starts from the policy that the rows are scored by, so its own forward pass computes
    what `make_experience` would have computed before. Whitened advantages need all rows
    before the first gradient.
    """
    ppo = config.ppo
    is_only = ppo.num_epochs * ppo.num_minibatches == 1
    return is_only and not (ppo.whiten_advantages and config.algorithm == "ppo")


def completion_tokens(
    tokens: jax.Array, prompt_length: jax.Array, num_columns: int
) -> jax.Array:
    """Completion tokens i32[B, T] out of tokens i32[B, P + T] packed from the left."""
    index = prompt_length[:, None] + jnp.arange(num_columns)[None]
    index = jnp.minimum(index, tokens.shape[1] - 1)
    return jnp.take_along_axis(tokens, index, axis=1)


class Current(NamedTuple):
    """What the networks being trained say of a micro-batch, differentiable."""

    logprobs: Any  # f32[b, T]
    entropy: Any  # f32[b, T]
    values: Any  # f32[b, T]; None without a critic
    hidden: Any  # dtype[b, T, H] of the actor


def run_networks(
    config: Config, actor: Params, critic: Params | None, batch: Experience, shards: int
) -> Current:
    """The forward pass of an update, over the columns that `batch` has."""
    columns = batch.mask.shape[1]
    where = (batch.tokens, batch.prompt_length, columns)
    if critic is None:
        hidden = policy.completion_hidden(config.model, actor["trunk"], *where)
        values = None
    else:
        hidden, values = policy.hidden_and_values(config.model, actor, critic, *where)
    scoring = Scoring(config.sampling.temperature, shards, entropy=True)
    scores = score_tokens(policy.lm_head(actor), hidden, completion_tokens(*where), scoring)
    return Current(*scores, values, hidden)


def score_current(
    config: Config,
    actor: Params,
    reference: Params,
    current: Current,
    batch: Experience,
    shards: int,
) -> RolloutScores:
    """`score_rows` of a micro-batch whose forward pass has been run; no gradient.

    0 outside the mask, but for `kl`.
    """
    actor, current = jax.lax.stop_gradient((actor, current))
    where = (batch.tokens, batch.prompt_length, batch.mask.shape[1])
    ref_hidden = policy.completion_hidden(config.model, reference["trunk"], *where)
    scoring = Scoring(config.sampling.temperature, shards, entropy=False)
    _, ref_logprobs, kl = compare_tokens(
        policy.lm_head(actor),
        current.hidden,
        policy.lm_head(reference),
        ref_hidden,
        completion_tokens(*where),
        scoring,
    )
    scores = RolloutScores(current.logprobs, ref_logprobs, kl, current.values)
    masked = jax.tree.map(lambda x: jnp.where(batch.mask, x, 0.0), scores)
    return masked._replace(kl=kl)


def widen(rows: Any, num_columns: int) -> Any:
    """Arrays [b, columns] of trimmed rows, with zeros up to `num_columns`."""
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, num_columns - x.shape[1]))), rows)


def score_rows(
    config: Config,
    state: TrainState,
    reference: Params,
    inputs: tuple[jax.Array, jax.Array, jax.Array],
    num_columns: int,
    vocab_shards: int,
) -> RolloutScores:
    """Scores of rows that fit into memory together.

    `inputs` are tokens, prompt_length and length. Columns right of a row's last token are
    not meant to be read.
    """
    tokens, prompt_length, length = inputs
    scoring = Scoring(config.sampling.temperature, vocab_shards, entropy=False)

    def compute(width: int) -> RolloutScores:
        columns = min(width, num_columns)
        chosen = completion_tokens(tokens[:, :width], prompt_length, columns)
        where = (tokens[:, :width], prompt_length, columns)
        if state.critic is None:
            hidden = policy.completion_hidden(config.model, state.actor["trunk"], *where)
            values = None
        else:
            hidden, values = policy.hidden_and_values(
                config.model, state.actor, state.critic, *where
            )
        ref_hidden = policy.completion_hidden(config.model, reference["trunk"], *where)
        heads = policy.lm_head(state.actor), policy.lm_head(reference)
        found = compare_tokens(heads[0], hidden, heads[1], ref_hidden, chosen, scoring)
        return widen(RolloutScores(*found, values), num_columns)

    return switch_width(config.ppo.widths, tokens.shape[1], length, compute)


def choose_reference(config: Config, actor: Params, reference: Params) -> Params:
    """With LoRA the actor's base, and `reference` is not read."""
    return lora.strip(actor) if config.model.lora_rank else reference


def score_rollout(
    config: Config,
    state: TrainState,
    reference: Params,
    rollout: Rollout,
    mask: jax.Array,
    layout: Layout,
) -> RolloutScores:
    """Scores of a whole rollout batch, micro-batch by micro-batch; 0 outside `mask`.

    `kl` alone is not masked. With LoRA `reference` is not read: the actor's base is the
    reference.
    """
    columns = rollout.mask.shape[1]
    parts = config.ppo.num_minibatches * config.ppo.num_micro_batches
    reference = choose_reference(config, state.actor, reference)
    inputs = (rollout.tokens, rollout.prompt_length, rollout.length)
    inputs, order = split_by_length(inputs, rollout.length, parts)
    scores = jax.lax.map(
        lambda x: score_rows(config, state, reference, x, columns, layout.vocab_shards),
        layout.place(inputs, 1),
    )
    scores = layout.place(join_rows(scores, order), 0)
    masked = jax.tree.map(lambda x: jnp.where(mask, x, 0.0), scores)
    return masked._replace(kl=scores.kl)


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


def counted_mask(config: Config, batch: Experience) -> jax.Array:
    """The tokens whose number divides the policy loss, by `ppo.normaliser`."""
    return batch.loss_mask if config.ppo.normaliser == "kept" else batch.mask


def accumulate_gradients(
    config: Config,
    loss: Callable[[Params, Any], tuple[jax.Array, Logged]],
    params: Params,
    batch: Any,
    rows: Experience,
    layout: Layout,
) -> tuple[Params, Metrics, Any]:
    """Gradients of `loss` by `params` over one minibatch, its micro-batches one by one.

    `loss` is that of one micro-batch, already divided by its minibatch's counts, and what
    to keep of it; `batch` is what it takes, `rows` say how long the rows are. Also returns
    metrics, and what was kept of the rows, in their order.
    """
    length, full = rows.length, rows.tokens.shape[1]
    parts, order = split_by_length((batch, length), length, config.ppo.num_micro_batches)
    gradient = jax.grad(loss, has_aux=True)

    def accumulate(total, part):
        part, length = part
        new, logged = switch_width(
            config.ppo.widths,
            full,
            length,
            lambda width: gradient(params, trim(part, full, width)),
        )
        return jax.tree.map(jnp.add, total, new), logged

    zeros = jax.tree.map(jnp.zeros_like, params)
    gradients, logged = jax.lax.scan(accumulate, zeros, layout.place(parts, 1))
    sums = jax.tree.map(lambda x: x.sum(axis=0), logged.sums)
    extremes = {
        "ratio_max": logged.extremes["ratio_max"].max(axis=0),
        "ratio_min": logged.extremes["ratio_min"].min(axis=0),
    }
    kept = layout.place(join_rows(logged.rows, order), 0)
    return gradients, sums | extremes, kept


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


def optimizer_step(
    config: OptimizerConfig, params: Params, state: Any, gradient: Params, learn: jax.Array
) -> tuple[Params, Any]:
    """Parameters and optimizer state after one step, taken only where `learn` is True.

    Where it is False, parameters, moments and the schedule's count stay as they are.
    """
    changes, new_state = make_optimizer(config).update(gradient, state, params)
    new = (optax.apply_updates(params, changes), new_state)
    return jax.tree.map(lambda a, b: jnp.where(learn, a, b), new, (params, state))


def shuffle_order(config: Config, step: jax.Array, rows: int) -> jax.Array:
    """Row numbers i32[epochs * minibatches, rows / minibatches], from (seed, step)."""
    ppo = config.ppo
    key = jax.random.fold_in(jax.random.key(config.run.seed), SHUFFLE_STREAM)
    epochs = jax.random.split(jax.random.fold_in(key, step), ppo.num_epochs)
    order = jax.vmap(lambda k: jax.random.permutation(k, rows))(epochs)
    return order.reshape(ppo.num_epochs * ppo.num_minibatches, -1)


def scan_minibatches(
    update: Callable[[Any, Experience], tuple[Any, Metrics]],
    current: Any,
    experience: Experience,
    order: jax.Array,
    layout: Layout,
) -> tuple[Any, Metrics]:
    """`update` on each minibatch in turn: `order` holds its rows, see `shuffle_order`.

    Returns what the last one left and the metrics of the iteration.
    """

    def visit(current: Any, rows: jax.Array) -> tuple[Any, Metrics]:
        batch = layout.place(jax.tree.map(lambda x: x[rows], experience), 0)
        return update(current, batch)

    current, metrics = jax.lax.scan(visit, current, order)
    return current, step_metrics(metrics)


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
    norms = {name: x.mean() for name, x in stacked.items() if name.endswith("_grad_norm")}
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
        }
    )
