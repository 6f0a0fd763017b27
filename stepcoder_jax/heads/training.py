"""The loss of a head, and the loop that learns it over a trunk that stays as it is.

    outcome   cross-entropy of the class, over the pooled logits (arXiv:2207.01780, section
              3.2.2)
    pair      - log sigmoid(2 (s(written) - s(sampled))): (1 + tanh d) / 2 is sigmoid(2 d),
              so it is cross-entropy of the logits (d, -d). RLCF (arXiv:2305.18341) gives
              tanh; what loss it is learnt with is not said in what we could read.

Where we differ: both systems learn a network of their own. Here the trunk is the model's
and frozen, so that one forward pass of the reference serves it and all heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stepcoder_jax.config import ModelConfig
from stepcoder_jax.heads.samples import Batch, Sample, make_batch, width_of
from stepcoder_jax.models import heads, policy
from stepcoder_jax.models.heads import Kind, Pool

Params = Any
BATCH = 16  # samples in an update


class Learning(NamedTuple):
    """How a head is learnt."""

    kind: Kind
    pool: Pool = "logits"
    epochs: int = 3
    learning_rate: float = 1e-3
    seed: int = 0


class Learnt(NamedTuple):
    """The head of the epoch with the least loss on what is held out."""

    head: Params
    chances: np.ndarray  # f32[n, C] of the samples that are held out
    losses: list[float]  # theirs, after each epoch


def logits(
    model: ModelConfig, kind: Kind, pool: Pool, trunk: Params, head: Params, batch: Batch
) -> jax.Array:
    """Logits f32[B, C] of a batch's decisions."""
    hidden = jax.lax.stop_gradient(policy.hidden_states(model, trunk, batch.tokens))
    if kind == "outcome":
        return heads.outcome_logits(head, hidden, batch.mask, pool)
    scores = heads.program_scores(head, hidden, batch.mask).reshape(-1, 2)
    differs = scores[:, 0] - scores[:, 1]
    return jnp.stack([differs, -differs], axis=1)


def loss(
    model: ModelConfig, kind: Kind, pool: Pool, head: Params, trunk: Params, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy over the batch's samples, and the chances f32[B, C]."""
    found = logits(model, kind, pool, trunk, head, batch)
    each = optax.softmax_cross_entropy_with_integer_labels(found, batch.labels)
    mean = jnp.sum(each * batch.weights) / jnp.maximum(1.0, jnp.sum(batch.weights))
    return mean, jax.nn.softmax(found, axis=-1)


def learn(
    model: ModelConfig,
    trunk: Params,
    learnt: Sequence[Sample],
    held_out: Sequence[Sample],
    asked: Learning,
) -> Learnt:
    """A head learnt with Adam, sample by sample in an order that the seed gives."""
    optimizer = optax.adam(asked.learning_rate)
    measure = jax.jit(partial(loss, model, asked.kind, asked.pool))
    width = width_of([*learnt, *held_out])

    @jax.jit
    def step(head: Params, moments: Any, trunk: Params, batch: Batch) -> Any:
        find = partial(loss, model, asked.kind, asked.pool)
        gradient, _ = jax.grad(find, has_aux=True)(head, trunk, batch)
        changes, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(head, changes), moments

    def look(head: Params) -> tuple[float, np.ndarray]:
        total, chances = 0.0, []
        for start in range(0, len(held_out), BATCH):
            part = held_out[start : start + BATCH]
            mean, found = measure(head, trunk, make_batch(part, BATCH, width))
            total += float(mean) * len(part)
            chances.append(np.asarray(found)[: len(part)])
        return total / len(held_out), np.concatenate(chances)

    head = heads.init_head(asked.kind, model.hidden_size, jax.random.key(asked.seed))
    moments = optimizer.init(head)
    best, losses = None, list[float]()
    for epoch in range(asked.epochs):
        order = np.random.default_rng([asked.seed, epoch]).permutation(len(learnt))
        for start in range(0, len(order), BATCH):
            part = [learnt[place] for place in order[start : start + BATCH]]
            head, moments = step(head, moments, trunk, make_batch(part, BATCH, width))
        value, chances = look(head)
        losses.append(value)
        if best is None or value < min(losses[:-1]):
            best = jax.device_get(head), chances
    assert best is not None
    return Learnt(*best, losses)
