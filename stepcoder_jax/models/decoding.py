"""The decoder one token at a time: prompts in, then logits of each next token.

The same blocks as `transformer`, run over a KV cache. Letters: B rows, P prompt length,
S cache slots, N layers, H hidden size, K key heads, D head size, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from stepcoder_jax.models import policy
from stepcoder_jax.models.rotary import rotary_angles
from stepcoder_jax.models.transformer import (
    HERE,
    Block,
    CacheView,
    LayerCache,
    Places,
    make_norm,
)

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig

Params = Any
KVCache = tuple[LayerCache, ...]  # one per layer, so that each is updated in place


def prepare(config: ModelConfig, actor: Params) -> Params:
    """The actor as `decode` reads it: layers apart, matrices in the activations' dtype.

    {"embed": [V, H], "layers": (layer, ...), "norm": ...}, and "head": [H, V] where it is
    not the embedding. Made once for
    many tokens: stacked layers would be copied out of their stack, and float32 weights
    cast, at every token. The numbers are those of training, which casts them as it goes.
    """
    dtype = jnp.dtype(config.dtype)
    trunk = actor["trunk"]

    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        is_norm = "norm" in jax.tree_util.keystr(path)
        return leaf if is_norm else leaf.astype(dtype)  # norms are float32 in training too

    trunk = jax.tree_util.tree_map_with_path(cast, trunk)
    weights = {
        "embed": trunk["embed_tokens"]["embedding"],
        "layers": tuple(
            jax.tree.map(lambda leaf, n=n: leaf[n], trunk["layers"])
            for n in range(config.num_layers)
        ),
        "norm": trunk["norm"],
    }
    if "lm_head" in actor:
        weights["head"] = actor["lm_head"]["kernel"].astype(dtype)
    return weights


def prefill(
    config: ModelConfig, actor: Params, tokens: jax.Array, prompt_length: jax.Array
) -> tuple[jax.Array, KVCache]:
    """Read prompts i32[B, P]: logits f32[B, V] of the first completion token, the cache.

    Takes the actor as it is trained. Slot p of the cache holds position p, of the
    padding too: whoever decodes must not keep those slots. prompt_length i32[B] >= 1.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    hidden, new = policy.apply_trunk(config, actor["trunk"], tokens, positions)
    keys, values = new[0].transpose(0, 1, 3, 4, 2), new[1].swapaxes(2, 3)
    cache = tuple(LayerCache(keys[n], values[n]) for n in range(config.num_layers))
    last = policy.gather_columns(hidden, prompt_length, 1)[:, 0]
    return policy.apply_lm_head(actor, last), cache


def decode(
    config: ModelConfig,
    weights: Params,
    cache: KVCache,
    token: jax.Array,
    position: jax.Array,
    slot: jax.Array,
    keep: jax.Array,
    places: Places = HERE,
) -> tuple[jax.Array, KVCache]:
    """Read one more token per row: logits f32[B, V] of the next, and the longer cache.

    `weights` are those of `prepare`. token i32[B] stands at position i32[B] of its row and
    goes to cache slot i32[], the same for all rows; keep bool[B, S] are the slots that it
    sees, its own among them. `places` says where each token is computed.
    """
    x = places.whole(jnp.take(weights["embed"], places.whole(token), axis=0)[:, None])
    angles = rotary_angles(config, position[:, None])
    longer = []
    for layer, kept in zip(weights["layers"], cache, strict=True):
        view = CacheView(kept, slot, keep, places)
        applied: Any = Block(config).apply({"params": layer}, x, angles, view, None)
        x = applied[0]
        longer.append(applied[1])
    normed: Any = make_norm(config, "norm").apply({"params": weights["norm"]}, x)
    hidden = normed[:, 0]
    head = weights.get("head")
    equation, matrix = (
        ("bh,vh->bv", weights["embed"]) if head is None else ("bh,hv->bv", head)
    )
    logits = jnp.einsum(equation, hidden, matrix, preferred_element_type=jnp.float32)
    return places.rows(logits), tuple(longer)
