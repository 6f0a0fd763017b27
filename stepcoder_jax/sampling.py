"""Rollouts: read the prompts once, then decode in chunks of tokens.

`start`, `advance` and `finish` are pure and meant to be jitted; `sample` is the loop of the
host around them, which looks for stop strings between two chunks. Which tokens are drawn
depends on (seed, step, rollout index, token index) alone: neither the batch size nor the
order of rows can change a completion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stepcoder_jax.models import policy
from stepcoder_jax.models.transformer import KVCache
from stepcoder_jax.pytrees import PromptBatch, Rollout

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig

Params = Any
FindStop = Callable[[list[int]], int | None]


class SamplerSettings(NamedTuple):
    """What is compiled into a sampler; temperature 0 means greedy."""

    num_columns: int  # T
    temperature: float
    top_p: float
    chunk: int
    eos_id: int
    group: int  # consecutive rows that share a prompt, which is then read once; 1: none


class DecodeState(NamedTuple):
    """Everything between two tokens."""

    cache: KVCache
    logits: jax.Array  # f32[B, V], of the next token
    column: jax.Array  # i32[], tokens decoded so far
    ended: jax.Array  # bool[B], by EOS or a stop string
    kept: jax.Array  # i32[B], completion tokens that count
    tokens: jax.Array  # i32[B, P + T]; what lies right of the kept ones is cleared at last
    prompt_length: jax.Array  # i32[B]
    completion: jax.Array  # i32[B, T]
    logprobs: jax.Array  # f32[B, T]
    kept_mass: jax.Array  # f32[B, T]
    row_keys: jax.Array  # key[B]


def nucleus_floor(probs: jax.Array, top_p: float) -> jax.Array:
    """The smallest probability that the nucleus keeps, f32[B, 1], of probs f32[B, V].

    A token is kept iff the tokens more probable than it hold less than top_p together
    (arXiv:1904.09751, section 3.1). Differs: tokens of equal probability are kept or
    dropped together. Found without sorting: positive floats are ordered as their bits are,
    so 31 halvings over the bits give the exact float.
    """

    def mass_above(bits: jax.Array) -> jax.Array:
        floor = jax.lax.bitcast_convert_type(bits, jnp.float32)
        return jnp.sum(jnp.where(probs > floor, probs, 0.0), axis=-1, keepdims=True)

    def halve(_, bounds):
        low, high = (
            bounds  # mass_above(low) >= top_p, or low = -1; mass_above(high) < top_p
        )
        middle = low + (high - low) // 2
        enough = mass_above(middle) < top_p
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    one = jnp.full((probs.shape[0], 1), 0x3F800000, jnp.int32)  # the bits of 1.0
    _, floor = jax.lax.fori_loop(0, 31, halve, (jnp.full_like(one, -1), one))
    return jax.lax.bitcast_convert_type(floor, jnp.float32)


def draw_tokens(
    logits: jax.Array, uniform: jax.Array, temperature: float, top_p: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One token per row: (token i32[B], logprob f32[B], kept mass f32[B]).

    The token is the inverse CDF of the truncated distribution at `uniform` f32[B] in
    [0, 1). logprob is of softmax(logits / temperature) over the full vocabulary, the
    truncation ignored. Temperature 0 takes the argmax, with its logprob at temperature 1.
    """
    scaled = logits if temperature == 0 else logits / temperature
    top = scaled.max(axis=-1, keepdims=True)
    weights = jnp.exp(scaled - top)
    total = weights.sum(axis=-1, keepdims=True)
    if temperature == 0:
        token = jnp.argmax(logits, axis=-1)
        mass = jnp.ones_like(uniform)
    else:
        probs = weights / total
        if top_p < 1.0:
            probs = jnp.where(probs >= nucleus_floor(probs, top_p), probs, 0.0)
        cumulative = jnp.cumsum(probs, axis=-1)
        mass = cumulative[:, -1]
        # the first token whose cumulative mass exceeds u * mass: one of probability 0
        # never does it first
        below = cumulative <= (uniform * mass)[:, None]
        last = probs.shape[-1] - 1 - jnp.argmax((probs > 0)[:, ::-1], axis=-1)
        token = jnp.minimum(jnp.sum(below, axis=-1), last)
    chosen = jnp.take_along_axis(scaled - top, token[:, None], axis=-1)
    logprob = (chosen - jnp.log(total))[:, 0]
    return token.astype(jnp.int32), logprob, jnp.minimum(mass, 1.0)


def start(
    config: ModelConfig,
    settings: SamplerSettings,
    actor: Params,
    batch: PromptBatch,
    key: jax.Array,
) -> DecodeState:
    """Read the prompts. `key` is that of the iteration: fold_in(key(seed), step).

    With `settings.group` n, rows i * n .. i * n + n - 1 must have the same prompt.
    A row of prompt_length 0 is padding of the batch: it ends before it begins.
    """
    tokens, prompt_length = jnp.asarray(batch.tokens), jnp.asarray(batch.prompt_length)
    rows, columns, group = tokens.shape[0], settings.num_columns, settings.group
    logits, cache = policy.prefill(
        config, actor, tokens[::group], jnp.maximum(prompt_length[::group], 1), columns
    )
    if group > 1:
        logits = jnp.repeat(logits, group, axis=0)
        keys, values = (jnp.repeat(x, group, axis=1) for x in cache[:2])
        cache = KVCache(keys, values, jnp.repeat(cache.positions, group, axis=0))
    return DecodeState(
        cache=cache,
        logits=logits,
        column=jnp.zeros((), jnp.int32),
        ended=prompt_length == 0,
        kept=jnp.zeros(rows, jnp.int32),
        tokens=jnp.pad(tokens, ((0, 0), (0, columns))),
        prompt_length=prompt_length,
        completion=jnp.zeros((rows, columns), jnp.int32),
        logprobs=jnp.zeros((rows, columns), jnp.float32),
        kept_mass=jnp.zeros((rows, columns), jnp.float32),
        row_keys=jax.vmap(jax.random.fold_in, (None, 0))(key, batch.index),
    )


def advance(
    config: ModelConfig, settings: SamplerSettings, actor: Params, state: DecodeState
) -> DecodeState:
    """Decode `settings.chunk` tokens more, fewer when all rows have ended before."""
    width = state.tokens.shape[1] - settings.num_columns
    until = jnp.minimum(state.column + settings.chunk, settings.num_columns)

    def decode_one(state: DecodeState) -> DecodeState:
        column = state.column
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.row_keys, column)
        uniform = jax.vmap(jax.random.uniform)(keys)
        token, logprob, mass = draw_tokens(
            state.logits, uniform, settings.temperature, settings.top_p
        )
        logits, cache = policy.decode(
            config,
            actor,
            state.cache,
            token,
            position=state.prompt_length + column,
            slot=width + column,
        )

        def write(array, values):
            return jax.lax.dynamic_update_slice_in_dim(array, values[:, None], column, 1)

        return state._replace(
            cache=cache,
            logits=logits,
            column=column + 1,
            ended=state.ended | (token == settings.eos_id),
            kept=state.kept + ~state.ended,
            completion=write(state.completion, token),
            logprobs=write(state.logprobs, logprob),
            kept_mass=write(state.kept_mass, mass),
        )

    def unfinished(state: DecodeState) -> jax.Array:
        return (state.column < until) & ~jnp.all(state.ended)

    return jax.lax.while_loop(unfinished, decode_one, state)


def finish(state: DecodeState) -> Rollout:
    """Pack the completions behind their prompts; everything outside the mask is 0."""
    rows, columns = state.completion.shape
    mask = jnp.arange(columns)[None] < state.kept[:, None]
    # scatter with a dump column: what is outside the mask lands right of the array
    width = state.tokens.shape[1]
    target = state.prompt_length[:, None] + jnp.arange(columns)[None]
    target = jnp.where(mask, target, width)
    row = jnp.arange(rows)[:, None]
    tokens = state.tokens.at[row, target].set(state.completion, mode="drop")
    return Rollout(
        tokens=tokens,
        prompt_length=state.prompt_length,
        length=state.prompt_length + state.kept,
        mask=mask,
        logprobs=jnp.where(mask, state.logprobs, 0.0),
        kept_mass=jnp.where(mask, state.kept_mass, 0.0),
        truncated=~state.ended,
    )


def find_cuts(
    completion: np.ndarray, kept: np.ndarray, closed: np.ndarray, find_stop: FindStop
) -> np.ndarray:
    """Completion tokens to keep per row, i32[B]; -1 where no stop string has come.

    `find_stop(completion token ids) -> number of tokens to keep, or None` gets the
    tokens drawn so far; rows in `closed` bool[B] are not looked at again.
    """
    cuts = np.full(len(kept), -1, np.int32)
    for row in np.flatnonzero(~closed):
        cut = find_stop(completion[row, : kept[row]].tolist())
        if cut is not None:
            cuts[row] = cut
    return cuts


def apply_cuts(state: DecodeState, cuts: jax.Array) -> DecodeState:
    """End the rows whose cut i32[B] is not -1, keeping that many tokens of them."""
    cut = cuts >= 0
    return state._replace(ended=state.ended | cut, kept=jnp.where(cut, cuts, state.kept))


class Sampler(NamedTuple):
    """The jitted pieces of a sampler, and how an array comes to the host whole."""

    start: Callable[[Params, PromptBatch, jax.Array], DecodeState]
    advance: Callable[[Params, DecodeState], DecodeState]
    apply_cuts: Callable[[DecodeState, np.ndarray], DecodeState]
    finish: Callable[[DecodeState], Rollout]
    to_host: Callable[[Any], Any]


def sample(
    sampler: Sampler,
    actor: Params,
    batch: PromptBatch,
    key: jax.Array,
    find_stop: FindStop | None,
) -> Rollout:
    """Continue every prompt until EOS, a stop string or the length limit.

    A row that the host cuts keeps its mask True up to the last token of the stop string.
    `key` is that of the iteration, fold_in(key(seed), step).
    """
    state = sampler.start(actor, batch, key)
    columns = state.completion.shape[1]
    closed = np.asarray(batch.prompt_length) == 0
    while True:
        state = sampler.advance(actor, state)
        look = (state.column, state.ended, state.kept, state.completion)
        column, ended, kept, completion = sampler.to_host(look)
        if find_stop is not None:
            cuts = find_cuts(completion, kept, closed, find_stop)
            if np.any(cuts >= 0):
                state = sampler.apply_cuts(state, cuts)
                ended = ended | (cuts >= 0)
        closed = ended
        if column >= columns or np.all(ended):
            return sampler.finish(state)


def pad_batch(batch: PromptBatch, rows: int, width: int) -> PromptBatch:
    """Grow a batch of numpy arrays to `rows` x `width` with rows that are never continued.

    So the last batch of an evaluation has the shape of the others and nothing is compiled
    again.
    """
    have, wide = batch.tokens.shape
    if have > rows or wide > width:
        raise ValueError(
            f"prompts of shape {have} x {wide} do not fit into {rows} x {width}; the "
            f"fields are the batch size and prompt.max_prompt_length"
        )
    more = rows - have
    return PromptBatch(
        tokens=np.pad(batch.tokens, ((0, more), (0, width - wide))),
        prompt_length=np.pad(batch.prompt_length, (0, more)),
        index=np.pad(batch.index, (0, more)),
    )
