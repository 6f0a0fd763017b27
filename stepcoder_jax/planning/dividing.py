"""What does not divide over the devices, and the least change after which all does."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.sharding import AbstractMesh

from stepcoder_jax.config import ConfigError
from stepcoder_jax.config.paths import look_up, put
from stepcoder_jax.devices import sharding
from stepcoder_jax.models import policy
from stepcoder_jax.planning.counting import Shapes

if TYPE_CHECKING:
    from stepcoder_jax.config import Config

_MOST_TRIED = 200


class Rows(NamedTuple):
    """What the rows of an update are made of."""

    groups: str  # the flag of how many there are
    group: int  # rows of each
    parts: int  # of a batch, beside devices and micro-batches
    micro: str  # the flag of how many micro-batches a part has


Check = Callable[["Config"], object]  # raises ShardingError or ConfigError
Work = tuple[Rows, Check]


def written(flags: dict[str, Any]) -> str:
    """Changes as they are given on the command line."""
    return " ".join(f"--{name} {value}" for name, value in flags.items())


def changed(config: Config, flags: dict[str, Any]) -> Config:
    """A copy of the config with other values."""
    other = copy.deepcopy(config)
    for name, value in flags.items():
        put(other, name, value)
    return other


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def meshes(devices: int) -> list[dict[str, Any]]:
    """All meshes of so many devices, as flags."""
    return [
        {"mesh.data": devices // (fsdp * tensor), "mesh.fsdp": fsdp, "mesh.tensor": tensor}
        for fsdp in divisors(devices)
        for tensor in divisors(devices // fsdp)
    ]


def rollouts(config: Config, devices: int, shapes: Shapes | None = None) -> Work:
    """RL: its rows are the rollouts of each problem."""
    known = Shapes(config) if shapes is None else shapes
    rows = Rows(
        "sampling.problems_per_step",
        config.sampling.rollouts_per_problem,
        config.ppo.num_minibatches,
        "ppo.num_micro_batches",
    )

    def check(other: Config) -> None:
        mesh = AbstractMesh(sharding.mesh_sizes(other.mesh, devices), sharding.AXES)
        sharding.check_batch(other, mesh)
        sharding.param_shardings(mesh, known.state)
        sharding.decode_shardings(mesh, known.prepared, other.sampling.layout)

    return rows, check


def examples(config: Config, devices: int) -> Work:
    """SFT: its rows are those of a batch of text."""
    init = functools.partial(policy.init_params, config.model)
    actor = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))

    def check(other: Config) -> None:
        mesh = AbstractMesh(sharding.mesh_sizes(other.mesh, devices), sharding.AXES)
        settings, shards = other.sft, sharding.batch_shards(mesh)
        if settings.batch_size % (settings.num_micro_batches * shards):
            raise sharding.ShardingError(
                f"sft.batch_size: {settings.batch_size} does not divide into "
                f"sft.num_micro_batches {settings.num_micro_batches} x {shards} devices "
                "(mesh.data x mesh.fsdp)"
            )
        sharding.param_shardings(mesh, actor)

    return Rows("sft.batch_size", 1, 1, "sft.num_micro_batches"), check


@contextlib.contextmanager
def told(
    config: Config, devices: int, work: Callable[[Config, int], Work] = rollouts
) -> Iterator[None]:
    """A ShardingError names what is near and divides, if that is what is missing."""
    try:
        yield
    except sharding.ShardingError as error:
        near = nearest(config, devices, *work(config, devices))
        if near == {}:  # it is another matter
            raise
        raise sharding.ShardingError(f"{error}; {tell(near)}") from error


def tell(near: dict[str, Any] | None) -> str:
    """What `nearest` has found, in words."""
    return "nothing near it does" if near is None else f"nearest: {written(near)}"


def nearest(
    config: Config, devices: int, rows: Rows, check: Check
) -> dict[str, Any] | None:
    """The least change of mesh, micro-batches or rows after which `check` is content.

    None where there is none near; an axis that takes what is left is not named.
    """
    now = look_up(config, rows.groups)
    found = []
    for mesh in (_own_mesh(config, devices), *meshes(devices)):
        if mesh is None:
            continue
        shards = mesh["mesh.data"] * mesh["mesh.fsdp"] * rows.parts
        need = math.lcm(shards, rows.group) // rows.group
        for count in {max(need, now // need * need), -(-now // need) * need}:
            for micro in divisors(count * rows.group // shards):
                flags = {**mesh, rows.micro: micro, rows.groups: count}
                found.append((_distance(config, devices, flags, rows), flags))
    for _, flags in sorted(found, key=lambda pair: pair[0])[:_MOST_TRIED]:
        try:
            check(changed(config, flags))
        except (sharding.ShardingError, ConfigError):
            continue
        taken = [f"mesh.{axis}" for axis in sharding.AXES]
        free = [name for name in taken if look_up(config, name) == -1]
        return {
            name: value
            for name, value in flags.items()
            if look_up(config, name) != value and free != [name]
        }
    return None


def _own_mesh(config: Config, devices: int) -> dict[str, Any] | None:
    try:
        sizes = sharding.mesh_sizes(config.mesh, devices)
    except sharding.ShardingError:
        return None
    return {f"mesh.{axis}": size for axis, size in zip(sharding.AXES, sizes)}


def _distance(config: Config, devices: int, flags: dict[str, Any], rows: Rows) -> float:
    """Sum of log-ratios, a change of the mesh or of the rows counting double."""
    own = _own_mesh(config, devices) or {}
    total = 0.0
    for name, value in flags.items():
        old = own.get(name, look_up(config, name))
        weight = 1 if name == rows.micro else 2
        total += weight * abs(math.log2(value / old)) if old > 0 else 0.0
    return total
