"""Minibatches, and micro-batches of rows of like length that are trimmed to their width
inside one program; and the little that pure steps must know of the devices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from stepcoder_jax.learning.metrics import step_metrics
from stepcoder_jax.pytrees import Experience

if TYPE_CHECKING:
    from stepcoder_jax.config import Config
    from stepcoder_jax.learning.metrics import Logged, Metrics

Params = Any


class Layout(NamedTuple):
    """How arrays lie on the devices; `sharding.layout` makes one from a mesh."""

    place: Callable[[Any, int], Any]  # (tree, axis): pins that axis to the batch's devices
    vocab_shards: int  # devices that the vocabulary is split over


# apart from the keys of sampling, whose first fold is the iteration
SHUFFLE_STREAM = 0x7FFFFFFF
ONE_DEVICE = Layout(lambda tree, axis: tree, vocab_shards=1)


def split_by_length(tree: Any, length: jax.Array, parts: int) -> tuple[Any, jax.Array]:
    """[B, ...] -> [parts, B / parts, ...], rows of like length together; and the order.

    So the parts differ in width and most of them can be trimmed (see `switch_width`).
    """
    order = jnp.argsort(length)
    split = jax.tree.map(
        lambda x: x[order].reshape(parts, x.shape[0] // parts, *x.shape[1:]), tree
    )
    return split, order


def join_rows(tree: Any, order: jax.Array) -> Any:
    """The inverse of `split_by_length`."""
    back = jnp.argsort(order)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[back], tree)


def switch_width(
    widths: tuple[int, ...], full: int, length: jax.Array, compute: Callable[[int], Any]
) -> Any:
    """`compute(width)` at the smallest of `widths` that holds the rows, else at `full`.

    All widths are compiled into the one program and the lengths choose among them while it
    runs, so padding costs little and nothing is ever compiled again. Rows are packed from
    the left: what is trimmed is padding, and the results are the same.
    """
    choices = [*sorted(width for width in widths if width < full), full]
    if len(choices) == 1:
        return compute(full)
    index = jnp.searchsorted(jnp.asarray(choices), length.max())
    branches = [partial(compute, width) for width in choices]
    return jax.lax.switch(index, branches)


def trim(tree: Any, full: int, width: int) -> Any:
    """Cut the second axis of arrays to the columns that rows of `width` tokens can have."""

    def cut(x: jax.Array) -> jax.Array:
        return x[:, : width if x.shape[1] == full else min(width, x.shape[1])]

    return jax.tree.map(lambda x: cut(x) if x.ndim > 1 else x, tree)


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
