"""Programs compiled for TPUs that are not there: memory and traffic by the compiler's word.

libtpu compiles without a chip. The host's own platform stays the CPU, and no array is made.
"""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.experimental import topologies

from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.planning import hlo, programs
from stepcoder_jax.planning.chips import PlanError, Topology
from stepcoder_jax.planning.counting import bytes_of

if TYPE_CHECKING:
    from stepcoder_jax.config import Config

# Read when libtpu is loaded: several processes of one machine may compile, none asks a
# metadata server where it runs, and its log does not reach the terminal.
ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
EOS = (0,)  # which token ends a completion changes no size


class Compiled(NamedTuple):
    """A program as the compiler has it, in bytes of one chip."""

    name: str
    arguments: int
    outputs: int  # those of its own, and those that take an argument's place
    aliases: int  # outputs that take an argument's place
    temporaries: int
    beside: int  # arrays that are there meanwhile, and are none of its arguments
    peak: int  # XLA's own, of the program alone; 0 where it says none
    runs: int  # in an iteration
    seconds: float  # that compiling took
    refused: str  # why it cannot be compiled, where memory is what it lacks
    collectives: tuple[hlo.Collective, ...]  # of one run

    @property
    def own(self) -> int:
        """Arguments, outputs of its own and temporaries."""
        return self.arguments + self.outputs - self.aliases + self.temporaries

    @property
    def total(self) -> int:
        return self.own + self.beside


def require_compiler() -> None:
    """Raise PlanError where libtpu is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise PlanError(
            "compiling for TPUs needs libtpu, which is not installed: pip install -e "
            "'.[tpu]', or --analytic for the count by shapes alone"
        )


def devices_of(topology: Topology) -> list[Any]:
    """The chips of a slice, as the compiler knows them."""
    require_compiler()
    os.environ.update(ENVIRONMENT)
    found = topologies.get_topology_desc(topology.name, platform="tpu").devices
    if len(found) != topology.size:
        raise PlanError(
            f"--topology {topology.name}: libtpu describes {len(found)} devices for its "
            f"{topology.size} chips; --analytic counts by shapes alone"
        )
    return list(found)


def local_bytes(tree: Any) -> int:
    """Bytes of one chip's share of a tree of abstract arrays, in its own memory."""
    ours = [
        leaf
        for leaf in jax.tree.leaves(tree)
        if isinstance(leaf, jax.ShapeDtypeStruct)
        and getattr(leaf.sharding, "memory_kind", None) != sharding.HOST
    ]
    return bytes_of(ours, [leaf.sharding for leaf in ours])


def compile_one(program: programs.Program, mesh: Any) -> Compiled:
    """What the compiler for TPUs says of a program."""
    start = time.monotonic()
    traced = program.jitted.trace(*program.args)
    beside = local_bytes(program.beside)
    blank = Compiled(program.name, 0, 0, 0, 0, beside, 0, program.runs, 0.0, "", ())
    try:
        compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    except jax.errors.JaxRuntimeError as error:
        said = next(iter(str(error).splitlines()), "")
        if "RESOURCE_EXHAUSTED" not in said:
            raise
        found = re.search(r"\(([\d.]+)([GM])\) exceeds", said)
        needed = float(found[1]) * {"G": 2**30, "M": 2**20}[found[2]] if found else 0
        seconds = time.monotonic() - start
        return blank._replace(temporaries=int(needed), refused=said, seconds=seconds)
    memory = compiled.memory_analysis()
    collectives = hlo.collectives(compiled.as_text(), dict(mesh.shape))
    return blank._replace(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliases=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=getattr(memory, "peak_memory_in_bytes", 0),
        seconds=time.monotonic() - start,
        collectives=tuple(hlo.total(collectives)),
    )


def compile_all(config: Config, topology: Topology) -> Iterator[Compiled]:
    """Each program of an iteration, compiled for a slice, in their order."""
    mesh = sharding.make_mesh(config.mesh, devices_of(topology))
    steps = Steps(config, mesh, EOS)
    for program in programs.programs(steps):
        yield compile_one(program, mesh)
