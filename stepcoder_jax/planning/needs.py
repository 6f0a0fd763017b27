"""Bytes of one chip that each program needs, by shapes: to set beside the compiler's word.

Letters: S state, A its actor, R reference, D the decoding copy, W the cache of all slots at
full width, P that of the prompts read at a time, both with their logits.

  init     A + S
  prepare  S + R + 2 D: the copy is gathered before it is laid out. So the compiler does it
           but for 33B on 64 chips, where it gathers few matrices at a time and this is 43 %
           too much
  read     S + R + D + 2 P + a layer's MLP gathered, and W (an empty one, narrower, where
           all rollouts have a slot from the start): P is there by layers, then by rows
  fill     S + R + D + W + P, all prompts' keys of one layer, and those that slots take
  resize   S + R + D + W + P and the narrower cache
  advance  S + R + D + W + P and one layer's cache, whose new columns are moved
  learn    S + R, gradients (twice with micro-batches, one being added to the other), hidden
           states that each layer keeps, and what one layer computes again
  gather   S + R: what it gathers is small

A run that learns in two passes has `experience` (S + R) and `update` (as learn). XLA says a
program's memory in two ways: its peak, and the sum of arguments, outputs of their own and
temporaries. They agree but for learn, whose room for temporaries is up to two thirds more
than is ever in use at once. The count is of what lives at one time, like the peak; a plan
that has been compiled takes the sum, which is the careful one.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import jax.numpy as jnp

from stepcoder_jax.learning import updates
from stepcoder_jax.models import lora
from stepcoder_jax.planning.programs import widths_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepcoder_jax.config import Config
    from stepcoder_jax.planning.counting import Parts, Shapes


@dataclasses.dataclass(frozen=True)
class Caches:
    """Bytes of keys and values of one chip, and what they are made of."""

    token: int  # of one token of a row, all layers
    layers: int
    logits: int  # of a row
    slots: int  # of a chip
    prompts: int  # rows of a chip
    all_prompts: int  # of all chips of a row's axis

    def of(self, rows: int, columns: int) -> int:
        return rows * (columns * self.token + self.logits)

    def layer(self, rows: int, columns: int) -> int:
        return rows * columns * self.token // self.layers


def caches_of(config: Config, mesh: Mapping[str, int]) -> Caches:
    """From the numbers of slots and heads."""
    model, ours = config.model, config.sampling
    shards, slots = mesh["data"] * mesh["fsdp"], ours.slots or config.batch_size
    slots = -(-slots // shards)
    prompts = -(-slots // ours.rollouts_per_problem)
    split = mesh["tensor"] if model.num_kv_heads % mesh["tensor"] == 0 else 1
    size = jnp.dtype(model.dtype).itemsize
    heads = model.num_kv_heads // split
    return Caches(
        token=2 * model.num_layers * heads * model.head_dim * size,
        layers=model.num_layers,
        logits=4 * model.vocab_size,
        slots=slots,
        prompts=prompts,
        all_prompts=prompts * shards,
    )


def by_program(
    config: Config, shapes: Shapes, mesh: Mapping[str, int], parts: Parts
) -> dict[str, int]:
    """Bytes of a chip in each program; see above."""
    ours, widths, held = config.sampling, widths_of(config), caches_of(config, mesh)
    both = parts.state + parts.reference
    base = both + parts.decoding
    chunk = ours.chunk
    wide = held.of(held.slots, widths.full + chunk)
    narrow = held.of(held.slots, widths.before + chunk)
    first = held.of(held.slots, widths.start + chunk)
    prompts = held.of(held.prompts, widths.prompt)
    one_wave = (ours.slots or config.batch_size) >= config.batch_size
    keys = held.layer(1, widths.prompt) // 2
    size = jnp.dtype(config.model.dtype).itemsize
    gathered = size * _mlp_weights(shapes) // mesh["tensor"]
    learn = parts.update
    needs = {
        "init": parts.actor + parts.state,
        "prepare": base + parts.decoding,
        "empty": base + first,
        "read": base + 2 * prompts + gathered + (first if one_wave else wide),
        "fill": base + wide + prompts + keys * (held.all_prompts + 2 * held.slots),
        "resize": base + wide + prompts + narrow,
        "advance": base + wide + prompts + held.layer(held.slots, widths.full + chunk),
    }
    if updates.learns_in_one_pass(shapes.algorithm, config):
        return needs | {"learn": learn, "gather": both}
    return needs | {"experience": both + parts.kept, "update": learn, "gather": both}


def _mlp_weights(shapes: Shapes) -> int:
    """Weights of one layer's MLP."""
    layers = shapes.actor["trunk"]["layers"]
    kernels = (layers[name]["kernel"] for name in lora.TARGETS["mlp"] if name in layers)
    return sum(math.prod(kernel.shape[1:]) for kernel in kernels)
