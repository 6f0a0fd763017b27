"""`stepcoder plan`: which slice holds a run, and what it will spend its time on."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import jax

from stepcoder_jax.planning import (
    chips,
    compiling,
    counting,
    dividing,
    plan,
    search,
    showing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepcoder_jax.config import Config

DOES_NOT_FIT = 3
# of jax.Device.device_kind; the longest that it begins with
MACHINES = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
    "NVIDIA H100": "h100",
    "NVIDIA A100": "a100",
}


def run(config: Config, given: argparse.Namespace) -> int:
    """Plans of all topologies asked for; 3 where one of them does not fit."""
    topologies = [chips.parse(name) for name in given.topology]
    by_shapes = given.analytic
    if not by_shapes and any(topology.chip.dims for topology in topologies):
        compiling.require_compiler()
    if given.search:
        return _search(config, topologies, given)
    plans = []
    for topology in topologies:
        found = plan.make_plan(config, topology, judge_ms=given.judge_ms)
        if topology.chip.dims and not by_shapes:
            compiled = _compile(config, topology)
            found = plan.make_plan(config, topology, compiled, judge_ms=given.judge_ms)
        plans.append(found)
    _show(plans, given.json)
    return 0 if all(found.fits for found in plans) else DOES_NOT_FIT


def _show(plans: list[plan.Plan], as_json: bool) -> None:
    if as_json:
        print(json.dumps([plan.to_json(found) for found in plans], indent=1))
        return
    parts = [showing.overview(plans), *(showing.details(found) for found in plans)]
    print("\n\n".join(parts))


def _compile(config: Config, topology: chips.Topology) -> list[compiling.Compiled]:
    """All programs, with a line on standard error for each."""
    found = []
    config = plan.settled(config, topology, counting.Shapes(config))
    with _quiet_compiler():
        for program in compiling.compile_all(config, topology):
            print(
                f"{topology.name}: {program.name} {program.total / chips.GIB:.1f} GiB, "
                f"compiled in {program.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            found.append(program)
    return found


@contextlib.contextmanager
def _quiet_compiler() -> Iterator[None]:
    """libtpu writes to file descriptor 2, whatever its log level: send that to nowhere."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    shown = sys.stderr
    try:
        os.dup2(nowhere, 2)
        with os.fdopen(os.dup(kept), "w") as sys.stderr:
            yield
    finally:
        sys.stderr = shown
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _search(
    config: Config, topologies: list[chips.Topology], given: argparse.Namespace
) -> int:
    rows: list[dict[str, Any]] = []
    for topology in topologies:
        found = search.search(config, topology)[: search.BEST]
        for candidate in found:
            other = dividing.changed(config, candidate.flags)
            compiled = []
            if topology.chip.dims and not given.analytic:
                compiled = _compile(other, topology)
            made = plan.make_plan(other, topology, compiled, judge_ms=given.judge_ms)
            flags = dividing.written(candidate.flags)
            rows.append({"flags": flags, "plan": made})
    rows.sort(key=lambda row: (not row["plan"].fits, row["plan"].seconds))
    if given.json:
        shown = [{"flags": row["flags"]} | plan.to_json(row["plan"]) for row in rows]
        print(json.dumps(shown, indent=1))
    else:
        print(showing.ranked([(row["flags"], row["plan"]) for row in rows]))
    return 0 if any(row["plan"].fits for row in rows) else DOES_NOT_FIT


def of_this_machine(config: Config) -> int:
    """The plan for the devices that JAX has here, by shapes; 3 where it does not fit."""
    kind, size = jax.devices()[0].device_kind, jax.device_count()
    name = next((MACHINES[key] for key in MACHINES if kind.startswith(key)), "")
    if not name:
        raise chips.PlanError(
            f"--plan: nothing is known of devices of the kind {kind!r}; there are "
            f"{', '.join(chips.CHIPS)}, which `stepcoder plan` plans for from anywhere"
        )
    topology = chips.Topology(f"{name}, {size} here", chips.CHIPS[name], size)
    found = plan.make_plan(config, topology)
    print(showing.details(found), file=sys.stderr)
    return 0 if found.fits else DOES_NOT_FIT
