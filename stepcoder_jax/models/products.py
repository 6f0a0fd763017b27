"""Weights in use: rounded to the activations' dtype, their gradients sums in float32.

Weights are float32. A use rounds them to the activations' dtype, so the numbers of a
forward pass are those of weights kept in that dtype. The gradient of a weight is a sum over
all positions of a micro-batch, and over the devices that hold these positions. Here both
sums are float32 and nothing rounds them, whatever the dtype; biases, adapters, the
embedding and (in `learning.vocabulary`) the head alike.

Why: bfloat16 has 8 bits. A sum of n parts in it is off by up to n / 512 of the largest
partial sum, so that what is learnt would depend on the number of devices; and a token that
stands 300 times in a micro-batch would be counted as about 256. What it costs: the layers'
gradients take 4 bytes per weight and micro-batch on their way between devices and not 2.
By the compiler's word 6.7B on 64 chips (fsdp 16 x tensor 4, 16 micro-batches) receives 709
GiB in an iteration's learning and not 605, and needs 0.07 GiB more memory.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


@jax.custom_vjp
def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel, [..., in] and [in, out], in the dtype of x; d kernel is float32.

    The kernel's gradient is x^T g, or (g^T x)^T; which of the two is written decides what
    is turned round in memory, x or the gradient g of the output. JAX always turns g, which
    is four times wider than x where an MLP widens; on a CPU that was a sixth of an update.
    (There XLA has no turned product of bfloat16 to float32, so g is turned then.)
    """
    return x @ kernel.astype(x.dtype)


def _project_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    # written out: a policy of remat must see the product
    return x @ kernel.astype(x.dtype), (x, kernel)


def _project_backward(saved: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    leading = tuple(range(x.ndim - 1))
    dims = ((leading, leading), ((), ()))
    summed = functools.partial(
        jax.lax.dot_general,
        dimension_numbers=dims,
        preferred_element_type=jnp.promote_types(kernel.dtype, x.dtype),
    )
    turns = x.shape[-1] > g.shape[-1] and x.dtype == kernel.dtype
    turned = summed(g, x).T if turns else summed(x, g)
    used = kernel.astype(x.dtype)
    inputs = jax.lax.dot_general(g, used, (((g.ndim - 1,), (1,)), ((), ())))
    return inputs, turned.astype(kernel.dtype)


project.defvjp(_project_forward, _project_backward)


@jax.custom_vjp
def shift(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x + bias, [..., n] and [n], in the dtype of x; d bias is float32."""
    return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def _shift_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    return shift(x, bias), bias


def _shift_backward(bias: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = g.astype(jnp.promote_types(bias.dtype, g.dtype))
    return g, wide.sum(axis=range(g.ndim - 1)).astype(bias.dtype)


shift.defvjp(_shift_forward, _shift_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def embed(table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rows of `table` [V, H] by i32[...], in `dtype`; d table is float32."""
    return jnp.take(table.astype(dtype), tokens, axis=0)


def _embed_forward(
    table: jax.Array, tokens: jax.Array, dtype: jnp.dtype
) -> tuple[jax.Array, tuple]:
    return embed(table, tokens, dtype), (table, tokens)


def _embed_backward(dtype: jnp.dtype, saved: tuple, g: jax.Array) -> tuple[jax.Array, None]:
    table, tokens = saved
    wide = g.astype(table.dtype)
    return jnp.zeros_like(table).at[tokens].add(wide), None


embed.defvjp(_embed_forward, _embed_backward)
