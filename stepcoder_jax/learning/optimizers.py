"""The optimizers of training, by the fields of `OptimizerConfig`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from stepcoder_jax.learning.quantized_adam import scale_by_quantized_adam

if TYPE_CHECKING:
    from stepcoder_jax.config import OptimizerConfig


# Leaves that decay: the matrices of projections and heads, and LoRA's.
DECAYED = ("kernel", "lora_a", "lora_b")


def decay_weights(rate: float) -> optax.GradientTransformation:
    """Add rate * x to the update of each parameter x that is named in `DECAYED`.

    Not norm scales and biases, whose size is no measure of complexity: layers are stacked,
    so these have two axes as well, and only their names tell. Not the embedding: tokens
    that a batch does not hold have hardly a gradient, and decay would wear them away. Its
    state is that of optax.add_decayed_weights: empty.
    """

    def add(updates: Any, params: Any) -> Any:
        def decay(path: Any, update: jax.Array, x: jax.Array) -> jax.Array:
            is_named = bool(path) and getattr(path[-1], "key", "") in DECAYED
            return update + rate * x if is_named else update

        return jax.tree_util.tree_map_with_path(decay, updates, params)

    return optax.stateless(add) if rate else optax.identity()


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Global-norm clip, `config.name`'s scaling, decay; the rate warms up linearly.

    State per parameter: adamw 8 bytes; adamw8bit 2.06 (see `quantized_adam`); adafactor
    about none, row and column means of the squared gradient (arXiv:1804.04235, without
    momentum and without its scaling by the parameters' size, so that the rate means what
    it means for Adam; b1, b2 and eps are not read). The first update's rate is not 0, but
    the warm-up's first step. Decay acts on what `decay_weights` says.
    """

    def rate(count):
        return config.learning_rate * jnp.minimum(
            1.0, (count + 1) / max(1, config.warmup_steps)
        )

    scaling: optax.GradientTransformation
    if config.name == "adamw":
        scaling = optax.scale_by_adam(config.b1, config.b2, config.eps)
    elif config.name == "adamw8bit":
        scaling = scale_by_quantized_adam(config.b1, config.b2, config.eps)
    else:
        scaling = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.chain(
            scaling,
            decay_weights(config.weight_decay),
            optax.scale_by_learning_rate(rate),
        ),
    )


def rate_share(
    config: OptimizerConfig, step: jax.Array, total_steps: int
) -> jax.Array | None:
    """The share of the rate that is left in iteration `step` of a run, f32[]; None: all.

    With x = step / total_steps and f = `floor`: linear f + (1 - f) (1 - x), cosine
    f + (1 - f) (1 + cos(pi x)) / 2 (arXiv:1608.03983, eq. 5, without restarts). By
    iterations, not by updates, so that those which were left out do not stretch it; the
    warm-up goes by updates and is a factor beside it. Nothing of it is saved.
    """
    if config.decay == "none":
        return None
    done = jnp.minimum(1.0, step / total_steps)
    left = 1.0 - done if config.decay == "linear" else (1.0 + jnp.cos(jnp.pi * done)) / 2
    return jnp.float32(config.floor + (1.0 - config.floor) * left)
