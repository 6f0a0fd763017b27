"""Supervised fine-tuning: its loss, its gradient, its schedule; pure functions.

loss = - sum_t scored_t log pi(y_t | x, y_<t) / sum_t scored_t over the completion tokens of
a batch: the code behind the response head, its closing fence and EOS. Letters as in
`pytrees.TextBatch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from stepcoder_jax.learning.batching import Layout
from stepcoder_jax.learning.optimizers import decay_weights
from stepcoder_jax.learning.vocabulary import Scoring, score_tokens
from stepcoder_jax.models import lora, policy
from stepcoder_jax.pytrees import TextBatch

if TYPE_CHECKING:
    from stepcoder_jax.config import Config, SFTConfig

Params = Any


def loss(config: Config, layout: Layout, params: Params, batch: TextBatch) -> jax.Array:
    """Sum of the negative log-likelihood of the completion tokens, in nats.

    Never of a batch's whole logits: see `vocabulary`.
    """
    tokens, segments = batch.tokens[:, :-1], batch.segments[:, :-1]
    if config.sft.packing:
        where = (restart(segments), segments)
        hidden, _ = policy.apply_trunk(config.model, params["trunk"], tokens, *where)
    else:  # rows of one text: a causal mask alone hides the padding
        hidden = policy.hidden_states(config.model, params["trunk"], tokens)
    scoring = Scoring(temperature=1.0, shards=layout.vocab_shards, entropy=False)
    scores = score_tokens(policy.lm_head(params), hidden, batch.tokens[:, 1:], scoring)
    return -jnp.sum(scores.logprobs * batch.scored[:, 1:])


def restart(segments: jax.Array) -> jax.Array:
    """Positions i32[B, L] that begin with 0 in each segment."""
    place = jnp.broadcast_to(jnp.arange(segments.shape[1])[None], segments.shape)
    begins = jnp.diff(segments, axis=1, prepend=segments[:, :1]) != 0
    return place - jax.lax.cummax(jnp.where(begins, place, 0), axis=1)


def gradient(
    config: Config, layout: Layout, trained: Params, frozen: Params, batch: TextBatch
) -> tuple[jax.Array, Params]:
    """The mean loss over all completion tokens of the batch, and its gradient.

    `frozen` is the rest of the parameters (see `models.lora`). Micro-batches are added up,
    each divided by the whole batch's count: their number changes nothing but the memory.
    """
    count = jnp.maximum(1, jnp.sum(batch.scored[:, 1:]))
    split = (config.sft.num_micro_batches, -1)
    parts = jax.tree.map(lambda x: x.reshape(*split, *x.shape[1:]), batch)

    def mean(trained: Params, part: TextBatch) -> jax.Array:
        return loss(config, layout, lora.graft(frozen, trained), part) / count

    def add(total: Any, part: TextBatch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(mean)(trained, part)), None

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained))
    return jax.lax.scan(add, zeros, layout.place(parts, 1))[0]


def step(
    config: Config,
    layout: Layout,
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: optax.OptState,
    batch: TextBatch,
) -> tuple[Params, optax.OptState, jax.Array]:
    """One pure update: new parameters, new optimizer state, the loss before it.

    A gradient or a loss that is not finite changes nothing, and the loss is nan then.
    """
    trained, frozen = lora.split(params)
    value, gradients = gradient(config, layout, trained, frozen, batch)
    is_sound = jnp.isfinite(optax.tree.norm(gradients)) & jnp.isfinite(value)
    changes, new_state = optimizer.update(gradients, opt_state, trained)
    new = (optax.apply_updates(trained, changes), new_state)
    trained, opt_state = jax.tree.map(
        lambda a, b: jnp.where(is_sound, a, b), new, (trained, opt_state)
    )
    return lora.graft(frozen, trained), opt_state, jnp.where(is_sound, value, jnp.nan)


def look(config: Config, layout: Layout, params: Params, batch: TextBatch) -> Params:
    """Of which parameters the gradient of an update is finite: a tree of bool[]."""
    gradients = gradient(config, layout, *lora.split(params), batch)[1]
    return jax.tree.map(lambda x: jnp.isfinite(jnp.sum(jnp.square(x))), gradients)


def make_schedule(config: SFTConfig, num_steps: int) -> optax.Schedule:
    """The rate of update 0, 1, ..., n - 1: linear warm-up, then linear decay; never 0.

    rate(i) = peak min((i + 1) / w, (n - i) / (n - w + 1)), w = max(1, warmup_fraction n):
    peak / w first, the peak at update w - 1, and what would be update n has a rate of 0.
    The paper's (section 4.2): 2e-5, warm-up over 0.3 of its 3 epochs.
    """
    warmup = max(1, int(config.warmup_fraction * num_steps))

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        rises = (jnp.asarray(count) + 1) / warmup
        falls = jnp.maximum(0, num_steps - count) / max(1, num_steps - warmup + 1)
        return config.learning_rate * jnp.minimum(rises, falls)

    return rate


def make_optimizer(config: SFTConfig, num_steps: int) -> optax.GradientTransformation:
    """AdamW on gradients clipped to a global norm of 1, at `make_schedule`'s rate.

    The paper names no optimizer; betas and clipping are those of its authors' later
    release. Decay acts on what `optimizers.decay_weights` says.
    """
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.chain(
            optax.scale_by_adam(b1=0.9, b2=0.95),
            decay_weights(config.weight_decay),
            optax.scale_by_learning_rate(make_schedule(config, num_steps)),
        ),
    )
