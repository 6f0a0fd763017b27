"""Plans of large runs, compiled for TPUs that are not there: a JSON per row, resumable.

python experiments/benchmarks/plans.py compile [ROW ...] [--programs learn advance ...]
python experiments/benchmarks/plans.py show [ROW ...]
python experiments/benchmarks/plans.py counts
python experiments/benchmarks/plans.py received [ROW ...]
python experiments/benchmarks/plans.py grow
python experiments/benchmarks/plans.py layouts
python experiments/benchmarks/plans.py shares

`compile` asks libtpu for the programs of each row that experiments/results/plans/ does not
have yet, one by one, and writes each down as it comes (minutes each); with `--programs`
and nothing behind it, it only counts anew. `show` prints the
tables that the presets' docstrings have: figures in brackets are counted by shapes, for
want of the compiler's. `counts` sets the count beside the compiler's word, `received` lists
the largest collectives, `grow` counts 16 to 512 chips, `layouts` what split weights save
and cost, `shares` has XLA's FLOPs and bytes of one of 1 to 8 simulated devices. All are
predictions: none has met a chip.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from stepcoder_jax.config import Config, MeshConfig, ModelConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.planning import (
    chips,
    compiling,
    counting,
    dividing,
    hlo,
    plan,
    programs,
    showing,
    work,
)
from stepcoder_jax.runs.experiment import load_experiment

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "results" / "plans"
# in the order in which they are asked for: what may not fit first, what takes long last
NAMES = ["prepare", "learn", "fill", "resize", "empty", "init", "gather", "read"]
NAMES += ["advance"]
ORDER = ["init", "prepare", "empty", "read", "fill", "resize", "advance", "learn"]
ORDER += ["gather"]
SHOWN = ("prepare", "read", "fill", "resize", "advance", "learn")
MAIN = ("prepare", "read", "advance", "learn")  # the largest of each of plan.PARTS
KEPT = 12  # collectives of a program that a row keeps, and the sum of the rest


class Row(NamedTuple):
    """A run on a slice."""

    experiment: str
    topology: str
    flags: dict[str, Any]


PAPER, SMALL = "experiments/paper.py", "experiments/paper_1b.py"
ROWS = {
    "v5e-16": Row(f"{SMALL}:@v5e-16", "v5e:4x4", {}),
    "v5e-64": Row(f"{PAPER}:@v5e-64", "v5e:8x8", {}),
    "v5p-16": Row(f"{PAPER}:@v5p-16", "v5p:2x2x2", {}),
    "v6e-32": Row(f"{PAPER}:@v6e-32", "v6e:4x8", {}),
    "v5p-128": Row(f"{PAPER}:@v5p-128", "v5p:4x4x4", {}),
}


def config_of(row: Row) -> Config:
    """The config of a row, as the layout of its decoding is settled."""
    config = dividing.changed(load_experiment(str(ROOT / row.experiment)), row.flags)
    config.validate()
    return plan.settled(config, chips.parse(row.topology), counting.Shapes(config))


def load(name: str) -> dict[str, Any]:
    """What has been compiled of a row."""
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else ROWS[name]._asdict()


def save(name: str, found: dict[str, Any]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    new = FOLDER / f"{name}.json.new"
    new.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(new, FOLDER / f"{name}.json")


def compiled_of(found: dict[str, Any]) -> list[compiling.Compiled]:
    """The compiler's word, in the order of an iteration."""
    rows = found.get("programs", {})
    return [
        compiling.Compiled(
            **{
                **rows[name],
                "collectives": tuple(
                    hlo.Collective(**x) for x in rows[name]["collectives"]
                ),
            }
        )
        for name in ORDER
        if name in rows
    ]


def shorten(one: compiling.Compiled) -> dict[str, Any]:
    """A program as a row keeps it."""
    first, rest = one.collectives[:KEPT], one.collectives[KEPT:]
    if rest:
        left = hlo.Collective("", "", "", hlo.received(rest), 0, f"{len(rest)} others")
        first = (*first, left)
    seconds = round(one.seconds, 1)
    kept = one._replace(seconds=seconds, collectives=())._asdict()
    return kept | {"collectives": [x._asdict() for x in first]}


def compile_row(name: str, wanted: list[str]) -> None:
    """Compile what a row lacks of the wanted programs, and save each."""
    row = ROWS[name]
    if not set(wanted) - load(name).get("programs", {}).keys():
        return
    config, topology = config_of(row), chips.parse(row.topology)
    mesh = sharding.make_mesh(config.mesh, compiling.devices_of(topology))
    there = {one.name: one for one in programs.programs(Steps(config, mesh, (0,)))}
    for program in (there[one] for one in NAMES if one in wanted and one in there):
        found = load(name)
        if program.name in found.get("programs", {}):
            continue
        one = compiling.compile_one(program, mesh)
        made = found.get("programs", {}) | {program.name: shorten(one)}
        save(name, row._asdict() | {"programs": made})
        refresh(name)
        print(
            name, program.name, showing.gib(one.total), f"{one.seconds:.0f} s", flush=True
        )


def plan_of(name: str) -> plan.Plan:
    """The plan of a row, by what has been compiled of it.

    Of a part whose largest program is not there, the others would say that it moves little.
    """
    config, topology = config_of(ROWS[name]), chips.parse(ROWS[name].topology)
    shapes, found = counting.Shapes(config), compiled_of(load(name))
    there = {one.name for one in found}
    told = {
        one
        for main, part in zip(MAIN, plan.PARTS.values())
        if main in there
        for one in part
    }
    compiled = [one for one in found if one.name in told]
    return plan.without_knobs(config, topology, shapes, compiled)


def summary(name: str) -> dict[str, Any]:
    """What the tables have of a row's plan: bytes of a chip, and seconds."""
    made = plan_of(name)
    return {
        "layout": made.layout,
        "mesh": made.mesh,
        "memory": made.topology.chip.memory,
        "counted": made.needs,
        "received": hlo.received(made.collectives),
        "seconds": made.seconds,
        "bound": made.bound,
    }


def line(name: str) -> list[str]:
    """A row of the presets' tables, from what is written down."""
    found = load(name)
    said, made = found["plan"], {one.name: one for one in compiled_of(found)}
    counted = said["counted"]
    cells = [
        showing.gib(made[one].total) if one in made else f"({showing.gib(counted[one])})"
        for one in SHOWN
    ]
    needs = counted | {one: program.total for one, program in made.items()}
    cells += [showing.gib(max(needs.values())), showing.gib(said["memory"])]
    cells.append(showing.gib(said["received"]) if "learn" in made else "-")
    return [name, *cells, f"{said['seconds']:.0f}"]


def refresh(name: str) -> None:
    """Write down the plan of a row anew: what is counted follows the code."""
    save(name, {**load(name), "plan": summary(name)})


def table(names: list[str]) -> str:
    """The tables of the presets' docstrings."""
    head = ["slice", *SHOWN, "most", "of", "received", "seconds"]
    rows = [head, *(line(name) for name in names)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def counts(names: list[str]) -> str:
    """The count beside XLA's peak and beside its sum, what lies beside both included."""
    rows = []
    for name in names:
        found = load(name)
        for one in compiled_of(found):
            need, peak = found["plan"]["counted"][one.name], one.peak + one.beside
            off = (
                f"{100 * (need / peak - 1):+.0f} %",
                f"{100 * (need / one.total - 1):+.0f} %",
            )
            sizes = (f"{x / chips.GIB:.2f}" for x in (need, peak, one.total))
            rows.append((name, one.name, *sizes, *off))
    head = ("row", "program", "count", "XLA's peak", "sum", "off peak", "off sum")
    return showing.table(head, rows)


def received(names: list[str]) -> str:
    """The three largest collectives of each row, and their share of an iteration's."""
    rows = []
    for name in names:
        found = plan_of(name).collectives
        whole = hlo.received(found)
        for one in [one for one in hlo.total(found) if one.kind][:3]:
            share = f"{100 * one.received / whole:.1f} %"
            size, op = showing.gib(one.received), one.op.rpartition("closed_call/")[2]
            rows.append((name, showing.gib(whole), size, share, one.kind, one.axis, op))
    head = ("row", "GiB in all", "GiB", "share", "collective", "axis", "from")
    return showing.table(head, rows)


def grow() -> str:
    """6.7B with 512 rollouts on 16 to 512 chips, by count."""
    rows = []
    base = load_experiment(str(ROOT / f"{PAPER}:@v5e-64"))
    shapes = counting.Shapes(base)
    slices = ["v5e:4x4", "v5e:8x8", "v5e:16x16", "v6e:4x4", "v6e:8x8", "v6e:16x16"]
    slices += ["v5p:2x2x4", "v5p:4x4x4", "v5p:4x8x8", "v5p:8x8x8"]
    for topology in map(chips.parse, slices):
        fsdp = topology.size // 4
        flags = {"mesh.fsdp": fsdp, "sampling.problems_per_step": 32}
        flags |= {"ppo.num_micro_batches": max(1, 256 // fsdp), "sampling.slots": 128}
        made = plan.without_knobs(dividing.changed(base, flags), topology, shapes)
        seconds = {part.name: part.seconds for part in made.predicted}
        rows.append(
            (
                *(topology.name, topology.size, f"{fsdp} x 4", showing.gib(made.at_most)),
                *(showing.gib(topology.chip.memory), "yes" if made.fits else "no"),
                *(f"{made.seconds:.1f}", f"{seconds['learn']:.1f}"),
                *(f"{seconds['decode']:.1f}", made.bound),
            )
        )
    head = ("topology", "chips", "fsdp x tensor", "GiB at most", "of", "fits")
    return showing.table((*head, "s/iteration", "learn", "decode", "bound by"), rows)


def layouts() -> str:
    """Decoding with a whole copy of the weights over fsdp beside one in parts, by count."""
    rows = []
    for name in ("v5e-64", "v6e-32", "v5p-128"):
        row = ROWS[name]
        base, topology = config_of(row), chips.parse(row.topology)
        shapes = counting.Shapes(base)
        for layout in ("replicated", "split"):
            flags = {"mesh.fsdp": topology.size, "mesh.tensor": 1}
            rows_here = base.batch_size // topology.size
            flags |= {"ppo.num_micro_batches": rows_here, "sampling.layout": layout}
            config = dividing.changed(base, flags)
            made = plan.without_knobs(config, topology, shapes)
            mesh = made.mesh
            done = work.parts_of(config, shapes, mesh, made.parts, layout)["decode"]
            steps = work.decoding_steps(config)
            token = done.traffic / steps / config.sampling.slots * topology.size
            (decode,) = [part for part in made.predicted if part.name == "decode"]
            rows.append(
                (
                    *(name, layout, showing.gib(made.parts.decoding)),
                    *(showing.gib(made.at_most), showing.gib(topology.chip.memory)),
                    *("yes" if made.fits else "no", f"{token / 2**20:.2f}"),
                    *(f"{part:.1f}" for part in decode[1:]),
                    f"{decode.seconds:.1f}",
                )
            )
    head = ("row", "layout", "GiB of weights", "at most", "of", "fits")
    head = (*head, "MiB received per token", "compute", "memory", "interconnect")
    return showing.table((*head, "s of decoding"), rows)


def shares() -> str:
    """XLA's own count for one of n simulated devices: the learning of a tiny model."""
    jax.config.update("jax_num_cpu_devices", 8)
    rows, whole = [], None
    for devices in (1, 2, 4, 8):
        config = tiny()
        mesh = sharding.make_mesh(MeshConfig(1, devices, 1), jax.devices()[:devices])
        there = {one.name: one for one in programs.programs(Steps(config, mesh, (0,)))}
        learn = there["learn"]
        cost = learn.jitted.lower(*learn.args).compile().cost_analysis()
        found = cost["flops"], cost["bytes accessed"]
        whole = whole or found
        parts = (f"{devices * x / y:.2f}" for x, y in zip(found, whole, strict=True))
        rows.append((devices, *(f"{x / 1e6:.1f}" for x in found), *parts))
    head = ("devices", "MFLOP of one", "MB of one", "n x FLOPs", "n x bytes")
    return showing.table(head, rows)


def tiny() -> Config:
    """One layer and one micro-batch, so that no loop has a second trip to miss."""
    config = load_experiment(str(ROOT / PAPER))
    config.model = ModelConfig(
        **{"vocab_size": 512, "hidden_size": 128, "intermediate_size": 512},
        **{"num_layers": 1, "num_heads": 8, "num_kv_heads": 8, "head_dim": 16},
        max_positions=256,
    )
    config.ppo.num_micro_batches = 1
    config.prompt.max_prompt_length = config.sampling.max_completion_length = 32
    return config


def main() -> None:
    tables = {"show": table, "counts": counts, "received": received}
    alone = {"grow": grow, "layouts": layouts, "shares": shares}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("action", choices=("compile", *tables, *alone))
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; none: all")
    parser.add_argument("--programs", nargs="*", default=NAMES, choices=NAMES)
    flags = parser.parse_args()
    if set(flags.rows) - set(ROWS):
        parser.error(f"there is no row {flags.rows}; there are {', '.join(ROWS)}")
    names = flags.rows or list(ROWS)
    if flags.action in alone:
        print(alone[flags.action]())
    if flags.action in tables:
        print(tables[flags.action](names))
    for name in names if flags.action == "compile" else ():
        compile_row(name, flags.programs)
        refresh(name)


if __name__ == "__main__":
    main()
