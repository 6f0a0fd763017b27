"""Attention of a row's positions among themselves, by three implementations.

"xla" runs everywhere; "cudnn" is the fused kernel of NVIDIA GPUs and "splash" that of TPUs,
both without an [L, L] matrix in memory. Letters: B rows, L positions, K key heads, D head
size. Softmax in float32 everywhere.
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
