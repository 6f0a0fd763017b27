"""Rotary positions (arXiv:2104.09864) and the ways of stretching them.

Hugging Face's half-rotation layout: dimension i turns with dimension i + D / 2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig


def frequencies(config: ModelConfig) -> jax.Array:
    """Radians per position of each pair, f32[D / 2]: theta^(-2i / D), stretched.

    linear: all divided by the factor (arXiv:2306.15595). llama3 and yarn (arXiv:2309.00071)
    divide only the pairs that turn less than `rope_slow` times over the original context,
    leave those that turn more than `rope_fast` times, and blend between: llama3 evenly in
    the number of turns, yarn evenly in i, the ends rounded outwards.
    """
    size, factor = config.head_dim, config.rope_factor
    exponent = jnp.arange(0, size, 2, dtype=jnp.float32) / size
    frequency = config.rope_theta**-exponent
    if config.rope_scaling == "linear":
        return frequency if factor == 1.0 else frequency / factor
    slow, fast, context = config.rope_slow, config.rope_fast, config.rope_context
    if config.rope_scaling == "llama3":
        turns = context * frequency / (2 * math.pi)
        kept = (turns - slow) / (fast - slow)
    else:
        low = max(math.floor(pair_of(config, fast)), 0)
        high = min(math.ceil(pair_of(config, slow)), size - 1)
        kept = 1 - (jnp.arange(size // 2) - low) / ((high - low) or 0.001)
    kept = jnp.clip(kept, 0.0, 1.0)
    return kept * frequency + (1 - kept) * frequency / factor


def pair_of(config: ModelConfig, turns: float) -> float:
    """The pair, as a real number, that turns this often over the original context."""
    wavelength = config.rope_context / (turns * 2 * math.pi)
    return config.head_dim * math.log(wavelength) / (2 * math.log(config.rope_theta))


def rotary_angles(config: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of position * frequency, f32[B, L, D / 2] each.

    yarn multiplies both by `rope_amplitude`, which sharpens or flattens attention.
    """
    frequency = frequencies(config)[None, None]
    angles = positions.astype(jnp.float32)[..., None] * frequency
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if config.rope_amplitude == 1.0:
        return cos, sin
    return cos * config.rope_amplitude, sin * config.rope_amplitude


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate the pairs (x[i], x[i + D / 2]) of every head; x is [B, L, heads, D]."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
