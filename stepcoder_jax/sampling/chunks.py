"""Decoding on the device: slots, each with one rollout, and chunks of tokens.

Everything here is pure and meant to be jitted; `slots` is the loop of the host around it.
Which tokens are drawn depends on (seed, step, rollout index, token index) alone: neither
the number of slots nor the order of rollouts can change a completion.

Letters: R slots, G prompts, W cache width, C tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from stepcoder_jax.models import decoding
from stepcoder_jax.models.transformer import HERE, LayerCache, Places
from stepcoder_jax.sampling.drawing import Truncation, draw_tokens

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig

Params = Any


class SamplerSettings(NamedTuple):
    """What is compiled into a sampler."""

    truncation: Truncation
    num_columns: int  # T, completion tokens at most
    chunk: int  # C
    eos_ids: tuple[int, ...]  # each of them ends a completion


class Prompts(NamedTuple):
    """Prompts that have been read, and wait for slots."""

    cache: decoding.KVCache  # of G rows and P slots
    logits: jax.Array  # f32[G, V], of the first completion token
    length: jax.Array  # i32[G]


class DecodeState(NamedTuple):
    """Everything between two chunks.

    Slot w of a row's cache holds the token at position w; C more slots on the right take
    the tokens of a chunk, one column for all rows, until they are moved to their places.
    """

    cache: decoding.KVCache  # of R rows and W + C slots
    logits: jax.Array  # f32[R, V], of the next token
    length: jax.Array  # i32[R], tokens in the cache
    drawn: jax.Array  # i32[R], completion tokens drawn
    live: jax.Array  # bool[R], a rollout is being continued here
    keys: jax.Array  # key[R], of the rollouts


class Chunk(NamedTuple):
    """What one call of `advance` drew; columns from `drawn` on mean nothing."""

    tokens: jax.Array  # i32[R, C]
    logprobs: jax.Array  # f32[R, C]
    kept_mass: jax.Array  # f32[R, C]
    drawn: jax.Array  # i32[R], tokens of each slot
    live: jax.Array  # bool[R], afterwards
    ended: jax.Array  # bool[R], by EOS


def empty_state(
    config: ModelConfig, settings: SamplerSettings, num_slots: int, width: int
) -> DecodeState:
    """`num_slots` slots without a rollout, for rows of at most `width` tokens."""
    heads, size, columns = config.num_kv_heads, config.head_dim, width + settings.chunk
    dtype = jnp.dtype(config.dtype)
    none = jnp.zeros(num_slots, jnp.int32)
    return DecodeState(
        cache=tuple(
            LayerCache(
                jnp.zeros((num_slots, heads, size, columns), dtype),
                jnp.zeros((num_slots, heads, columns, size), dtype),
            )
            for _ in range(config.num_layers)
        ),
        logits=jnp.zeros((num_slots, config.vocab_size), jnp.float32),
        length=none,
        drawn=none,
        live=jnp.zeros(num_slots, bool),
        keys=jax.vmap(jax.random.key)(none),
    )


def read_prompts(
    config: ModelConfig, actor: Params, tokens: jax.Array, prompt_length: jax.Array
) -> Prompts:
    """Read prompts i32[G, P], once for all their rollouts; length 0 marks padding."""
    length = jnp.maximum(prompt_length, 1)
    logits, cache = decoding.prefill(config, actor, tokens, length)
    return Prompts(cache, logits, length)


def fill_slots(
    state: DecodeState,
    prompts: Prompts,
    source: jax.Array,
    index: jax.Array,
    key: jax.Array,
) -> DecodeState:
    """Begin rollouts: slot r continues prompt source[r] i32[R]; -1 changes nothing.

    index i32[R] is the global rollout index, `key` that of the iteration,
    fold_in(key(seed), step). Slots must be at least as wide as the prompts.
    """
    new, row = source >= 0, jnp.maximum(source, 0)

    def choose(ours: jax.Array, theirs: jax.Array) -> jax.Array:
        return jnp.where(new.reshape(-1, *(1,) * (ours.ndim - 1)), theirs[row], ours)

    def place(ours: jax.Array, theirs: jax.Array) -> jax.Array:
        """Write the first slots only: attention reads no other before it is written."""
        start = (0,) * ours.ndim
        first = jax.lax.slice(ours, start, (ours.shape[0], *theirs.shape[1:]))
        return jax.lax.dynamic_update_slice(ours, choose(first, theirs), start)

    # Layer after layer: prompts' rows lie on other devices than the slots, and all layers'
    # at once, gathered, are as much again as all prompts are on one device.
    cache: list[LayerCache] = []
    for ours, theirs in zip(state.cache, prompts.cache, strict=True):
        if cache:
            theirs, cache[-1] = jax.lax.optimization_barrier((theirs, cache[-1]))
        cache.append(jax.tree.map(place, ours, theirs))

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    return DecodeState(
        cache=tuple(cache),
        logits=choose(state.logits, prompts.logits),
        length=choose(state.length, prompts.length),
        drawn=jnp.where(new, 0, state.drawn),
        live=state.live | new,
        keys=jnp.where(new, keys, state.keys),
    )


def resize(settings: SamplerSettings, state: DecodeState, width: int) -> DecodeState:
    """The same rollouts in slots of another width; live rows must fit into it."""

    def fit(array: jax.Array, axis: int) -> jax.Array:
        columns = width + settings.chunk
        array = jax.lax.slice_in_dim(array, 0, min(columns, array.shape[axis]), axis=axis)
        more = [(0, 0)] * array.ndim
        more[axis] = (0, columns - array.shape[axis])
        return jnp.pad(array, more)

    cache = tuple(LayerCache(fit(x.keys, 3), fit(x.values, 2)) for x in state.cache)
    return state._replace(cache=cache)


def settle(state: DecodeState, start: jax.Array, width: int) -> decoding.KVCache:
    """Move the chunk's columns, from slot `width` on, to their rows' places i32[R]."""

    def move(array: jax.Array, axis: int) -> jax.Array:
        columns = jax.lax.slice_in_dim(array, width, array.shape[axis], axis=axis)
        write = jax.vmap(
            lambda row, new, at: jax.lax.dynamic_update_slice_in_dim(row, new, at, axis - 1)
        )
        return write(array, columns, start)

    return tuple(LayerCache(move(x.keys, 3), move(x.values, 2)) for x in state.cache)


def advance(
    config: ModelConfig,
    settings: SamplerSettings,
    weights: Params,
    state: DecodeState,
    closed: jax.Array,
    enough: jax.Array,
    places: Places = HERE,
) -> tuple[DecodeState, Chunk]:
    """Decode C more tokens per slot; stop earlier once at most `enough` i32[] are live.

    `weights` are those of `decoding.prepare`; closed bool[R] marks the slots that the host
    has ended. Rows of at most W - C tokens fit.
    """
    chunk, columns = settings.chunk, settings.num_columns
    rows, width = state.live.shape[0], state.cache[0].keys.shape[3] - settings.chunk
    state = state._replace(live=state.live & ~closed)
    start, slots = state.length, jnp.arange(width + chunk)[None]
    settled = (slots < start[:, None]) & (slots < width)

    def decode_one(carry):
        column, state, drawn = carry
        keys = jax.vmap(jax.random.fold_in)(state.keys, state.drawn)
        uniform = jax.vmap(jax.random.uniform)(keys)
        token, logprob, mass = draw_tokens(state.logits, uniform, settings.truncation)
        keep = settled | ((slots >= width) & (slots <= width + column))
        if config.sliding_window:
            place = jnp.where(slots < width, slots, start[:, None] + slots - width)
            keep &= place > state.length[:, None] - config.sliding_window
        logits, cache = decoding.decode(
            config, weights, state.cache, token, state.length, width + column, keep, places
        )
        is_eos = jnp.isin(token, jnp.asarray(settings.eos_ids))
        live = state.live & ~is_eos & (state.drawn + 1 < columns)
        state = DecodeState(
            cache, logits, state.length + 1, state.drawn + 1, live, state.keys
        )

        def write(array, values):
            return jax.lax.dynamic_update_slice_in_dim(array, values[:, None], column, 1)

        drawn = Chunk(
            tokens=write(drawn.tokens, token),
            logprobs=write(drawn.logprobs, logprob),
            kept_mass=write(drawn.kept_mass, mass),
            drawn=drawn.drawn + drawn.live,
            live=live,
            ended=drawn.ended | (drawn.live & is_eos),
        )
        return column + 1, state, drawn

    def unfinished(carry) -> jax.Array:
        return (carry[0] < chunk) & (jnp.sum(carry[1].live) > enough)

    empty = jnp.zeros((rows, chunk), jnp.float32)
    none = jnp.zeros(rows, jnp.int32)
    drawn = Chunk(
        empty.astype(jnp.int32), empty, empty, none, state.live, jnp.zeros(rows, bool)
    )
    _, state, drawn = jax.lax.while_loop(
        unfinished, decode_one, (jnp.zeros((), jnp.int32), state, drawn)
    )
    return state._replace(cache=settle(state, start, width)), drawn
