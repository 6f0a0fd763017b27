"""Where an update is not finite: of which parameters, and by which rows.

For an update that was left out (see `updates.update`), whose state and experience are
still there. It is computed again, each micro-batch by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from stepcoder_jax.learning import updates
from stepcoder_jax.learning.batching import Layout, split_by_length, switch_width, trim
from stepcoder_jax.pytrees import Experience, TrainState

if TYPE_CHECKING:
    from stepcoder_jax.config import Config


class Soundness(NamedTuple):
    """What of one update is finite; its n micro-batches are parts of its R rows."""

    rows: Any  # i32[n, R / n], which rows of the update each micro-batch has
    losses: Any  # bool[n]
    gradients: Any  # a tree like (actor, critic) of bool[n]
    total: Any  # the same of bool[], of their sum


def look(
    algorithm: updates.Algorithm,
    config: Config,
    state: TrainState,
    batch: Experience,
    layout: Layout,
) -> Soundness:
    """What is finite of the update of `state` by the rows of one minibatch.

    A gradient is, of which the sum of squares is: that is what it is clipped by.
    """
    current, frozen = updates.split_state(state)
    params = (current.actor, current.critic)
    loss = updates.minibatch_loss(algorithm, config, frozen, batch, layout)
    length, full = batch.length, batch.tokens.shape[1]
    parts, order = split_by_length((batch, length), length, config.ppo.num_micro_batches)
    compute = jax.value_and_grad(loss, has_aux=True)

    def are_finite(tree: Any) -> Any:
        return jax.tree.map(lambda x: jnp.isfinite(jnp.sum(jnp.square(x))), tree)

    def visit(total: Any, part: Any) -> tuple[Any, Any]:
        rows, length = part
        (value, _), gradient = switch_width(
            config.ppo.widths,
            full,
            length,
            lambda width: compute(params, trim(rows, full, width)),
        )
        found = jnp.isfinite(value), are_finite(gradient)
        return jax.tree.map(jnp.add, total, gradient), found

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, (losses, gradients) = jax.lax.scan(visit, zeros, layout.place(parts, 1))
    rows = order.reshape(config.ppo.num_micro_batches, -1)
    return Soundness(rows, losses, gradients, are_finite(total))


def name_unsound(tree: Any) -> list[str]:
    """Paths of the leaves of a tree of host booleans that are not True throughout."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if not leaf.all()
    ]


def describe(names: list[str]) -> str:
    """What is said of parameters whose gradient is not finite; of none it is the loss."""
    if not names:
        return "the loss is not finite"
    others = len(names) - 1
    more = f" (and of {others} other parameters)" if others else ""
    return f"the gradient of {names[0]}{more} is not finite"
