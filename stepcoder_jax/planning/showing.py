"""A plan as text: Markdown tables that a terminal reads as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepcoder_jax.planning import hlo
from stepcoder_jax.planning.chips import GIB
from stepcoder_jax.planning.counting import SHARE
from stepcoder_jax.planning.dividing import written
from stepcoder_jax.planning.plan import DISK, LABEL, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KINDS = ("weights", "moments", "reference", "gradients", "kept", "decoding", "cache")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *([str(x) for x in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def gib(size: float) -> str:
    return f"{size / GIB:.1f}"


def overview(plans: Sequence[Plan]) -> str:
    """A row per topology."""
    head = (
        *("topology", "chips", "mesh", "GiB at most", "of", "fits", "s/iteration"),
        *("rollouts/s", "bound by", "GiB received", "judge cores/host"),
    )
    rows = []
    for plan in plans:
        mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1)
        received = gib(hlo.received(plan.collectives)) if plan.compiled else "-"
        rows.append(
            (
                *(plan.topology.name, plan.topology.size, mesh or "1"),
                *(gib(plan.at_most), gib(plan.topology.chip.memory)),
                *("yes" if plan.fits else "no", f"{plan.seconds:.1f}"),
                *(f"{plan.rollouts / plan.seconds:.2f}", plan.bound, received),
                f"{plan.judge_cores:.1f}",
            )
        )
    return table(head, rows)


def details(plan: Plan) -> str:
    """All of one topology."""
    by = "the compiler" if plan.compiled else "the count of shapes alone"
    said = [
        f"## {plan.topology.name}, by {by}",
        f"GiB of a chip by kind, counted (at most {gib(plan.parts.at_most)}; "
        f"{gib(plan.parts.start)} at the start, {gib(plan.parts.update)} in the update, "
        f"{gib(plan.parts.sampling)} in sampling, its weights {plan.layout}):",
        table(KINDS, [[gib(getattr(plan.parts, kind)) for kind in KINDS]]),
    ]
    if plan.compiled:
        said += [_programs(plan), _collectives(plan)]
    said += [
        "Seconds of an iteration by each bound at its peak; the greatest counts:",
        table(
            ("part", "compute", "memory", "interconnect", "bound by"),
            [
                (part.name, *(f"{x:.2f}" for x in part[1:]), part.bound)
                for part in plan.predicted
            ],
        ),
        _rest(plan),
    ]
    if not plan.fits:
        said.append(_knobs(plan))
    return "\n\n".join(said)


def _programs(plan: Plan) -> str:
    head = (
        *("program", "arguments", "outputs", "aliases", "temporaries", "beside"),
        *("total", "XLA's peak", "by count", "GiB received", "compiled in s"),
    )
    rows = [
        (
            *(one.name, *(gib(x) for x in one[1:6])),
            *(gib(one.total), "refused" if one.refused else gib(one.peak + one.beside)),
            gib(plan.needs[one.name]),
            *(gib(hlo.received(one.collectives)), f"{one.seconds:.0f}"),
        )
        for one in plan.compiled
    ]
    refused = [f"{one.name}: {one.refused}" for one in plan.compiled if one.refused]
    return "\n\n".join(["GiB of a chip by program:\n\n" + table(head, rows), *refused])


def _collectives(plan: Plan) -> str:
    found, whole = hlo.total(plan.collectives), hlo.received(plan.collectives)
    rows = [
        (
            *(one.kind, one.dtype, one.axis, gib(one.received)),
            *(f"{100 * one.received / whole:.0f} %", one.trips, one.op[-90:]),
        )
        for one in found[:10]
    ]
    head = ("collective", "dtype", "axis", "GiB", "share", "times", "from")
    return f"Received in an iteration, {gib(whole)} GiB:\n\n" + table(head, rows)


def _rest(plan: Plan) -> str:
    here = plan.state_bytes / plan.topology.hosts
    return (
        f"{plan.seconds:.1f} s an iteration, {plan.rollouts / plan.seconds:.2f} rollouts a "
        f"second, bound by {plan.bound}. The judge stays hidden behind decoding with "
        f"{plan.judge_cores:.1f} cores a host, at {plan.judge_ms:g} ms a program. A "
        f"checkpoint is {gib(here)} GiB a host, {here / DISK:.0f} s at 1 GB/s. "
        f"({LABEL}.)"
    )


def _knobs(plan: Plan) -> str:
    share = "" if plan.compiled else f" (a count may fill {SHARE:.0%} of it)"
    said = f"It does not fit: {gib(plan.at_most)} GiB of {gib(plan.topology.chip.memory)}"
    rows = [
        (written(knob.flags), gib(knob.saved), gib(knob.at_most)) for knob in plan.knobs[:8]
    ]
    return f"{said}{share}. What would help, each alone, by count:\n\n" + table(
        ("change", "GiB saved", "leaves"), rows
    )


def ranked(found: Sequence[tuple[str, Plan]]) -> str:
    """Flags and what they are predicted to give, as they are ranked."""
    rows = [
        (
            *(plan.topology.name, flags or "as it is", gib(plan.at_most)),
            *("yes" if plan.fits else "no", f"{plan.seconds:.1f}", plan.bound),
        )
        for flags, plan in found
    ]
    head = ("topology", "flags", "GiB at most", "fits", "s/iteration", "bound by")
    return table(head, rows) + f"\n\n({LABEL}.)"
