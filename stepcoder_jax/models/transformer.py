"""The decoder: one block for all families, stacked under one scan; `decoding` runs it on a
KV cache.

RMSNorm (arXiv:1910.07467), rotary positions, SwiGLU (arXiv:2002.05202), grouped-query
attention (arXiv:2305.13245) and a sliding window (arXiv:2310.06825); `families` says who
differs how. Letters: B rows, L positions, S cache slots, N layers, H hidden size, K key
heads, D head size.

Rows are packed from the left, so a causal mask alone hides the padding: a real position
sees only positions to its left, and those are all real.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from stepcoder_jax.models import lora
from stepcoder_jax.models.attention import attend
from stepcoder_jax.models.families import FAMILIES
from stepcoder_jax.models.products import embed
from stepcoder_jax.models.rotary import rotary_angles, rotate

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig


class LayerCache(NamedTuple):
    """Keys and values of one layer, one slot per token in whatever order."""

    keys: jax.Array  # dtype[B, K, D, S], already rotated; slots last: 6 times faster
    values: jax.Array  # dtype[B, K, S, D]


class Places(NamedTuple):
    """What pins arrays of one token to devices; `sharding.places` makes them."""

    whole: Callable[[jax.Array], jax.Array]  # rows together, for products with weights
    columns: Callable[[jax.Array], jax.Array]  # the last axis, as such a product leaves it
    rows: Callable[[jax.Array], jax.Array]  # a product's columns to the rows' caches


HERE = Places(*(lambda x: x,) * 3)  # the compiler's own choice


class CacheView(NamedTuple):
    """One layer's cache, where the new tokens go in it, and what they may see."""

    layer: LayerCache
    slot: jax.Array  # i32[], the same for all rows
    keep: jax.Array  # bool[B, S], the new token's own slot included
    places: Places


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * scale, in float32."""

    eps: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        scale = scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
        return (x * scale).astype(self.dtype)


def make_norm(config: ModelConfig, name: str) -> nn.Module:
    """The family's norm, in float32."""
    dtype = jnp.dtype(config.dtype)
    if FAMILIES[config.family].norm == "rms":
        return RMSNorm(config.norm_eps, dtype, name=name)
    return nn.LayerNorm(config.norm_eps, dtype=dtype, use_fast_variance=False, name=name)


def write_slot(view: CacheView, key: jax.Array, value: jax.Array) -> LayerCache:
    """The cache with one new token per row, key and value [B, 1, K, D], in its slot."""
    update = jax.lax.dynamic_update_slice_in_dim
    return LayerCache(
        update(view.layer.keys, key.transpose(0, 2, 3, 1), view.slot, axis=3),
        update(view.layer.values, value.swapaxes(1, 2), view.slot, axis=2),
    )


def attend_cached(query: jax.Array, cache: LayerCache, keep: jax.Array) -> jax.Array:
    """One new token per row attends to the kept slots, its own among them.

    query [B, 1, heads, D], keep bool[B, S]; returns [B, 1, heads, D]. Softmax in float32.
    """
    keys, values = cache
    rows, _, heads, size = query.shape
    query = query.reshape(rows, keys.shape[1], -1, size)
    scores = jnp.einsum("bkgd,bkds->bkgs", query, keys, preferred_element_type=jnp.float32)
    scores = jnp.where(keep[:, None, None], scores / math.sqrt(size), -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    mixed = jnp.einsum(
        "bkgs,bksd->bkgd", weights, values, preferred_element_type=jnp.float32
    )
    return mixed.reshape(rows, 1, heads, size).astype(query.dtype)


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x)).

    Without a view of a cache the L positions attend among themselves, and the second result
    is their (keys, values), [B, L, K, D]; with one (L = 1) it is the longer cache. With
    segments i32[B, L] a position attends within its own.
    """

    config: ModelConfig

    def dense(self, features: int, name: str, scale: float = 1.0) -> lora.Dense:
        return lora.Dense(
            features,
            alpha=self.config.lora_alpha,
            use_bias=name in FAMILIES[self.config.family].biased,
            name=name,
            dtype=jnp.dtype(self.config.dtype),
            kernel_init=nn.initializers.variance_scaling(scale, "fan_in", "normal"),
        )

    def heads(self, h: jax.Array, count: int, name: str, places: Places) -> jax.Array:
        """A projection of h as [B, L, count, D]; Qwen3 norms queries and keys."""
        config = self.config
        x = places.rows(self.dense(count * config.head_dim, f"{name}_proj")(h))
        x = x.reshape(*h.shape[:2], count, config.head_dim)
        if name != "v" and FAMILIES[config.family].qk_norm:
            x = RMSNorm(config.norm_eps, jnp.dtype(config.dtype), name=f"{name}_norm")(x)
        return x

    def mlp(self, h: jax.Array, branch: float) -> jax.Array:
        config, family = self.config, FAMILIES[self.config.family]
        if family.gated:
            gate = nn.silu(self.dense(config.intermediate_size, "gate_proj")(h))
            h = gate * self.dense(config.intermediate_size, "up_proj")(h)
        else:
            h = nn.gelu(self.dense(config.intermediate_size, "up_proj")(h))
        return self.dense(config.hidden_size, "down_proj", branch)(h)

    @nn.compact
    def __call__(self, x, angles, view: CacheView | None, segments: jax.Array | None):
        config = self.config
        # residual branches start small, so that depth does not change the scale of x
        branch = 1.0 / (2 * config.num_layers)

        h = make_norm(config, "input_layernorm")(x)
        places = HERE if view is None else view.places
        query = rotate(self.heads(h, config.num_heads, "q", places), *angles)
        key = rotate(self.heads(h, config.num_kv_heads, "k", places), *angles)
        value = self.heads(h, config.num_kv_heads, "v", places)
        if view is None:
            h, kept = attend(config, query, key, value, segments), (key, value)
        else:
            kept = write_slot(view, key, value)
            h = attend_cached(query, kept, view.keep)
        h = h.reshape(*x.shape[:2], -1)
        h = self.dense(config.hidden_size, "o_proj", branch)(places.columns(h))
        x = x + places.whole(h)
        h = self.mlp(make_norm(config, "post_attention_layernorm")(x), branch)
        x = x + places.whole(h)
        return x, kept


# What the backward pass keeps of a layer, where `remat` is on.
REMAT_POLICIES = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Embedding(nn.Module):
    """tokens i32[B, L] -> rows dtype[B, L, H] of the table f32[V, H]."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        shape = (self.config.vocab_size, self.config.hidden_size)
        table = self.param("embedding", nn.initializers.normal(0.02), shape)
        return embed(table, tokens, jnp.dtype(self.config.dtype))


class Trunk(nn.Module):
    """Embedding, layers, final norm: tokens i32[B, L] -> hidden states dtype[B, L, H].

    Also returns the (keys, values) of these positions, dtype[N, B, L, K, D] each.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segments: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        config = self.config
        embedding = Embedding(config, name="embed_tokens")
        angles = rotary_angles(config, positions)
        block: type[nn.Module] = Block
        if config.remat:
            # scan keeps CSE out by itself
            keeps = REMAT_POLICIES[config.remat_policy]
            block = nn.remat(Block, prevent_cse=False, policy=keeps)
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast,) * 3,
            length=config.num_layers,
            unroll=config.unroll,
        )(config, name="layers")
        x, new = layers(embedding(tokens), angles, None, segments)
        return make_norm(config, "norm")(x), new
