"""Attention of a row's positions among themselves, by three implementations.

"xla" runs everywhere, and computes little of what the causal mask hides; "cudnn" is the
fused kernel of NVIDIA GPUs and "splash" that of TPUs, both without an [L, L] matrix in
memory. Letters: B rows, L positions, K key heads, D head size. Softmax in float32
everywhere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig

_LEAST = 96  # positions of a block of queries of "xla"; fewer cost more than they skip
MOST_BLOCKS = 8  # of them: each is compiled for itself
_LANES = 128  # lengths that the splash kernel takes are multiples of this
_BLOCKS = (512, 256, _LANES)  # positions of a tile, the largest that fits first


def attend(
    config: ModelConfig,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array | None,
) -> jax.Array:
    """Causal attention: query [B, L, heads, D], key and value [B, L, K, D].

    With a sliding window of W a position sees itself and the W - 1 before it. With
    segments i32[B, L] it sees those of its own segment alone.
    """
    window = config.sliding_window if config.sliding_window < query.shape[1] else 0
    if config.attention == "splash":
        return splash(query, key, value, segments, window)
    if config.attention == "xla":
        return in_blocks(query, key, value, segments, window)
    mask = None
    if segments is not None:
        mask = (segments[:, :, None] == segments[:, None, :])[:, None]
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask,
        is_causal=True,
        local_window_size=(window - 1, 0) if window else None,
        implementation=config.attention,
    )


def in_blocks(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array | None,
    window: int,
) -> jax.Array:
    """`attend` by blocks of queries, each of which meets only the keys that it may see.

    Of the L^2 scores n blocks compute (n + 1) / 2n, for the mask hides the rest. Sums of
    weights divide last, where they have D columns and not L (as in arXiv:2205.14135).
    """
    rows, length, heads, size = query.shape
    query = query.reshape(rows, length, key.shape[2], -1, size).transpose(0, 2, 3, 1, 4)
    key, value = key.transpose(0, 2, 3, 1), value.swapaxes(1, 2)
    step = -(-length // min(MOST_BLOCKS, max(1, length // _LEAST)))
    mixed = []
    for start in range(0, length, step):
        end = min(start + step, length)
        first = max(0, start - window + 1) if window else 0
        seen = slice(first, end)
        keep = _sees(start, seen, window)
        if segments is not None:
            same = segments[:, start:end, None] == segments[:, None, seen]
            keep = keep & same[:, None, None]
        mixed.append(
            _mix(query[..., start:end, :], key[..., seen], value[:, :, seen], keep)
        )
    joined = jnp.concatenate(mixed, axis=3).transpose(0, 3, 1, 2, 4)
    return joined.reshape(rows, length, heads, size)


def _sees(start: int, seen: slice, window: int) -> jax.Array:
    """Which of the `seen` positions each from `start` on may see, bool[1, 1, 1, l, m]."""
    back = jnp.arange(start, seen.stop)[:, None] - jnp.arange(seen.start, seen.stop)[None]
    keep = (back >= 0) & (back < window) if window else back >= 0
    return keep[None, None, None]


def _mix(query: jax.Array, key: jax.Array, value: jax.Array, keep: jax.Array) -> jax.Array:
    """Values [B, K, m, D] by the kept scores of query [B, K, g, l, D], key [B, K, D, m]."""
    f32 = {"preferred_element_type": jnp.float32}
    scores = jnp.einsum("bkgld,bkdm->bkglm", query, key, **f32)
    scores = jnp.where(keep, scores / math.sqrt(query.shape[-1]), -jnp.inf)
    # a constant for the gradient, since it cancels
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    mixed = jnp.einsum("bkglm,bkmd->bkgld", weights.astype(value.dtype), value, **f32)
    return (mixed / weights.sum(axis=-1, keepdims=True)).astype(query.dtype)


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array | None,
    window: int,
) -> jax.Array:
    """`attend` by JAX's splash attention kernel, on each device for its rows and heads.

    The compiler cannot split a kernel, so under a mesh (see `sharding.on_mesh`) the rows
    are split here over all axes but the last, and the heads over the last. Off TPUs the
    kernel is interpreted: slow, for tests.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if segments is None:
        segments = jnp.zeros(query.shape[:2], jnp.int32)
    if mesh.empty:
        return _attend_here(query, key, value, segments, window=window)
    *rows, heads = mesh.axis_names
    if key.shape[2] % mesh.shape[heads]:  # fewer key heads than devices: one per query
        repeats = query.shape[2] // key.shape[2]
        key, value = (jnp.repeat(x, repeats, axis=2) for x in (key, value))
    spec = PartitionSpec(tuple(rows), None, heads, None)
    attend_part = jax.shard_map(
        functools.partial(_attend_here, window=window),
        in_specs=(spec, spec, spec, PartitionSpec(tuple(rows))),
        out_specs=spec,
        check_vma=False,
    )
    return attend_part(query, key, value, segments)


def _attend_here(
    query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array, *, window: int
) -> jax.Array:
    """The kernel on one device; lengths are padded on the right, where nobody looks."""
    length, size = query.shape[1], query.shape[3]
    padding = -length % _LANES
    query = query / math.sqrt(size)  # the kernel does not scale
    query, key, value = (
        jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))).swapaxes(1, 2)
        for x in (query, key, value)
    )
    segments = jnp.pad(segments, ((0, 0), (0, padding)), constant_values=-1)

    def run(interpret: bool, *arrays: jax.Array) -> jax.Array:
        return jax.vmap(_kernel(query.shape[1], query.shape[2], window, interpret))(*arrays)

    # chosen when the program is lowered: it may be compiled for another machine
    mixed = jax.lax.platform_dependent(
        query,
        key,
        value,
        segments,
        tpu=functools.partial(run, False),
        default=functools.partial(run, True),
    )
    return mixed.swapaxes(1, 2)[:, :length]


def _kernel(heads: int, length: int, window: int, interpret: bool) -> Callable[..., Any]:
    """The kernel of one row: query, key and value [heads, L, D] and segments i32[L]."""
    # imported late: it loads Pallas, which nothing else needs
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    block = next(block for block in _BLOCKS if length % block == 0)
    square = (length, length)
    mask = (
        masks.LocalMask(square, (window - 1, 0), 0) if window else masks.CausalMask(square)
    )
    attend_row = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=block,
            block_kv=block,
            block_kv_compute=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )

    def run(
        query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array
    ) -> jax.Array:
        return attend_row(query, key, value, kernels.SegmentIds(segments, segments))

    return run
