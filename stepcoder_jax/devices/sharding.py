"""The device layout: one mesh, one table of rules, and the way in and out for arrays.

The only file that spells axis names. Batches are split over data and fsdp; parameters over
fsdp (their hidden axis) and tensor (heads, inner width, vocabulary).
"""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from stepcoder_jax.devices import gathers
from stepcoder_jax.learning.batching import Layout
from stepcoder_jax.models.transformer import HERE, Places
from stepcoder_jax.records import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepcoder_jax.config import Config, MeshConfig

P = PartitionSpec
AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
# of weights while decoding with sampling.layout split; fsdp last, so that the rows can take
# it from the columns without a look at the rest
SPLIT = ("tensor", "fsdp")

# Path of a parameter (its end, so that optimizer moments match too) -> axes. Every
# parameter matches exactly one rule; there is no catch-all.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"trunk/embed_tokens/embedding", P("tensor", "fsdp")),
    (r"trunk/layers/(q|k|v|gate|up)_proj/kernel", P(None, "fsdp", "tensor")),
    (r"trunk/layers/(o|down)_proj/kernel", P(None, "tensor", "fsdp")),
    (r"trunk/layers/(q|k|v|gate|up)_proj/lora_a", P(None, "fsdp", None)),
    (r"trunk/layers/(q|k|v|gate|up)_proj/lora_b", P(None, None, "tensor")),
    (r"trunk/layers/(o|down)_proj/lora_a", P(None, "tensor", None)),
    (r"trunk/layers/(o|down)_proj/lora_b", P(None, None, "fsdp")),
    (r"trunk/layers/(q|k|v|up)_proj/bias", P(None, "tensor")),
    (r"trunk/layers/(o|down)_proj/bias", P(None, None)),
    (r"trunk/layers/\w+_(layernorm|norm)/(scale|bias)", P(None, None)),
    (r"trunk/norm/(scale|bias)", P(None)),
    (r"lm_head/kernel", P("fsdp", "tensor")),
    (r"value_head/kernel", P("fsdp", None)),
    (r"value_head/bias", P(None)),
)


class ShardingError(InputError):
    """Sizes that do not fit the mesh; the message names the numbers and the field."""


def mesh_sizes(config: MeshConfig, count: int) -> tuple[int, ...]:
    """Devices along each of AXES, of `count` in all; an axis of -1 takes what is left."""
    sizes = [getattr(config, axis) for axis in AXES]
    shown = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes))
    if sizes.count(-1) > 1:
        raise ShardingError(f"mesh {shown}: only one axis of mesh.* may be -1")
    if any(size < 1 and size != -1 for size in sizes):
        raise ShardingError(f"mesh {shown}: axes of mesh.* must be positive, or -1")
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        sizes[sizes.index(-1)] = count // known
    if math.prod(sizes) != count:
        raise ShardingError(
            f"mesh {shown} needs a multiple of {known} devices and exactly their number, "
            f"found {count}; change mesh.data, mesh.fsdp or mesh.tensor"
        )
    return tuple(sizes)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device]) -> Mesh:
    """Lay `devices` out as data x fsdp x tensor; see `mesh_sizes`."""
    sizes = mesh_sizes(config, len(devices))
    return Mesh(np.asarray(devices).reshape(sizes), AXES)  # Auto axes


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Number of parts that a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def check_batch(config: Config, mesh: Mesh | AbstractMesh) -> None:
    """Raise ShardingError unless every micro-batch divides over the mesh."""
    ppo, sampling, shards = config.ppo, config.sampling, batch_shards(mesh)
    parts = ppo.num_minibatches * ppo.num_micro_batches * shards
    if config.batch_size % parts:
        raise ShardingError(
            f"a batch of {config.batch_size} rollouts (sampling.problems_per_step "
            f"{sampling.problems_per_step} x sampling.rollouts_per_problem "
            f"{sampling.rollouts_per_problem}) does not divide into ppo.num_minibatches "
            f"{ppo.num_minibatches} x ppo.num_micro_batches {ppo.num_micro_batches} x "
            f"{shards} devices (mesh.data x mesh.fsdp)"
        )


def find_rule(path: str) -> PartitionSpec:
    """The one rule for a parameter path such as trunk/layers/q_proj/kernel."""
    found = [spec for rule, spec in RULES if re.search(rf"(^|/){rule}$", path)]
    if len(found) != 1:
        raise ShardingError(
            f"parameter {path!r} matches {len(found)} rules of sharding.RULES, expected 1"
        )
    return found[0]


def param_shardings(mesh: Mesh | AbstractMesh, tree: Any) -> Any:
    """A NamedSharding per leaf of a tree of params, optimizer states or a TrainState.

    Leaves need a shape only. Scalars (counts, the step) are replicated. Raises
    ShardingError for a path without exactly one rule, or a size that does not divide.
    """

    def shard(path: Any, leaf: Any) -> NamedSharding:
        if leaf.ndim == 0:
            return NamedSharding(mesh, P())
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if re.search(r"/v_(row|col)/", name) or (leaf.shape == (1,) and "/v/" in name):
            return NamedSharding(mesh, P())  # adafactor's means: small, or not there
        part = name.rpartition("/")[2]
        name = name.removesuffix("/codes").removesuffix("/scales")
        spec = find_rule(name)
        if part == "scales":  # of 8-bit blocks: they may be too few
            divides = (
                n % mesh.shape.get(axis, 1) == 0 for n, axis in zip(leaf.shape, spec)
            )
            spec = P(*(axis if fits else None for axis, fits in zip(spec, divides)))
        for size, axis in zip(leaf.shape, spec, strict=True):
            if axis is not None and size % mesh.shape[axis]:
                raise ShardingError(
                    f"parameter {name} of shape {leaf.shape}: {size} does not divide "
                    f"over mesh.{axis} = {mesh.shape[axis]}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(shard, tree)


def decode_shardings(mesh: Mesh | AbstractMesh, weights: Any, layout: str) -> Any:
    """A NamedSharding per leaf of `decoding.prepare`'s weights: the rules less fsdp.

    Every token reads all weights, so what fsdp splits is gathered once per iteration, not
    once per token. With the layout "split" what tensor splits is split over fsdp as well:
    no device holds a whole copy, and hidden states move in place of weights (see `places`).
    Raises ShardingError where a size does not divide.
    """
    parts = SPLIT if layout == "split" else "tensor"

    def shard(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in ("embed", "head"):
            rule: Any = ("tensor", None) if name == "embed" else (None, "tensor")
        else:
            found, in_layer = re.subn(r"^layers/\d+/", "layers/", name)
            rule = find_rule(f"trunk/{found}")[in_layer:]
        spec = P(*(parts if axis == "tensor" else None for axis in rule))
        sharded = NamedSharding(mesh, spec)
        if layout == "split" and any(
            size % math.prod(mesh.shape[one] for one in SPLIT)
            for size, axis in zip(leaf.shape, spec)
            if axis is not None
        ):
            raise ShardingError(
                f"sampling.layout=split: {name} of shape {leaf.shape} does not divide over "
                f"mesh.fsdp x mesh.tensor = {mesh.shape['fsdp']} x {mesh.shape['tensor']}; "
                "take replicated"
            )
        return sharded

    return jax.tree_util.tree_map_with_path(shard, weights)


def places(mesh: Mesh, layout: str) -> Places:
    """Where hidden states and heads of a token lie while weights lie in `layout`.

    With split weights each device computes its share of every row's products, so hidden
    states are those of all rows of its data shard; the cache stays with its rows.
    """
    if layout != "split":
        return HERE

    def pin(x: jax.Array, rows: Any, columns: Any) -> jax.Array:
        between = (None,) * (x.ndim - 2)
        spec = P(rows) if x.ndim == 1 else P(rows, *between, columns)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    def columns(x: jax.Array) -> jax.Array:
        return pin(x, "data", SPLIT)

    return Places(
        whole=lambda x: pin(x, "data", None),
        columns=columns,
        rows=lambda x: pin(columns(x), BATCH, "tensor"),
    )


def cache_sharding(mesh: Mesh | AbstractMesh, num_kv_heads: int) -> NamedSharding:
    """Rows over data and fsdp; heads over tensor, where their number divides."""
    divides = num_kv_heads % mesh.shape["tensor"] == 0
    return NamedSharding(mesh, P(BATCH, "tensor" if divides else None))


def batch_sharding(mesh: Mesh | AbstractMesh, axis: int) -> NamedSharding:
    """Split axis number `axis` over data and fsdp, nothing else."""
    return NamedSharding(mesh, P(*(None,) * axis, BATCH))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def constrain_batch(mesh: Mesh, tree: Any, axis: int) -> Any:
    """Pin the batch axis of every array inside a jitted program.

    Without it a shuffled gather silently runs the whole batch on every device.
    """
    return jax.lax.with_sharding_constraint(tree, batch_sharding(mesh, axis))


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, to be jitted, with the mesh known to the kernels in it.

    `models.attention` splits its rows over all axes but the last, and its heads over the
    last.
    """

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def layout(mesh: Mesh) -> Layout:
    """The mesh as the pure steps see it."""
    return Layout(functools.partial(constrain_batch, mesh), mesh.shape["tensor"])


def memory(mesh: Mesh) -> int:
    """Bytes that a program may use of a device; 0 where the device does not say."""
    stats = mesh.local_devices[0].memory_stats() or {}
    return int(stats.get("bytes_limit", 0))


HOST = "pinned_host"  # memory of the host that a device can read from


def on_host(mesh: Mesh, shardings: Any) -> Any:
    """The same shardings in the host's memory. Raises ShardingError where there is none."""
    device = mesh.devices.flat[0]
    if HOST not in {memory.kind for memory in device.addressable_memories()}:
        raise ShardingError(
            f"ppo.offload_reference: expected devices that read {HOST} memory, the "
            f"{device.platform} devices of this JAX do not; leave the flag out"
        )
    return jax.tree.map(lambda sharding: sharding.with_memory_kind(HOST), shardings)


def to_devices(tree: Any, shardings: Any) -> Any:
    """Host arrays -> global arrays; every process passes the whole arrays, all equal.

    `shardings` is one sharding for all leaves or a tree of them.
    """
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)

    def put(array: Any, sharding: NamedSharding) -> jax.Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda i: array[i])

    return jax.tree.map(put, tree, shardings)


def to_host(tree: Any) -> Any:
    """`gathers.to_host`: whole numpy arrays on every process; the host's own stay."""
    return gathers.to_host(tree)


def from_first(tree: Any) -> Any:
    """Process 0's host arrays, on every process."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda rows: rows[0], gathers.stack(tree))


def decided(yes: bool) -> bool:
    """The answer of process 0, on every process: clocks must not part the hosts."""
    return bool(from_first(np.asarray(yes)))


def on_first(action: Callable[[], None]) -> None:
    """Let process 0 act, the others wait until it has: for files that all of them share."""
    if jax.process_index() == 0:
        action()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("on_first")
