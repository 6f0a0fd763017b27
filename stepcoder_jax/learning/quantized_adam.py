"""Adam with its moments in 8 bits: 2.06 bytes of state per parameter in place of 8.

Each block of up to 128 neighbours on the last axis has its greatest magnitude as a float32
scale, and each element a code on a logarithmic scale below it, as
    |x| = scale * exp(STEP * (code - levels)),   code 0: x = 0.
The first moment has a sign and 127 levels (down to 1e-6 of the scale), the second one 255
levels (down to 8e-13, so to 9e-7 below the root). Even steps, as of linear int8, would
round the small second moments of a block to 0 and their updates to infinity. Here the error
within the range is below exp(STEP) - 1 = 11.6 % of the moment, 5.7 % of its root, and a
second moment below the range is rounded up, which only shortens the step.

Rounding is stochastic, from a hash of the element's number and of the count: to the nearest
level a moment would stand still as soon as its decay of a few percent is less than half a
step. It needs no key, and the same run gives the same bits on any mesh. Differs from
arXiv:2110.02861 (blocks of 2048 of the flat array, a tree-shaped code, nearest rounding) so
that codes have the parameter's shape and are sharded as it is.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

STEP = math.log(1e6) / 126
SIGNED, UNSIGNED = 127, 255  # levels of the first moment and of the second
BLOCK = 128
SMALLEST = 4096  # arrays below this many elements stay in float32, as norms do


class Blocks(NamedTuple):
    """A quantised array of shape [..., D]."""

    codes: Any  # i8 or u8[..., D]
    scales: Any  # f32[..., D / block]


class QuantizedAdamState(NamedTuple):
    """As optax's ScaleByAdamState; a moment is `Blocks`, or f32 where it is small."""

    count: Any  # i32[]
    mu: Any
    nu: Any


def block_size(shape: tuple[int, ...]) -> int:
    """The largest divisor of the last axis up to `BLOCK`; 0: not worth quantising."""
    if not shape or math.prod(shape) < SMALLEST:
        return 0
    size = max(n for n in range(1, BLOCK + 1) if shape[-1] % n == 0)
    return size if size >= 16 else 0


def dither(shape: tuple[int, ...], count: Any, salt: int) -> jax.Array:
    """Numbers in [0, 1), f32[shape], from a hash of (element, count, salt).

    The hash is lowbias32 of nullprogram.com/blog/2018/07/31: it fuses with what uses it,
    where jax.random would write its bits to memory first.
    """
    element = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        element = element * jnp.uint32(size)
        element += jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    seed = jnp.asarray(count, jnp.uint32) * jnp.uint32(0x9E3779B9) + jnp.uint32(salt)
    return (mix(mix(element) ^ mix(seed)) >> 8).astype(jnp.float32) * 2.0**-24


def mix(x: jax.Array) -> jax.Array:
    """A bijection of u32 that changes about half of the bits for each bit of x."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def quantize(x: jax.Array, levels: int, count: Any, salt: int) -> Blocks:
    """Round f32[..., D] to codes; with SIGNED levels the sign is kept."""
    size = block_size(x.shape)
    blocks = x.reshape(*x.shape[:-1], -1, size)
    magnitude = jnp.abs(blocks)
    scales = magnitude.max(axis=-1, keepdims=True)
    share = magnitude / jnp.where(scales > 0, scales, 1.0)
    lowest = math.exp(STEP * (1 - levels))
    below = share / lowest if levels == SIGNED else (share > 0).astype(jnp.float32)
    level = levels + jnp.log(jnp.maximum(share, lowest)) / STEP
    level = jnp.where(share < lowest, below, level)
    noise = dither(x.shape, count, salt).reshape(blocks.shape)
    code = jnp.clip(jnp.floor(level + noise), 0, levels)
    if levels == SIGNED:
        code *= jnp.sign(blocks)
    dtype = jnp.int8 if levels == SIGNED else jnp.uint8
    return Blocks(code.reshape(x.shape).astype(dtype), scales[..., 0])


def dequantize(stored: Blocks) -> jax.Array:
    """f32[..., D] of codes and scales."""
    codes, scales = stored
    levels = SIGNED if codes.dtype == jnp.int8 else UNSIGNED
    code = codes.astype(jnp.float32).reshape(*scales.shape, -1)
    share = jnp.sign(code) * jnp.exp(STEP * (jnp.abs(code) - levels))
    return (share * scales[..., None]).reshape(codes.shape)


def scale_by_quantized_adam(
    b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    """As optax.scale_by_adam. The update comes from the moments before they are rounded."""

    def store(x: jax.Array, levels: int, count: Any, salt: int) -> Any:
        return quantize(x, levels, count, salt) if block_size(x.shape) else x

    def load(stored: Any) -> jax.Array:
        return dequantize(stored) if isinstance(stored, Blocks) else stored

    def init(params: Any) -> QuantizedAdamState:
        def zeros(levels: int) -> Any:
            return jax.tree.map(lambda x: store(jnp.zeros(x.shape), levels, 0, 0), params)

        return QuantizedAdamState(jnp.zeros((), jnp.int32), zeros(SIGNED), zeros(UNSIGNED))

    def update(gradients: Any, state: QuantizedAdamState, params: Any = None) -> Any:
        count = state.count + 1
        leaves: list[jax.Array]
        tree: Any
        leaves, tree = jax.tree.flatten(gradients)
        kept = zip(leaves, tree.flatten_up_to(state.mu), tree.flatten_up_to(state.nu))
        updates, mus, nus = [], [], []
        for i, (gradient, mu, nu) in enumerate(kept):
            mu = b1 * load(mu) + (1 - b1) * gradient
            nu = b2 * load(nu) + (1 - b2) * gradient**2
            unbiased = nu / (1 - b2**count)
            updates.append(mu / (1 - b1**count) / (jnp.sqrt(unbiased) + eps))
            mus.append(store(mu, SIGNED, count, 2 * i))
            nus.append(store(nu, UNSIGNED, count, 2 * i + 1))
        new = QuantizedAdamState(count, tree.unflatten(mus), tree.unflatten(nus))
        return tree.unflatten(updates), new

    return optax.GradientTransformation(init, update)
