"""Bytes of each device by kind, from shapes and the sharding rules; no device is needed.

  state       actor, critic and optimizer moments in float32 (8-bit where it says so)
  reference   in the activations' dtype; none with LoRA or with ppo.offload_reference
  gradients   float32; twice with micro-batches, one being added to the other
  kept        what the backward pass of one micro-batch keeps (of actor and critic), and
              what it computes again of one layer, which tensor splits; attention scores
              counted for xla alone
  decoding    the weights that decoding reads, a copy in the activations' dtype
  cache       keys and values of all slots at full width; they may be there twice while
              the cache grows
  at most     the greatest of start (state and a float32 reference), update (state,
              reference, gradients, kept) and sampling (state, reference, decoding, cache
              twice)

`needs` has what each program takes. Not counted: chunks of the vocabulary, XLA's workspace,
fragments; leave a tenth.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import ALGORITHMS
from stepcoder_jax.learning import updates
from stepcoder_jax.models import attention, decoding, lora, policy
from stepcoder_jax.sampling import chunks
from stepcoder_jax.sampling.drawing import Truncation

if TYPE_CHECKING:
    from stepcoder_jax.config import Config, ModelConfig

GIB = 2**30
# Of a device's memory, what a count by shapes may fill: it leaves out XLA's workspace.
SHARE = 0.9
FUSED = ("cudnn", "splash")  # attention that keeps no scores of positions by positions


class Parts(NamedTuple):
    """Bytes of one device, by kind; and the three moments when most of them are there."""

    state: int
    reference: int
    gradients: int
    kept: int
    decoding: int
    cache: int
    start: int
    update: int
    sampling: int
    weights: int  # of actor and critic, a part of state
    moments: int  # the rest of it
    actor: int  # its weights, a part of weights

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


class Shapes:
    """The abstract arrays of a model and its optimizers; a mesh or a batch changes none."""

    def __init__(self, config: Config) -> None:
        self.fused = config.model.attention in FUSED
        # which are traced on their own chips alone; the arrays are the same
        self.model = dataclasses.replace(config.model, attention="xla")
        config = dataclasses.replace(config, model=self.model)
        self.algorithm = ALGORITHMS[config.algorithm]
        key = jax.eval_shape(lambda: jax.random.key(0))
        init = functools.partial(policy.init_params, self.model)
        self.actor = jax.eval_shape(init, key)
        state = functools.partial(updates.init_state, self.algorithm, config)
        self.state = jax.eval_shape(state, self.actor)
        prepare = functools.partial(decoding.prepare, self.model)
        self.prepared = jax.eval_shape(prepare, self.state.actor)
        self._kept: dict[tuple[int, int], tuple[int, int]] = {}

    def kept(self, rows: int, length: int, tensor: int) -> int:
        """Bytes that the backward pass keeps of so many rows of so many tokens.

        Without remat each layer keeps what `tensor` devices split.
        """
        if (rows, length) not in self._kept:
            self._kept[rows, length] = self._count_kept(rows, length)
        whole, split = self._kept[rows, length]
        return whole + split // tensor

    def _count_kept(self, rows: int, length: int) -> tuple[int, int]:
        """Of all layers, and of what is computed in one."""
        model, trunk = self.model, self.state.actor["trunk"]
        networks = 2 if self.algorithm.has_critic and not model.shared_trunk else 1
        one = dataclasses.replace(model, num_layers=1, unroll=1, remat=False)
        layer = {name: x for name, x in trunk.items() if name != "layers"}
        layer["layers"] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), trunk["layers"]
        )
        kept = networks * kept_by(model, trunk, rows, length, self.fused)
        if not model.remat:
            return 0, kept
        return kept, kept_by(one, layer, rows, length, self.fused)


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


def count(config: Config, devices: int, shapes: Shapes | None = None) -> Parts:
    """The parts of `config` on each device; ShardingError where they do not divide.

    `shapes` are those of the same model and optimizers, where they are at hand.
    """
    shapes = Shapes(config) if shapes is None else shapes
    ppo, model, state, actor = config.ppo, shapes.model, shapes.state, shapes.actor
    mesh = AbstractMesh(sharding.mesh_sizes(config.mesh, devices), sharding.AXES)
    sharding.check_batch(config, mesh)
    places = sharding.param_shardings(mesh, state)
    whole, actor_places = bytes_of(state, places), sharding.param_shardings(mesh, actor)
    weights = bytes_of((state.actor, state.critic), (places.actor, places.critic))
    ours = bytes_of(actor, actor_places)
    reference = 0
    if not model.lora_rank and not ppo.offload_reference:
        rounded = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, model.dtype), actor)
        reference = bytes_of(rounded, actor_places)
    trained = (lora.split(state.actor)[0], state.critic)
    gradients = bytes_of(trained, sharding.param_shardings(mesh, _named(trained)))
    if ppo.num_micro_batches > 1:
        gradients *= 2
    decoded = bytes_of(
        shapes.prepared,
        sharding.decode_shardings(mesh, shapes.prepared, config.sampling.layout),
    )
    parts = ppo.num_minibatches * ppo.num_micro_batches * sharding.batch_shards(mesh)
    length = config.prompt.max_prompt_length + config.sampling.max_completion_length
    saved = shapes.kept(config.learnt_rows // parts, length, mesh.shape["tensor"])
    cache = cache_bytes(config, mesh)
    return Parts(
        state=whole,
        reference=reference,
        gradients=gradients,
        kept=saved,
        decoding=decoded,
        cache=cache,
        start=whole + ours + reference,
        update=whole + reference + gradients + saved,
        sampling=whole + reference + decoded + 2 * cache,
        weights=weights,
        moments=whole - weights,
        actor=ours,
    )


def choose_layout(
    config: Config, devices: int, memory: int, shapes: Shapes | None = None
) -> str:
    """`sampling.layout`; where it is auto, split if the whole copy does not fit.

    `memory` are bytes of a device, of which a count by shapes may fill SHARE.
    """
    if config.sampling.layout != "auto":
        return config.sampling.layout
    shapes = Shapes(config) if shapes is None else shapes
    whole = count(config, devices, shapes)
    if whole.sampling <= SHARE * memory:
        return "replicated"
    ours = dataclasses.replace(config.sampling, layout="split")
    try:
        split = count(dataclasses.replace(config, sampling=ours), devices, shapes)
    except sharding.ShardingError:
        return "replicated"
    return "split" if split.sampling < whole.sampling else "replicated"


def _named(trained: tuple[Any, Any]) -> dict[str, Any]:
    return dict(zip(("actor", "critic"), trained))
