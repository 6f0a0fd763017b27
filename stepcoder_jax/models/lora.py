"""LoRA (arXiv:2106.09685): a frozen base, and small matrices beside its projections.

    y = x W + (alpha / r) (x A) B        A [N, in, r] random, B [N, r, out] zero at first

A and B stand beside their kernel in the parameter tree, so one tree is the adapted actor,
and the tree without them the base, which is the reference as well: no second copy of it is
kept. B = 0 adds exactly 0, so a run begins with a ratio of 1 and a KL of 0. The sampler
computes the same formula on the same arrays as training; nothing is merged before
`stepcoder export`, which would need a second set of kernels. A critic of its own is
a second set of adapters (and its value head) on the same base.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from stepcoder_jax.models.products import project, shift

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig

Params = Any
ADAPTERS = ("lora_a", "lora_b")
TARGETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
TARGETS["all"] = TARGETS["attention"] + TARGETS["mlp"]


class Dense(nn.Module):
    """A linear layer, with the adapters that its parameters have beside the kernel."""

    features: int
    use_bias: bool
    dtype: jnp.dtype
    kernel_init: nn.initializers.Initializer
    alpha: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        shape = (inputs.shape[-1], self.features)
        inputs = inputs.astype(self.dtype)
        outputs = project(inputs, self.param("kernel", self.kernel_init, shape))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, shape[1:])
            outputs = shift(outputs, bias)
        if not self.has_variable("params", "lora_a"):
            return outputs
        first: jax.Array = self.get_variable("params", "lora_a")
        second: jax.Array = self.get_variable("params", "lora_b")
        change = project(project(inputs, first), second)
        return outputs + change * (self.alpha / first.shape[-1])


def init_adapters(config: ModelConfig, trunk: Params, key: jax.Array) -> Params:
    """Adapters alone, a tree of a trunk's shape: A with variance 1 / in, B of zeros."""
    modules = [name for name in trunk["layers"] if name in TARGETS[config.lora_targets]]
    adapters = {}
    for name, own in zip(modules, jax.random.split(key, len(modules))):
        layers, size, out = trunk["layers"][name]["kernel"].shape
        first = jax.random.normal(own, (layers, size, config.lora_rank)) / size**0.5
        adapters[name] = {
            "lora_a": first,
            "lora_b": jnp.zeros((layers, config.lora_rank, out)),
        }
    return {"layers": adapters}


def graft(one: Params, other: Params) -> Params:
    """Both trees in one; where both have a leaf, `other`'s."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return other
    joined = {name: graft(one[name], other[name]) for name in one.keys() & other.keys()}
    return {**one, **other, **joined}


def split(params: Params) -> tuple[Params, Params]:
    """What is trained, and what is frozen: adapters and base; all and nothing without."""
    adapters = _select(params, lambda name: name in ADAPTERS)
    return (adapters, strip(params)) if adapters else (params, {})


def strip(params: Params) -> Params:
    """The base: the tree without its adapters."""
    return _select(params, lambda name: name not in ADAPTERS)


def _select(tree: Params, keep: Callable[[str], bool]) -> Params:
    """Leaves whose name is kept; dicts that lose all are left out."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            value = _select(value, keep)
            if value:
                found[name] = value
        elif keep(name):
            found[name] = value
    return found


def merge(config: ModelConfig, params: Params) -> Params:
    """Plain parameters that say the same: W + (alpha / r) A B, computed in float32."""

    def add(module: Params) -> Params:
        if "lora_a" not in module:
            return module
        change = module["lora_a"] @ module["lora_b"]
        kernel = module["kernel"] + change * (config.lora_alpha / config.lora_rank)
        return strip(module) | {"kernel": kernel}

    trunk = params["trunk"]
    layers = {name: add(module) for name, module in trunk["layers"].items()}
    return params | {"trunk": trunk | {"layers": layers}}
