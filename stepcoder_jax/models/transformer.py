"""The decoder: Llama's blocks, stacked under one scan, with an explicit KV cache.

RMSNorm (arXiv:1910.07467), rotary positions (arXiv:2104.09864, in the half-rotation layout
of Hugging Face checkpoints), SwiGLU (arXiv:2002.05202) and grouped-query attention
(arXiv:2305.13245). Letters: B rows, L positions, S cache slots, N layers, H hidden size,
K key heads, D head size.

Rows are packed from the left, so a causal mask alone hides the padding: a real position
sees only positions to its left, and those are all real.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig


class KVCache(NamedTuple):
    """Keys and values of the tokens seen so far, one slot per token.

    The order of slots means nothing to attention; `keep` says which of them a row may
    see. All rows write the same slot at the same time, whatever their positions.
    """

    keys: jax.Array  # dtype[N, B, K, D, S], already rotated; slots last: 6 times faster
    values: jax.Array  # dtype[N, B, K, S, D]
    keep: jax.Array  # bool[B, S]


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * scale, in float32."""

    eps: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return (x * scale.astype(jnp.float32)[None, None]).astype(self.dtype)


def rotary_angles(
    positions: jax.Array, head_dim: int, theta: float, factor: float
) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of position / factor * theta^(-2i / D), f32[B, L, D / 2] each."""
    exponent = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    frequency = theta**-exponent
    angles = (positions.astype(jnp.float32) / factor)[..., None] * frequency[None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate the pairs (x[i], x[i + D / 2]) of every head; x is [B, L, heads, D]."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def attend_cached(
    query: jax.Array, cached: tuple, keep: jax.Array, own: tuple
) -> jax.Array:
    """One new token per row attends to the kept cache slots and to itself.

    query [B, 1, heads, D]; cached = one layer's (keys [B, K, D, S], values [B, K, S, D]);
    keep bool[B, S]; own = the new token's (key, value), [B, 1, K, D] each, not yet in the
    cache. Returns [B, 1, heads, D].
    """
    keys, values = cached
    rows, _, heads, size = query.shape
    own_key, own_value = (x.swapaxes(1, 2) for x in own)  # [B, K, 1, D]
    kv_heads = keys.shape[1]
    query = query.reshape(rows, kv_heads, heads // kv_heads, size)
    scores = jnp.einsum("bkgd,bkds->bkgs", query, keys, preferred_element_type=jnp.float32)
    scores = jnp.where(keep[:, None, None], scores, -jnp.inf)
    own_score = jnp.sum(query * own_key, axis=-1, keepdims=True, dtype=jnp.float32)
    scores, own_score = scores / math.sqrt(size), own_score / math.sqrt(size)
    top = jnp.maximum(scores.max(axis=-1, keepdims=True), own_score)
    weights, own_weight = jnp.exp(scores - top), jnp.exp(own_score - top)
    total = weights.sum(axis=-1, keepdims=True) + own_weight
    mixed = jnp.einsum(
        "bkgs,bksd->bkgd",
        (weights / total).astype(values.dtype),
        values,
        preferred_element_type=jnp.float32,
    )
    mixed = mixed + own_weight / total * own_value.astype(jnp.float32)
    return mixed.reshape(rows, 1, heads, size).astype(query.dtype)


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + SwiGLU(norm(x)).

    Returns the new x and this layer's (keys, values) of the positions given, [B, L, K, D].
    """

    config: ModelConfig

    def dense(self, features: int, name: str, scale: float = 1.0) -> nn.Dense:
        return nn.Dense(
            features,
            use_bias=False,
            name=name,
            dtype=jnp.dtype(self.config.dtype),
            kernel_init=nn.initializers.variance_scaling(scale, "fan_in", "normal"),
        )

    @nn.compact
    def __call__(self, x, angles, cached, keep):
        config = self.config
        dtype = jnp.dtype(config.dtype)
        rows, width = x.shape[:2]
        # residual branches start small, so that depth does not change the scale of x
        branch = 1.0 / (2 * config.num_layers)

        h = RMSNorm(config.norm_eps, dtype, name="input_layernorm")(x)
        heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        query, key, value = (
            self.dense(n * config.head_dim, name)(h).reshape(rows, width, n, -1)
            for n, name in zip(heads, ("q_proj", "k_proj", "v_proj"))
        )
        query, key = rotate(query, *angles), rotate(key, *angles)
        if cached is None:
            h = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        else:
            h = attend_cached(query, cached, keep, own=(key, value))
        x = x + self.dense(config.hidden_size, "o_proj", branch)(h.reshape(rows, width, -1))

        h = RMSNorm(config.norm_eps, dtype, name="post_attention_layernorm")(x)
        gate = self.dense(config.intermediate_size, "gate_proj")(h)
        up = self.dense(config.intermediate_size, "up_proj")(h)
        x = x + self.dense(config.hidden_size, "down_proj", branch)(nn.silu(gate) * up)
        return x, (key, value)


class Trunk(nn.Module):
    """Embedding, layers, final norm: tokens i32[B, L] -> hidden states dtype[B, L, H].

    Also returns the (keys, values) of these positions, dtype[N, B, L, K, D] each.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, tokens: jax.Array, positions: jax.Array, cache: KVCache | None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        config = self.config
        embedding = nn.Embed(
            config.vocab_size,
            config.hidden_size,
            dtype=jnp.dtype(config.dtype),
            embedding_init=nn.initializers.normal(0.02),
            name="embed_tokens",
        )
        angles = rotary_angles(
            positions, config.head_dim, config.rope_theta, config.rope_factor
        )
        block: type[nn.Module] = Block
        if config.remat:
            block = nn.remat(Block, prevent_cse=False)  # scan keeps CSE out by itself
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, 0, nn.broadcast),
            length=config.num_layers,
        )(config, name="layers")
        cached, keep = (None, None) if cache is None else (cache[:2], cache.keep)
        x, new = layers(embedding(tokens), angles, cached, keep)
        return RMSNorm(config.norm_eps, jnp.dtype(config.dtype), name="norm")(x), new
