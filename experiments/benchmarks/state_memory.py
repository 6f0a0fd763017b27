"""How many GiB of each device an experiment's run takes, part by part, before it is run.

python experiments/benchmarks/state_memory.py EXPERIMENT[:ARG] [...] [--devices N]
    [--compile]

Prints a Markdown row per experiment. Sizes are those of the arrays that the run makes, by
jax.eval_shape and the sharding rules, on the mesh of N devices that need not be there:

  state       actor, critic and optimizer moments in float32 (8-bit where it says so)
  reference   in the activations' dtype; none with LoRA or with ppo.offload_reference
  gradients   float32; twice with micro-batches, one being added to the other
  kept        what the backward pass of one micro-batch keeps (of actor and critic), and
              what it computes again of one layer; attention scores counted for xla alone
  decoding    the weights that decoding reads, a copy in the activations' dtype
  cache       keys and values of all slots at full width; they may be there twice while
              the cache grows
  at most     the greatest of start (state and a float32 reference), update (state,
              reference, gradients, kept) and sampling (state, reference, decoding, cache
              twice)

Not counted: chunks of the vocabulary, XLA's workspace, fragments; leave a tenth. --compile
asks XLA what the update needs beside its inputs (one device, of the kind at hand; a CPU
widens bfloat16 and tells too much).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh

from stepcoder_jax.config import Config, ModelConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import ALGORITHMS, Steps
from stepcoder_jax.learning import updates
from stepcoder_jax.models import attention, decoding, lora, policy
from stepcoder_jax.pytrees import Experience
from stepcoder_jax.runs.experiment import load_experiment
from stepcoder_jax.sampling import chunks
from stepcoder_jax.sampling.drawing import Truncation

GIB = 2**30


class Parts(NamedTuple):
    """Bytes of one device."""

    state: int
    reference: int
    gradients: int
    kept: int
    decoding: int
    cache: int
    start: int
    update: int
    sampling: int

    @property
    def at_most(self) -> int:
        return max(self.start, self.update, self.sampling)


def bytes_of(tree: Any, shardings: Any = None) -> int:
    """Bytes of a tree's arrays; of one device's share where shardings are given."""
    if shardings is None:
        shapes = [x.shape for x in jax.tree.leaves(tree)]
    else:
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
        shapes = [s.shard_shape(x.shape) for x, s in pairs]
    sizes = (x.dtype.itemsize for x in jax.tree.leaves(tree))
    return sum(math.prod(shape) * size for shape, size in zip(shapes, sizes))


def kept_by(model: ModelConfig, trunk: Any, rows: int, length: int, fused: bool) -> int:
    """Bytes that the backward pass of a trunk keeps beside the weights.

    `fused`: an attention that keeps no scores of positions by positions.
    """
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)

    def backward(trunk: Any, tokens: Any) -> Any:
        return jax.vjp(lambda t: policy.hidden_states(model, t, tokens), trunk)[1]

    weights = {x.shape for x in jax.tree.leaves(trunk)}
    weights |= {x.shape[1:] for x in jax.tree.leaves(trunk["layers"])}
    # in one block its scores are known by their shape
    blocks = 1 if fused else attention.MOST_BLOCKS
    with mock.patch.object(attention, "MOST_BLOCKS", blocks):
        kept = jax.tree.leaves(jax.eval_shape(backward, trunk, tokens))
    saved = [x for x in kept if x.shape not in weights]
    if fused:
        saved = [x for x in saved if x.shape[-2:] != (length, length)]
    return bytes_of(saved)


def kept(config: Config, actor: Any, shards: int, fused: bool) -> int:
    """Bytes kept of one micro-batch, of the longest rows, on one device."""
    ppo, model = config.ppo, config.model
    rows = config.batch_size // (ppo.num_minibatches * ppo.num_micro_batches * shards)
    length = config.prompt.max_prompt_length + config.sampling.max_completion_length
    has_critic = ALGORITHMS[config.algorithm].has_critic
    networks = 2 if has_critic and not model.shared_trunk else 1
    one = dataclasses.replace(model, num_layers=1, unroll=1, remat=False)
    layer = {name: x for name, x in actor["trunk"].items() if name != "layers"}
    layer["layers"] = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), actor["trunk"]["layers"]
    )
    again = kept_by(one, layer, rows, length, fused) if model.remat else 0
    return networks * kept_by(model, actor["trunk"], rows, length, fused) + again


def cache_bytes(config: Config, mesh: AbstractMesh) -> int:
    """Bytes of all slots' keys and values on one device, at full width."""
    shards, ours = sharding.batch_shards(mesh), config.sampling
    slots = -(-(ours.slots or config.batch_size) // shards) * shards
    columns = config.prompt.max_prompt_length + ours.max_completion_length + ours.chunk
    settings = chunks.SamplerSettings(
        Truncation(1.0), ours.max_completion_length, ours.chunk, (0,)
    )
    make = functools.partial(chunks.empty_state, config.model, settings, slots, columns)
    cache = jax.eval_shape(make).cache
    place = sharding.cache_sharding(mesh, config.model.num_kv_heads)
    return bytes_of(cache, jax.tree.map(lambda _: place, cache))


def count(config: Config, devices: int) -> Parts:
    """The parts of `config` on each device; ShardingError where they do not divide."""
    fused = config.model.attention == "cudnn"
    # which is traced on GPUs alone; the arrays are the same
    model = dataclasses.replace(config.model, attention="xla")
    config = dataclasses.replace(config, model=model)
    mesh = AbstractMesh(sharding.mesh_sizes(config.mesh, devices), sharding.AXES)
    sharding.check_batch(config, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    actor = jax.eval_shape(functools.partial(policy.init_params, model), key)
    init = functools.partial(updates.init_state, ALGORITHMS[config.algorithm], config)
    state = jax.eval_shape(init, actor)
    places = sharding.param_shardings(mesh, state)
    whole, actor_places = bytes_of(state, places), sharding.param_shardings(mesh, actor)
    reference = 0
    if not model.lora_rank and not config.ppo.offload_reference:
        rounded = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, model.dtype), actor)
        reference = bytes_of(rounded, actor_places)
    trained = (lora.split(state.actor)[0], state.critic)
    gradients = bytes_of(trained, sharding.param_shardings(mesh, _named(trained)))
    if config.ppo.num_micro_batches > 1:
        gradients *= 2
    prepare = functools.partial(decoding.prepare, model)
    weights = jax.eval_shape(prepare, state.actor)
    decoded = bytes_of(weights, sharding.decode_shardings(mesh, weights))
    saved = kept(config, state.actor, sharding.batch_shards(mesh), fused)
    cache = cache_bytes(config, mesh)
    return Parts(
        state=whole,
        reference=reference,
        gradients=gradients,
        kept=saved,
        decoding=decoded,
        cache=cache,
        start=whole + bytes_of(actor, actor_places) + reference,
        update=whole + reference + gradients + saved,
        sampling=whole + reference + decoded + 2 * cache,
    )


def _named(trained: tuple[Any, Any]) -> dict[str, Any]:
    return dict(zip(("actor", "critic"), trained))


def compiled(config: Config) -> int:
    """Bytes that the update needs beside its inputs, as XLA says for one device."""
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    steps = Steps(config, mesh, (0,))
    rows, columns = config.batch_size, config.sampling.max_completion_length
    length = config.prompt.max_prompt_length + columns
    number = jax.ShapeDtypeStruct((rows,), np.int32)
    array = jax.ShapeDtypeStruct((rows, columns), np.float32)
    mask = jax.ShapeDtypeStruct((rows, columns), bool)
    values = array if steps.abstract_state.critic is not None else None
    tokens = jax.ShapeDtypeStruct((rows, length), np.int32)
    experience = Experience(
        tokens, number, number, mask, mask, array, array, values, array, values
    )
    program = steps.update_program.lower(steps.abstract_state, experience).compile()
    return program.memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("experiments", nargs="+")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    flags = parser.parse_args()
    names = [*Parts._fields[:6], "at most", *(["XLA's update"] if flags.compile else [])]
    print(f"| GiB on each of {flags.devices} | {' | '.join(names)} |")
    print("|" + "---|" * (len(names) + 1))
    for name in flags.experiments:
        config = load_experiment(name)
        config.validate()
        parts = count(config, flags.devices)
        sizes = [*parts[:6], parts.at_most]
        if flags.compile:
            sizes.append(compiled(config))
        shown = " | ".join(f"{size / GIB:.1f}" for size in sizes)
        print(f"| {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
