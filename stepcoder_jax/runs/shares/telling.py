"""What hosts tell at the end of an iteration: the text of their rows, and their seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from stepcoder_jax.devices import gathers

SLOWEST = "hosts/slowest"


def pack(rows: Sequence[int], lines: Sequence[str], seconds: Mapping[str, float]) -> bytes:
    """What one host tells; a line holds no line break."""
    head = json.dumps({"rows": list(rows), "seconds": dict(seconds)})
    return "\n".join([head, *lines]).encode()


def unpack(parts: Sequence[bytes]) -> tuple[list[str], dict[str, Any]]:
    """What all hosts told: the lines in the order of their rows, and the slowest host.

    Of each part of the work the seconds are those of the host that took longest for it;
    `hosts/slowest` took longest for all of its parts together.
    """
    told: dict[int, str] = {}
    seconds: list[dict[str, float]] = []
    for part in parts:
        head, *lines = part.decode().split("\n")
        header = json.loads(head)
        told |= zip(header["rows"], lines)
        seconds.append(header["seconds"])
    highest = {name: max(each[name] for each in seconds) for name in seconds[0]}
    totals = [sum(each.values()) for each in seconds]
    return [told[row] for row in sorted(told)], {
        **highest,
        SLOWEST: totals.index(max(totals)),
    }


def tell(
    rows: Sequence[int], lines: Sequence[str], metrics: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """This host's lines (of these rows, or none) and its seconds/* -> `unpack` of all."""
    seconds = {name: each for name, each in metrics.items() if name.startswith("seconds/")}
    if jax.process_count() == 1:
        return list(lines), {SLOWEST: 0}
    return unpack(gathers.stack_bytes(pack(rows if lines else (), lines, seconds)))
