"""Log-probabilities, entropy and KL from hidden states, by chunks of the vocabulary.

The naive way holds logits f32[B, T, V] and several arrays of that size more for the
backward pass. Here logits exist for `CHUNK` columns at once: the forward pass keeps running
sums (online softmax, arXiv:1805.02867), the backward pass computes each chunk's logits anew
and adds its share to the gradients of the hidden states and of the head, as
arXiv:2411.09009 does on a GPU. Memory beyond the gradients does not grow with V. Letters
as in `pytrees`; H hidden size, S devices that the vocabulary is split over.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from stepcoder_jax.models.policy import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float, Int

# Columns of one chunk on one device: f32[B, T, CHUNK] is then about what a layer of a
# 1.3B model holds for as many tokens. Wide enough for matrix units.
CHUNK = 4096
LOWEST = -1e30  # below any logit, and finite: -inf - -inf is no number


class Scoring(NamedTuple):
    """What is the same for all tokens; static under jit."""

    temperature: float
    shards: int  # S; V is a multiple of it
    entropy: bool  # compute it


class TokenScores(NamedTuple):
    """What the policy says about the tokens that were chosen."""

    logprobs: Any  # f32[B, T]
    entropy: Any  # f32[B, T] in nats; 0 where it was not asked for


class Sums(NamedTuple):
    """Running sums over the columns seen so far, f32[B, T, S] each."""

    top: Any  # greatest logit z
    total: Any  # sum of exp(z - top)
    weighted: Any  # sum of exp(z - top) w
    chosen: Any  # logit of the chosen token, 0 before it was met


class Chunks(NamedTuple):
    """How a head's columns are cut: `rounds` chunks of `width`, the last one moved back so
    that it ends with the vocabulary; columns that it shares with the one before are stale.
    """

    columns: int  # of one shard
    rounds: int
    width: int

    @classmethod
    def of(cls, head: Head, shards: int) -> Chunks:
        columns = head.kernel.shape[0 if head.tied else 1] // shards
        rounds = -(-columns // CHUNK)
        return cls(columns, rounds, -(-columns // rounds))

    def start(self, i: Any) -> Any:
        return jnp.minimum(i * self.width, self.columns - self.width)

    def fresh(self, i: Any) -> Any:
        """Columns of chunk i that no chunk before had, bool[1, 1, 1, width]; or True."""
        if self.rounds * self.width == self.columns:
            return True
        return self.numbers() + self.start(i) >= i * self.width

    def numbers(self) -> Any:
        """i32[1, 1, 1, width]"""
        return jnp.arange(self.width)[None, None, None]

    def place(self, chosen: Any, i: Any, shards: int) -> Any:
        """Column of the chosen tokens within chunk i, i32[B, T, S]; -1 outside it."""
        offset = chosen[..., None] - jnp.arange(shards)[None, None] * self.columns
        place = offset - self.start(i)
        return jnp.where((offset >= i * self.width) & (place < self.width), place, -1)


def by_shard(head: Head, shards: int) -> Any:
    """The kernel as [S, H, V / S] or [S, V / S, H]: a chunk of it is a chunk of each shard,
    so that no device reads another's columns.
    """
    kernel = head.kernel
    if head.tied:
        return kernel.reshape(shards, -1, kernel.shape[1])
    return kernel.reshape(kernel.shape[0], shards, -1).swapaxes(0, 1)


def chunk_of(head: Head, kernel: Any, chunks: Chunks, i: Any, dtype: Any) -> Any:
    """Chunk i of `by_shard`'s kernel, as dtype[S, H, width] or dtype[S, width, H]."""
    axis = 1 if head.tied else 2
    part = jax.lax.dynamic_slice_in_dim(kernel, chunks.start(i), chunks.width, axis)
    return part.astype(dtype)


def scaled_logits(head: Head, part: Any, hidden: Any, temperature: float) -> Any:
    """Logits over the temperature, f32[B, T, S, width], of a chunk of the head."""
    spec = "bth,sch->btsc" if head.tied else "bth,shc->btsc"
    logits = jnp.einsum(spec, hidden, part, preferred_element_type=jnp.float32)
    return logits / temperature


def no_sums(chosen: Any, shards: int) -> Sums:
    """The sums over no column."""
    zeros = jnp.zeros((*chosen.shape, shards), jnp.float32)
    return Sums(zeros + LOWEST, zeros, zeros, zeros)


def add_chunk(sums: Sums, z: Any, weight: Any, fresh: Any, place: Any) -> Sums:
    """Take in logits z f32[B, T, S, width] and, unless it is None, their weight."""
    z = z if fresh is True else jnp.where(fresh, z, LOWEST)
    top = jnp.maximum(sums.top, z.max(axis=-1))
    shrink, grown = jnp.exp(sums.top - top), jnp.exp(z - top[..., None])
    weighted = sums.weighted
    if weight is not None:
        weighted = weighted * shrink + jnp.sum(grown * weight, axis=-1)
    found = jnp.take_along_axis(z, jnp.maximum(place, 0)[..., None], axis=-1)[..., 0]
    return Sums(
        top,
        sums.total * shrink + grown.sum(axis=-1),
        weighted,
        sums.chosen + jnp.where(place >= 0, found, 0.0),
    )


def join_shards(sums: Sums) -> tuple[Any, Any, Any]:
    """log sum exp z, the mean of w under the policy, and the chosen z, f32[B, T] each."""
    top = sums.top.max(axis=-1)
    share = jnp.exp(sums.top - top[..., None])
    total = jnp.sum(sums.total * share, axis=-1)
    mean = jnp.sum(sums.weighted * share, axis=-1) / total
    return top + jnp.log(total), mean, sums.chosen.sum(axis=-1)


def for_chunks(chunks: Chunks, step: Callable[[Any, Any], Any], start: Any) -> Any:
    """`step(carry, i)` over the chunks; a vocabulary of one chunk needs no loop."""
    if chunks.rounds == 1:
        return step(start, 0)
    loop = jax.lax.scan(
        lambda carry, i: (step(carry, i), None), start, jnp.arange(chunks.rounds)
    )
    return loop[0]


def score_tokens(
    head: Head,
    hidden: Float[Array, "B T H"],
    chosen: Int[Array, "B T"],
    scoring: Scoring,
) -> TokenScores:
    """log pi of the chosen tokens and the entropy of pi, differentiable.

    pi = softmax(hidden @ kernel / temperature) over the full vocabulary, in float32
    whatever the dtype of `hidden`. Products of the backward pass are computed in that dtype
    and added up in float32.
    """
    return TokenScores(*_score(head.tied, scoring, hidden, head.kernel, chosen))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _score(tied: bool, scoring: Scoring, hidden: Any, kernel: Any, chosen: Any) -> Any:
    return _score_forward(tied, scoring, hidden, kernel, chosen)[0]


def _score_forward(
    tied: bool, scoring: Scoring, hidden: Any, kernel: Any, chosen: Any
) -> tuple[Any, Any]:
    head = Head(kernel, tied)
    chunks, parts = Chunks.of(head, scoring.shards), by_shard(head, scoring.shards)

    def step(sums: Sums, i: Any) -> Sums:
        part = chunk_of(head, parts, chunks, i, hidden.dtype)
        z = scaled_logits(head, part, hidden, scoring.temperature)
        place = chunks.place(chosen, i, scoring.shards)
        weight = z if scoring.entropy else None
        return add_chunk(sums, z, weight, chunks.fresh(i), place)

    sums = for_chunks(chunks, step, no_sums(chosen, scoring.shards))
    log_total, mean, found = join_shards(sums)
    entropy = log_total - mean if scoring.entropy else jnp.zeros_like(log_total)
    return (found - log_total, entropy), (hidden, kernel, chosen, log_total, entropy)


def _score_backward(tied: bool, scoring: Scoring, kept: Any, gradients: Any) -> Any:
    """d log pi(y) / dz = [v = y] - pi(v); dH / dz = - pi(v) (log pi(v) + H)."""
    hidden, kernel, chosen, log_total, entropy = kept
    by_logprob, by_entropy = (g[..., None, None] for g in gradients)
    head = Head(kernel, tied)
    chunks, parts = Chunks.of(head, scoring.shards), by_shard(head, scoring.shards)
    axis = 1 if tied else 2

    def step(totals: Any, i: Any) -> Any:
        to_hidden, to_kernel = totals
        part = chunk_of(head, parts, chunks, i, hidden.dtype)
        z = scaled_logits(head, part, hidden, scoring.temperature)
        log_pi = z - log_total[..., None, None]
        pi = jnp.exp(log_pi)
        place = chunks.place(chosen, i, scoring.shards)[..., None]
        slope = by_logprob * ((chunks.numbers() == place) - pi)
        if scoring.entropy:
            slope -= by_entropy * pi * (log_pi + entropy[..., None, None])
        fresh = chunks.fresh(i)
        slope = slope if fresh is True else jnp.where(fresh, slope, 0.0)
        slope = (slope / scoring.temperature).astype(hidden.dtype)
        product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        to_hidden += product("btsc,sch->sbth" if tied else "btsc,shc->sbth", slope, part)
        if tied:
            new = product("btsc,bth->sch", slope, hidden)
        else:
            new = product("bth,btsc->shc", hidden, slope)
        start, width = chunks.start(i), chunks.width
        new += jax.lax.dynamic_slice_in_dim(to_kernel, start, width, axis)
        return to_hidden, jax.lax.dynamic_update_slice_in_dim(to_kernel, new, start, axis)

    zeros = jnp.zeros((scoring.shards, *hidden.shape), jnp.float32)
    start = (zeros, jnp.zeros(parts.shape, jnp.float32))
    to_hidden, to_kernel = for_chunks(chunks, step, start)
    if not tied:
        to_kernel = to_kernel.swapaxes(0, 1)
    to_kernel = to_kernel.reshape(kernel.shape).astype(kernel.dtype)
    return to_hidden.sum(axis=0).astype(hidden.dtype), to_kernel, None


_score.defvjp(_score_forward, _score_backward)


def compare_tokens(
    head: Head,
    hidden: Float[Array, "B T H"],
    ref_head: Head,
    ref_hidden: Float[Array, "B T H"],
    chosen: Int[Array, "B T"],
    scoring: Scoring,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"], Float[Array, "B T"]]:
    """log pi and log ref of the chosen tokens, and KL(pi || ref), exact, in nats.

    KL = sum_v pi(v) (log pi(v) - log ref(v)). Both policies have the same vocabulary and
    temperature. Not meant to be differentiated: it keeps no memory free for that.
    """
    shards = scoring.shards
    chunks = Chunks.of(head, shards)
    parts, ref_parts = by_shard(head, shards), by_shard(ref_head, shards)

    def step(both: tuple[Sums, Sums], i: Any) -> tuple[Sums, Sums]:
        part = chunk_of(head, parts, chunks, i, hidden.dtype)
        ref_part = chunk_of(ref_head, ref_parts, chunks, i, ref_hidden.dtype)
        z = scaled_logits(head, part, hidden, scoring.temperature)
        ref_z = scaled_logits(ref_head, ref_part, ref_hidden, scoring.temperature)
        where = (chunks.fresh(i), chunks.place(chosen, i, shards))
        return (
            add_chunk(both[0], z, z - ref_z, *where),
            add_chunk(both[1], ref_z, None, *where),
        )

    none = no_sums(chosen, shards)
    sums, ref_sums = for_chunks(chunks, step, (none, none))
    log_total, gap, found = join_shards(sums)
    ref_total, _, ref_found = join_shards(ref_sums)
    kl = gap - log_total + ref_total
    return found - log_total, ref_found - ref_total, kl
