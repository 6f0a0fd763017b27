"""Configs beside the one at hand, ranked by predicted seconds: by shapes and formulas.

What is changed is how a run is computed, never what it learns: the mesh, micro-batches,
slots and attention; and how the moments are kept, where nothing else fits.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from stepcoder_jax.config import ConfigError
from stepcoder_jax.config.paths import look_up
from stepcoder_jax.devices.sharding import ShardingError
from stepcoder_jax.planning import dividing, plan
from stepcoder_jax.planning.counting import Shapes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepcoder_jax.config import Config
    from stepcoder_jax.planning.chips import Topology

BEST = 3  # that are worth compiling
MOMENTS = ("adamw", "adamw8bit", "adafactor")


class Candidate(NamedTuple):
    """Changes of a config, and what is predicted of them."""

    flags: dict[str, Any]
    at_most: int  # bytes of a chip
    seconds: float  # of an iteration


def search(config: Config, topology: Topology) -> list[Candidate]:
    """All that fit, fastest first; with the config's own moments, if any of these fits."""
    for moments in dict.fromkeys((config.ppo.actor.name, *MOMENTS)):
        found = list(_fitting(config, topology, moments))
        if found:
            return sorted(found, key=lambda one: (one.seconds, one.at_most))
    raise plan.PlanError(
        f"{topology.name}: no mesh, number of micro-batches or of slots, nor another "
        "optimizer makes the run fit by count; take more chips or model.lora_rank"
    )


def _fitting(config: Config, topology: Topology, moments: str) -> Iterator[Candidate]:
    fused = "splash" if topology.chip.dims else "cudnn"
    attention = fused if fused == "splash" or config.model.dtype == "bfloat16" else "xla"
    names = {"ppo.actor.name": moments, "ppo.critic.name": moments}
    if moments == config.ppo.actor.name:
        names = {}
    fixed = names | {"model.attention": attention}
    shapes = Shapes(dividing.changed(config, fixed))
    for flags in _grid(config, topology):
        flags = fixed | flags
        other = dividing.changed(config, flags)
        try:
            other.validate()
            made = plan.without_knobs(other, topology, shapes)
        except (ShardingError, ConfigError):
            continue
        if made.fits:
            change = {
                name: value
                for name, value in flags.items()
                if look_up(config, name) != value
            }
            yield Candidate(change, made.at_most, made.seconds)


def _grid(config: Config, topology: Topology) -> Iterator[dict[str, Any]]:
    batch = config.batch_size // config.ppo.num_minibatches
    heads = config.model.num_heads
    for mesh in dividing.meshes(topology.size):
        shards = mesh["mesh.data"] * mesh["mesh.fsdp"]
        if batch % shards or heads % mesh["mesh.tensor"]:
            continue
        slots = [n for n in dividing.divisors(config.batch_size) if n % shards == 0]
        layouts = ("replicated", "split") if mesh["mesh.fsdp"] > 1 else ("replicated",)
        micros = dividing.divisors(batch // shards)
        for micro, count, layout in itertools.product(micros, slots[-4:], layouts):
            yield mesh | {
                "ppo.num_micro_batches": micro,
                "sampling.slots": count,
                "sampling.layout": layout,
            }
