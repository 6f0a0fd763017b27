"""A plan: what a run takes of a slice, whether that fits, and what would make it fit.

Everything is a prediction: no plan has met a chip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from stepcoder_jax.config import ConfigError
from stepcoder_jax.config.paths import look_up
from stepcoder_jax.devices import sharding
from stepcoder_jax.planning import counting, dividing, hlo, needs, roofline, work
from stepcoder_jax.planning.chips import PlanError, Topology
from stepcoder_jax.planning.dividing import changed, meshes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepcoder_jax.config import Config
    from stepcoder_jax.planning.compiling import Compiled
    from stepcoder_jax.planning.counting import Parts, Shapes

LABEL = "prediction by shapes, formulas and published peaks; none has met a chip"
# CPU ms of the judge for a program with ten short tests: 3.3 for the first, 3 for another
JUDGE_MS = 30.0
DISK = 1e9  # bytes per second that a host writes, to have a figure
# which programs are a part of an iteration
PARTS = {
    "prepare": ("prepare",),
    "read": ("read", "fill", "resize", "empty"),
    "decode": ("advance",),
    "learn": ("learn", "experience", "update", "gather"),
}


class Knob(NamedTuple):
    """A change of the config, and what it would leave of the greatest need."""

    flags: dict[str, Any]
    at_most: int
    saved: int  # bytes of a chip


class Plan(NamedTuple):
    """What a run takes of a slice."""

    topology: Topology
    mesh: dict[str, int]
    layout: str  # of the weights while decoding
    parts: Parts
    needs: dict[str, int]  # bytes of a chip in each program, by shapes
    predicted: tuple[roofline.Predicted, ...]
    rollouts: int  # of an iteration
    state_bytes: int  # of the whole training state
    compiled: tuple[Compiled, ...]  # none: by shapes alone
    knobs: tuple[Knob, ...]  # where it does not fit
    judge_ms: float

    @property
    def at_most(self) -> int:
        """The greatest need of a chip: the compiler's, or else the count's."""
        if self.compiled:
            return max(program.total for program in self.compiled)
        return self.parts.at_most

    @property
    def fits(self) -> bool:
        if any(program.refused for program in self.compiled):
            return False
        share = 1.0 if self.compiled else counting.SHARE
        return self.at_most <= share * self.topology.chip.memory

    @property
    def seconds(self) -> float:
        return roofline.iteration(self.predicted)[0]

    @property
    def bound(self) -> str:
        return roofline.iteration(self.predicted)[1]

    @property
    def judge_cores(self) -> float:
        """Cores of a host that judge its rollouts while they are decoded."""
        decode = next(part.seconds for part in self.predicted if part.name == "decode")
        seconds = self.rollouts / self.topology.hosts * self.judge_ms / 1000
        return seconds / decode

    @property
    def collectives(self) -> list[hlo.Collective]:
        """Those of an iteration, most received first; `op` begins with the program."""
        return sorted(
            (
                one._replace(
                    received=one.received * program.runs,
                    trips=one.trips * program.runs,
                    op=f"{program.name}: {one.op}",
                )
                for program in self.compiled
                for one in program.collectives
                if program.runs
            ),
            key=lambda one: -one.received,
        )


def make_plan(
    config: Config,
    topology: Topology,
    compiled: Sequence[Compiled] = (),
    shapes: Shapes | None = None,
    judge_ms: float = JUDGE_MS,
) -> Plan:
    """The plan of a config on a slice; PlanError, with what is near, if it cannot divide.

    Of the interconnect the compiler's word is taken where there is one.
    """
    shapes = counting.Shapes(config) if shapes is None else shapes
    try:
        plan = without_knobs(config, topology, shapes, compiled, judge_ms)
    except sharding.ShardingError as error:
        work = dividing.rollouts(config, topology.size, shapes)
        near = dividing.nearest(config, topology.size, *work)
        said = f"{topology.name}: {error}; {dividing.tell(near)}"
        raise PlanError(said) from error
    return plan if plan.fits else plan._replace(knobs=find_knobs(config, topology))


def without_knobs(
    config: Config,
    topology: Topology,
    shapes: Shapes,
    compiled: Sequence[Compiled] = (),
    judge_ms: float = JUDGE_MS,
) -> Plan:
    """As `make_plan`, without what would help; ShardingError if it cannot divide."""
    config = settled(config, topology, shapes)
    layout = config.sampling.layout
    parts = counting.count(config, topology.size, shapes)
    mesh = work.mesh_of(config, topology.size)
    done = work.parts_of(config, shapes, mesh, parts, layout)
    for name, programs in PARTS.items():
        found = [program for program in compiled if program.name in programs]
        if found and not any(program.refused for program in found):
            received = sum(hlo.received(one.collectives) * one.runs for one in found)
            done[name] = done[name]._replace(traffic=received)
    return Plan(
        topology=topology,
        mesh=mesh,
        layout=layout,
        parts=parts,
        needs=needs.by_program(config, shapes, mesh, parts),
        predicted=tuple(
            roofline.predict(name, each, topology.chip) for name, each in done.items()
        ),
        rollouts=config.batch_size,
        state_bytes=counting.bytes_of(shapes.state),
        compiled=tuple(compiled),
        knobs=(),
        judge_ms=judge_ms,
    )


def settled(config: Config, topology: Topology, shapes: Shapes) -> Config:
    """The config with the layout that decoding takes on a slice."""
    layout = counting.choose_layout(config, topology.size, topology.chip.memory, shapes)
    return changed(config, {"sampling.layout": layout})


def find_knobs(config: Config, topology: Topology) -> tuple[Knob, ...]:
    """Changes that lower the greatest need, by GiB; those that do not divide are left out.

    Each is tried alone, by shapes.
    """
    same = counting.Shapes(config)
    before = counting.count(config, topology.size, same).at_most
    found = []
    for flags in candidates(config, topology):
        other = changed(config, flags)
        try:
            other.validate()
            shapes = None if any(map(_shapes_change, flags)) else same
            after = counting.count(other, topology.size, shapes).at_most
        except (sharding.ShardingError, ConfigError):
            continue
        if after < before:
            found.append(Knob(flags, after, before - after))
    return tuple(sorted(found, key=lambda knob: -knob.saved))


def _shapes_change(name: str) -> bool:
    """Whether a field changes what `counting.Shapes` holds."""
    kept = ("mesh.", "sampling.", "ppo.num_", "ppo.offload")
    return not name.startswith(kept)


def candidates(config: Config, topology: Topology) -> list[dict[str, Any]]:
    """Changes that may save memory of a chip."""
    slots = config.sampling.slots or config.batch_size
    micro = config.ppo.num_micro_batches
    mesh = sharding.mesh_sizes(config.mesh, topology.size)
    fused = "splash" if topology.chip.dims else "cudnn"
    tried: list[dict[str, Any]] = [
        {"sampling.layout": "split"},
        {"sampling.slots": slots // 2},
        {"sampling.slots": slots // 4},
        {"ppo.num_micro_batches": 2 * micro},
        {"ppo.num_micro_batches": 4 * micro},
        {"model.attention": fused},
        {"model.remat": True},
        {"model.dtype": "bfloat16"},
        {"ppo.actor.name": "adamw8bit", "ppo.critic.name": "adamw8bit"},
        {"ppo.actor.name": "adafactor", "ppo.critic.name": "adafactor"},
        {"model.lora_rank": 32},
        {"algorithm": "grpo"},
    ]
    if not topology.chip.dims:
        tried.append({"ppo.offload_reference": True})
    own = dict(zip(("mesh.data", "mesh.fsdp", "mesh.tensor"), mesh))
    tried += [one for one in meshes(topology.size) if one["mesh.data"] == 1 and one != own]
    return [
        flags
        for flags in tried
        if any(value and look_up(config, name) != value for name, value in flags.items())
    ]


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON can hold it."""
    chip = plan.topology.chip
    return {
        "label": LABEL,
        "topology": plan.topology.name,
        "chips": plan.topology.size,
        "hosts": plan.topology.hosts,
        "mesh": plan.mesh,
        "layout": plan.layout,
        "capacity": chip.memory,
        "by": "compiler" if plan.compiled else "count",
        "at_most": plan.at_most,
        "fits": plan.fits,
        "counted": plan.parts._asdict() | {"at_most": plan.parts.at_most},
        "counted_by_program": plan.needs,
        "programs": [
            {
                **{
                    name: value
                    for name, value in program._asdict().items()
                    if name != "collectives"
                },
                "total": program.total,
                "received": hlo.received(program.collectives),
            }
            for program in plan.compiled
        ],
        "collectives": [one._asdict() for one in hlo.total(plan.collectives)[:10]],
        "received": hlo.received(plan.collectives),
        "parts": [
            part._asdict() | {"seconds": part.seconds, "bound": part.bound}
            for part in plan.predicted
        ],
        "seconds_per_iteration": plan.seconds,
        "rollouts_per_second": plan.rollouts / plan.seconds,
        "bound": plan.bound,
        "judge_ms": plan.judge_ms,
        "judge_cores_per_host": plan.judge_cores,
        "checkpoint_bytes_per_host": plan.state_bytes / plan.topology.hosts,
        "checkpoint_seconds": plan.state_bytes / plan.topology.hosts / DISK,
        "knobs": [knob._asdict() for knob in plan.knobs],
    }
