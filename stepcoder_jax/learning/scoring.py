"""What the networks say of rollouts, micro-batch by micro-batch: logprobs, KL, values.

Before an update (`score_rollout`), and as an update's own forward pass (`run_networks`),
which `score_current` makes the same scores of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from stepcoder_jax.learning.batching import (
    Layout,
    join_rows,
    split_by_length,
    switch_width,
)
from stepcoder_jax.learning.vocabulary import Scoring, compare_tokens, score_tokens
from stepcoder_jax.models import lora, policy
from stepcoder_jax.pytrees import Experience, Rollout, TrainState

if TYPE_CHECKING:
    from stepcoder_jax.config import Config

Params = Any


class RolloutScores(NamedTuple):
    """What the networks say of completion tokens before any update."""

    logprobs: Any  # f32[B, T]
    ref_logprobs: Any  # f32[B, T]
    kl: Any  # f32[B, T], exact KL(pi || pi_ref) where each token is predicted
    values: Any  # f32[B, T]; None without a critic


class Current(NamedTuple):
    """What the networks being trained say of a micro-batch, differentiable."""

    logprobs: Any  # f32[b, T]
    entropy: Any  # f32[b, T]
    values: Any  # f32[b, T]; None without a critic
    hidden: Any  # dtype[b, T, H] of the actor


def completion_tokens(
    tokens: jax.Array, prompt_length: jax.Array, num_columns: int
) -> jax.Array:
    """Completion tokens i32[B, T] out of tokens i32[B, P + T] packed from the left."""
    index = prompt_length[:, None] + jnp.arange(num_columns)[None]
    index = jnp.minimum(index, tokens.shape[1] - 1)
    return jnp.take_along_axis(tokens, index, axis=1)


def run_trunks(
    config: Config, actor: Params, critic: Params | None, where: tuple[Any, Any, int]
) -> tuple[jax.Array, jax.Array | None]:
    """Hidden states of the actor and values, f32[b, T]; None without a critic.

    `where` are tokens, prompt_length and the number of columns T.
    """
    if critic is None:
        return policy.completion_hidden(config.model, actor["trunk"], *where), None
    return policy.hidden_and_values(config.model, actor, critic, *where)


def run_networks(
    config: Config, actor: Params, critic: Params | None, batch: Experience, shards: int
) -> Current:
    """The forward pass of an update, over the columns that `batch` has."""
    where = (batch.tokens, batch.prompt_length, batch.mask.shape[1])
    hidden, values = run_trunks(config, actor, critic, where)
    scoring = Scoring(config.sampling.temperature, shards, entropy=True)
    scores = score_tokens(policy.lm_head(actor), hidden, completion_tokens(*where), scoring)
    return Current(*scores, values, hidden)


def compare(
    config: Config,
    actor: Params,
    reference: Params,
    hidden: jax.Array,
    where: tuple[Any, Any, int],
    shards: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`vocabulary.compare_tokens` of the actor, whose hidden states are known, and the
    reference, whose are not.
    """
    ref_hidden = policy.completion_hidden(config.model, reference["trunk"], *where)
    scoring = Scoring(config.sampling.temperature, shards, entropy=False)
    heads = policy.lm_head(actor), policy.lm_head(reference)
    chosen = completion_tokens(*where)
    return compare_tokens(heads[0], hidden, heads[1], ref_hidden, chosen, scoring)


def keep(scores: RolloutScores, mask: jax.Array) -> RolloutScores:
    """Scores that are 0 outside the mask, but for `kl`."""
    masked = jax.tree.map(lambda x: jnp.where(mask, x, 0.0), scores)
    return masked._replace(kl=scores.kl)


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
    _, ref_logprobs, kl = compare(config, actor, reference, current.hidden, where, shards)
    scores = RolloutScores(current.logprobs, ref_logprobs, kl, current.values)
    return keep(scores, batch.mask)


def widen(rows: Any, num_columns: int) -> Any:
    """Arrays [b, columns] of trimmed rows, with zeros up to `num_columns`."""
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, num_columns - x.shape[1]))), rows)


def score_rows(
    config: Config,
    state: TrainState,
    reference: Params,
    inputs: tuple[jax.Array, jax.Array, jax.Array],
    num_columns: int,
    shards: int,
) -> RolloutScores:
    """Scores of rows that fit into memory together.

    `inputs` are tokens, prompt_length and length. Columns right of a row's last token are
    not meant to be read.
    """
    tokens, prompt_length, length = inputs

    def compute(width: int) -> RolloutScores:
        where = (tokens[:, :width], prompt_length, min(width, num_columns))
        hidden, values = run_trunks(config, state.actor, state.critic, where)
        found = compare(config, state.actor, reference, hidden, where, shards)
        return widen(RolloutScores(*found, values=values), num_columns)

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
    return keep(scores, mask)
