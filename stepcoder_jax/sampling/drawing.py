"""Drawing tokens: truncation by top-k, top-p and min-p, and the inverse CDF.

Nothing here sorts the vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Truncation(NamedTuple):
    """How the distribution is drawn from; what is compiled into a sampler."""

    temperature: float  # 0: greedy
    top_p: float = 1.0  # 1: off
    top_k: int = 0  # 0: off
    min_p: float = 0.0  # 0: off


def kept_floor(probs: jax.Array, truncation: Truncation) -> jax.Array:
    """The smallest probability that is kept, f32[B, 1], of probs f32[B, V].

    A token is kept iff the tokens more probable than it hold less than top_p together
    (arXiv:1904.09751, section 3.1) and are fewer than top_k (arXiv:1805.04833, section
    5.4), and its own probability is at least min_p times the largest (arXiv:2407.01082,
    eq. 1). Differs: the top-p and top-k rules both look at the whole distribution, and
    tokens of equal probability are kept or dropped together. Found without sorting:
    positive floats are ordered as their bits are, so 31 halvings over the bits give the
    exact float.
    """
    top_p, top_k, min_p = truncation.top_p, truncation.top_k, truncation.min_p

    def enough(bits: jax.Array) -> jax.Array:
        """Whether all tokens above this float, and the next one below them, are kept."""
        above = probs > jax.lax.bitcast_convert_type(bits, jnp.float32)
        holds = jnp.ones((probs.shape[0], 1), bool)
        if top_p < 1.0:
            mass = jnp.sum(jnp.where(above, probs, 0.0), axis=-1, keepdims=True)
            holds &= mass < top_p
        if top_k:
            holds &= jnp.sum(above, axis=-1, keepdims=True) < top_k
        return holds

    def halve(_, bounds):
        low, high = bounds  # enough(low) fails, or low = -1; enough(high) holds
        middle = jnp.maximum(low + (high - low) // 2, 0)
        holds = enough(middle)
        return jnp.where(holds, low, middle), jnp.where(holds, middle, high)

    floor = min_p * probs.max(axis=-1, keepdims=True)
    if top_p == 1.0 and not top_k:
        return floor
    one = jnp.full((probs.shape[0], 1), 0x3F800000, jnp.int32)  # the bits of 1.0
    _, bits = jax.lax.fori_loop(0, 31, halve, (jnp.full_like(one, -1), one))
    return jnp.maximum(floor, jax.lax.bitcast_convert_type(bits, jnp.float32))


def first_above(weights: jax.Array, target: jax.Array) -> jax.Array:
    """The first index whose cumulative weight exceeds target f32[B], i32[B].

    weights f32[B, n] >= 0. An index of weight 0 never does it first; where rounding leaves
    none, the last of positive weight.
    """
    below = jnp.cumsum(weights, axis=-1) <= target[:, None]
    last = weights.shape[-1] - 1 - jnp.argmax((weights > 0)[:, ::-1], axis=-1)
    return jnp.minimum(jnp.sum(below, axis=-1), last)


def invert_cdf(probs: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The token at `uniform` f32[B] in [0, 1) of probs f32[B, V], and their sum f32[B].

    In two steps, first among blocks of about sqrt(V) tokens, then in the block: running
    sums over a whole vocabulary are slow.
    """
    rows, size = probs.shape
    width = math.isqrt(size - 1) + 1
    blocks = jnp.pad(probs, ((0, 0), (0, -size % width))).reshape(rows, -1, width)
    mass = blocks.sum(axis=-1)
    total = mass.sum(axis=-1)
    target = uniform * total
    block = first_above(mass, target)
    before = jnp.sum(
        jnp.where(jnp.arange(mass.shape[1])[None] < block[:, None], mass, 0), axis=-1
    )
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return block * width + first_above(inside, target - before), total


def draw_tokens(
    logits: jax.Array, uniform: jax.Array, truncation: Truncation
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One token per row: (token i32[B], logprob f32[B], kept mass f32[B]).

    The token is the inverse CDF of the truncated distribution at `uniform` f32[B] in
    [0, 1). logprob is of softmax(logits / temperature) over the full vocabulary, the
    truncation ignored. Temperature 0 takes the argmax, with its logprob at temperature 1.
    """
    temperature = truncation.temperature
    scaled = logits if temperature == 0 else logits / temperature
    top = scaled.max(axis=-1, keepdims=True)
    weights = jnp.exp(scaled - top)
    total = weights.sum(axis=-1, keepdims=True)
    if temperature == 0:
        token, mass = jnp.argmax(logits, axis=-1), jnp.ones_like(uniform)
    else:
        probs = weights / total
        if truncation[1:] != Truncation(0)[1:]:
            probs = jnp.where(probs >= kept_floor(probs, truncation), probs, 0.0)
        token, mass = invert_cdf(probs, uniform)
    chosen = jnp.take_along_axis(scaled - top, token[:, None], axis=-1)
    logprob = (chosen - jnp.log(total))[:, 0]
    return token.astype(jnp.int32), logprob, jnp.minimum(mass, 1.0)
