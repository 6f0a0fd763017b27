"""The optimizers of training, by the fields of `OptimizerConfig`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import optax

from stepcoder_jax.quantized_adam import scale_by_quantized_adam

if TYPE_CHECKING:
    from stepcoder_jax.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Global-norm clip, `config.name`'s scaling, decay; the rate warms up linearly.

    State per parameter: adamw 8 bytes; adamw8bit 2.06 (see `quantized_adam`); adafactor
    about none, row and column means of the squared gradient (arXiv:1804.04235, without
    momentum and without its scaling by the parameters' size, so that the rate means what
    it means for Adam; b1, b2 and eps are not read).
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
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(rate),
        ),
    )
