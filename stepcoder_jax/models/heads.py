"""Heads beside the value head that read hidden states: of the outcome, and of a pair.

A head is two layers, H -> 128 -> C, as CodeRL's critic has on its decoder (released code of
arXiv:2207.01780): {"inner": ..., "outer": ...}, each with "kernel" [in, out] and "bias".

    outcome   C = 4: CodeRL's error classes, `OUTCOMES`, at every token of a program
    pair      C = 1: a score s of a program, read at its last token; of two programs
              g = tanh(s(y0) - s(y1)) says which of them is the written one (RLCF)
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

Params = Any
Kind = Literal["outcome", "pair"]
Pool = Literal["logits", "hidden"]

WIDTH = 128
OUTCOMES = ("compile", "runtime", "failed", "passed")
OUTPUTS: dict[Kind, int] = {"outcome": len(OUTCOMES), "pair": 1}


def init_head(kind: Kind, hidden_size: int, key: jax.Array) -> Params:
    """A head whose outputs are 0 at first: all classes alike, all programs alike."""
    kernel = jax.random.normal(key, (hidden_size, WIDTH)) / jnp.sqrt(hidden_size)
    outputs = OUTPUTS[kind]
    return {
        "inner": {"kernel": kernel, "bias": jnp.zeros(WIDTH)},
        "outer": {"kernel": jnp.zeros((WIDTH, outputs)), "bias": jnp.zeros(outputs)},
    }


def apply_head(head: Params, hidden: jax.Array) -> jax.Array:
    """Outputs f32[..., C] of hidden states [..., H]."""
    read = jax.nn.relu(_apply(head["inner"], hidden.astype(jnp.float32)))
    return _apply(head["outer"], read)


def _apply(layer: Params, x: jax.Array) -> jax.Array:
    result = x @ layer["kernel"]
    return result + jnp.broadcast_to(layer["bias"], result.shape)


def highest(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Max over the tokens of the mask (bool[B, L]) of x [B, L, C]; -inf of none."""
    return jnp.max(jnp.where(mask[..., None], x, -jnp.inf), axis=1)


def outcome_logits(
    head: Params, hidden: jax.Array, mask: jax.Array, pool: Pool
) -> jax.Array:
    """Logits f32[B, 4] of whole programs; `mask` has the tokens of each.

    Max over tokens: of the logits, as CodeRL's released code, or of the hidden states, as
    its paper says (section 3.2.2). The code has no mask there, so padding takes part; here
    it has none.
    """
    if pool == "hidden":
        return apply_head(head, highest(hidden, mask))
    return highest(apply_head(head, hidden), mask)


def token_values(head: Params, hidden: jax.Array, outcome: jax.Array) -> jax.Array:
    """q_t f32[B, L] = softmax(logits_t)[u] of programs whose outcomes u i32[B] are known.

    What each token's logits say of what really came: arXiv:2207.01780, section 3.2.2.
    """
    chances = jax.nn.softmax(apply_head(head, hidden), axis=-1)
    return jnp.take_along_axis(chances, outcome[:, None, None], axis=-1)[..., 0]


def program_scores(head: Params, hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """s f32[B] of programs: the pair head at the last token of each mask."""
    last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    read = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    return apply_head(head, read)[:, 0]
