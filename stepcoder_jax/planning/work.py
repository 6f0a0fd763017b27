"""What each part of an iteration computes and moves on one chip, by formula.

FLOPs of a product of n weights by t tokens are 2 n t; attention's 4 heads D c per token and
layer, with c positions seen, half of a row's in a causal pass. XLA's own count takes the
body of a loop once, so it is not used. Rows count at full length.

Memory is weights, optimizer state, activations between products, logits and the cache, each
as often as it is read or written. Traffic is what a chip receives: weights gathered over
fsdp, sums over tensor and of gradients. Both leave out what is small.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import jax

from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import ALGORITHMS
from stepcoder_jax.learning import updates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepcoder_jax.config import Config
    from stepcoder_jax.planning.counting import Parts, Shapes

HOP = 1e-6  # seconds for a message to reach the next chip (scaling-book, part 3)


class Work(NamedTuple):
    """Of one chip, in one iteration."""

    flops: float
    memory: float  # bytes read from its memory and written to it
    traffic: float  # bytes received from other chips
    hops: float  # messages to a neighbour that wait for each other


class Sizes(NamedTuple):
    """Numbers that the formulas share."""

    layers: int  # weights of all layers' products
    head: int  # those of the vocabulary's
    width: int  # values between the products of all layers, per token
    mixed: float  # FLOPs of attention per token and position seen
    devices: int
    batch: int  # parts that rows are split into
    fsdp: int
    tensor: int


def sizes_of(config: Config, shapes: Shapes, mesh: Mapping[str, int]) -> Sizes:
    """From the abstract actor and the mesh."""
    model = config.model
    flat = jax.tree_util.tree_leaves_with_path(shapes.actor["trunk"]["layers"])
    kernels = [x for path, x in flat if path[-1].key == "kernel"]
    heads = model.num_heads * model.head_dim
    return Sizes(
        layers=sum(math.prod(x.shape) for x in kernels),
        head=model.hidden_size * model.vocab_size,
        width=sum(x.shape[0] * (x.shape[1] + x.shape[2]) for x in kernels),
        mixed=4.0 * model.num_layers * heads,
        devices=math.prod(mesh.values()),
        batch=mesh["data"] * mesh["fsdp"],
        fsdp=mesh["fsdp"],
        tensor=mesh["tensor"],
    )


def passes(config: Config) -> tuple[float, float, float]:
    """Forward passes over trunks, those over heads, and weight gathers of an iteration.

    A backward pass counts two, one where adapters alone have gradients; remat adds one.
    """
    ppo, model = config.ppo, config.model
    algorithm = ALGORITHMS[config.algorithm]
    networks = 2 if algorithm.has_critic and not model.shared_trunk else 1
    back = (1 if model.lora_rank else 2) + (model.remat and model.remat_policy == "nothing")
    if updates.learns_in_one_pass(algorithm, config):
        return networks * (1 + back) + 1, 4 + 2, 2 * networks + 1
    epochs = ppo.num_epochs
    trunks = networks + 1 + epochs * networks * (1 + back)
    return trunks, 2 + 4 * epochs, networks + 1 + epochs * 2 * networks


def learning(config: Config, sizes: Sizes, parts: Parts) -> Work:
    """Experience and updates."""
    ppo, ours = config.ppo, config.sampling
    columns = ours.max_completion_length
    length = config.prompt.max_prompt_length + columns
    rows = config.learnt_rows
    trunks, heads, gathers = passes(config)
    flops = trunks * rows * length * (2 * sizes.layers + sizes.mixed * length / 2)
    flops += heads * rows * columns * 2 * sizes.head
    micro = ppo.num_minibatches * ppo.num_micro_batches
    steps = ppo.num_epochs * ppo.num_minibatches
    matrices = 2.0 * (sizes.layers + sizes.head) / sizes.tensor  # bfloat16
    here = rows / sizes.batch  # rows of a chip
    logits = 4.0 * here * columns * sizes.head / config.model.hidden_size / sizes.tensor
    memory = micro * trunks * matrices * (2 if sizes.fsdp > 1 else 1)
    memory += trunks * here * length * 2 * sizes.width / sizes.tensor
    memory += 2 * heads * logits + 3 * micro * parts.gradients / 2
    memory += steps * (2 * parts.state + parts.gradients)
    traffic = micro * gathers * matrices * (sizes.fsdp - 1) / sizes.fsdp
    # gradients are added over chips in float32, micro-batch by micro-batch
    whole = parts.gradients / (2 if ppo.num_micro_batches > 1 else 1) * sizes.fsdp
    traffic += micro * ppo.num_epochs * 2 * (sizes.batch - 1) / sizes.batch * whole
    among = 2 * (sizes.tensor - 1) / sizes.tensor
    layers = config.model.num_layers
    hidden = here * length * 2 * config.model.hidden_size
    traffic += 2 * layers * trunks * hidden * among
    hops = layers * micro * (gathers * sizes.fsdp + 2 * trunks * (sizes.tensor - 1))
    return Work(flops / sizes.devices, memory, traffic, hops)


def reading(config: Config, sizes: Sizes) -> Work:
    """Prompts, each once for all of its rollouts."""
    ours, length = config.sampling, config.prompt.max_prompt_length
    rows = ours.problems_per_step
    flops = rows * length * (2 * sizes.layers + sizes.mixed * length / 2)
    slots = ours.slots or config.batch_size
    at_once = max(sizes.batch, slots // ours.rollouts_per_problem)
    reads = -(-rows // at_once)
    # a chip has at least one row, were it padding
    flops *= max(1.0, reads * at_once / rows) / sizes.devices
    matrices = 2.0 * (sizes.layers + sizes.head) / sizes.tensor
    here = max(1.0, rows / sizes.batch)
    memory = reads * matrices * (2 if sizes.fsdp > 1 else 1)
    memory += here * length * 2 * sizes.width / sizes.tensor
    traffic = reads * matrices * (sizes.fsdp - 1) / sizes.fsdp
    hops = reads * config.model.num_layers * (sizes.fsdp - 1)
    return Work(flops, memory, traffic, hops)


def preparing(sizes: Sizes, parts: Parts, layout: str) -> Work:
    """The copy of the weights that decoding reads, gathered or moved."""
    whole = 2.0 * (sizes.layers + sizes.head) / sizes.tensor
    share = whole / sizes.fsdp if layout == "split" else whole
    traffic = share * (sizes.fsdp - 1) / sizes.fsdp
    return Work(0.0, parts.weights / 2 + 2 * parts.decoding, traffic, sizes.fsdp - 1)


def decoding_steps(config: Config) -> int:
    """Tokens drawn one after the other, every rollout being of full length."""
    slots = config.sampling.slots or config.batch_size
    return -(-config.batch_size // slots) * config.sampling.max_completion_length


def decoding(config: Config, sizes: Sizes, parts: Parts, layout: str) -> Work:
    """All tokens of an iteration, one after the other in each slot."""
    model, ours = config.model, config.sampling
    columns, prompt = ours.max_completion_length, config.prompt.max_prompt_length
    slots = max(ours.slots or config.batch_size, sizes.batch)
    steps, seen = decoding_steps(config), prompt + columns / 2
    flops = slots * (2 * (sizes.layers + sizes.head) + sizes.mixed * seen) / sizes.devices
    # halvings of the threshold read all probabilities again
    looks = 6 + 31 * (ours.top_p < 1 or ours.top_k > 0)
    memory = parts.decoding + parts.cache * seen / (prompt + columns)
    memory += looks * 4 * slots * model.vocab_size / sizes.batch
    within = sizes.tensor * (sizes.fsdp if layout == "split" else 1)
    rows = slots / sizes.batch * (sizes.fsdp if layout == "split" else 1)
    sums = 2 * (within - 1) / within
    traffic = 2 * model.num_layers * rows * model.hidden_size * 2 * sums
    hops = 2.0 * model.num_layers * (within - 1)
    if layout == "split":  # queries, keys and values to their rows, and mixed ones back
        heads = (model.num_heads + model.num_kv_heads) * model.head_dim
        traffic += model.num_layers * 2 * 2 * heads * rows / within
        traffic += 4 * rows * model.vocab_size / within
        hops *= 2
    return Work(steps * flops, steps * memory, steps * traffic, steps * hops)


def parts_of(
    config: Config, shapes: Shapes, mesh: Mapping[str, int], parts: Parts, layout: str
) -> dict[str, Work]:
    """The work of each part of an iteration, in their order."""
    sizes = sizes_of(config, shapes, mesh)
    return {
        "prepare": preparing(sizes, parts, layout),
        "read": reading(config, sizes),
        "decode": decoding(config, sizes, parts, layout),
        "learn": learning(config, sizes, parts),
    }


def mesh_of(config: Config, devices: int) -> dict[str, int]:
    """Sizes of the mesh's axes, of so many devices."""
    return dict(zip(sharding.AXES, sharding.mesh_sizes(config.mesh, devices)))
