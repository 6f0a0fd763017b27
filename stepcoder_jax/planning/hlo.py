"""Collectives of a compiled program, read from its text: pure functions of strings.

XLA prints a program as computations of instructions. A collective in the body of a loop
runs once per trip; the trips are in `known_trip_count`, or else (as for TPUs) the
condition's greatest integer constant over what the body adds to its counter. Of a
conditional the branch that receives most is counted. The compiler for TPUs spreads a
collective over a chain of fusions, each of which prints it again: those of one channel in
one computation count once.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5}  # a type has its bits in its name, but these
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition)=%?([\w.-]+)")


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str  # as it is printed
    opcode: str
    rest: str  # operands and attributes


class Collective(NamedTuple):
    """A collective of a program, with all trips of the loops that hold it."""

    kind: str
    dtype: str
    axis: str  # of the mesh, several joined by +
    received: float  # bytes that each device receives, all trips together
    trips: int
    op: str  # the operation of the source that it comes from, or ""
    chain: str = ""  # its channel, where it is spread over a chain of fusions


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """All computations by their names, and the name of the entry."""
    found: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{\s*$", line)
        if head and " = " not in line.split("(")[0]:
            current = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif current is not None:
            instruction = _read(line)
            if instruction:
                current.append(instruction)
    return found, entry


def _read(line: str) -> Instruction | None:
    head = re.match(r"\s+(?:ROOT )?%?([\w.-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    end = _close(rest) if rest.startswith("(") else rest.find(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    return Instruction(head[1], shape, opcode, rest)


def _close(text: str) -> int:
    """The place behind the bracket that closes the first one."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return place + 1
    return len(text)


def arrays(shape: str) -> list[tuple[str, int]]:
    """(dtype, bytes) of each array of a printed shape; tokens and layouts are none."""
    return [
        (dtype, math.ceil(width * math.prod(int(n) for n in dims.split(",") if n)))
        for dtype, dims in _ARRAY.findall(re.sub(r"\{[^{}]*\}", "", shape))
        for width in [_width(dtype)]
    ]


def _width(dtype: str) -> float:
    bits = re.search(r"\d+", dtype)
    return _BYTES.get(dtype) or (int(bits[0]) / 8 if bits else 0)


def trips_of(loop: Instruction, computations: Mapping[str, list[Instruction]]) -> int:
    """How often the body of a `while` runs; 1 where nothing says it."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
    if known:
        return int(known[1])
    condition = _named(loop.rest, "condition")
    waiting, constants, seen = [condition], [1], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in computations.get(name, ()):
            number = re.match(r"(\d+)\)", line.rest)
            if (
                line.opcode == "constant"
                and number
                and re.match(r"[su]\d+\[\]", line.shape)
            ):
                constants.append(int(number[1]))
            waiting.extend(called for _, called in _CALLED.findall(line.rest))
    return -(-max(constants) // _step(loop, computations))


def _step(loop: Instruction, computations: Mapping[str, list[Instruction]]) -> int:
    """What a body adds to the counter that its condition compares; a window adds 2."""
    test = computations.get(_named(loop.rest, "condition"), [])
    body = computations.get(_named(loop.rest, "body"), [])
    places = [re.search(r"index=(\d+)", x.rest) for x in test if "tuple-el" in x.opcode]
    by_name = {line.name: line for line in body}
    if len(places) != 1 or places[0] is None or not body or body[-1].opcode != "tuple":
        return 1
    values = re.findall(r"%([\w.-]+)", body[-1].rest)
    place = int(places[0][1])
    counter = by_name.get(values[place]) if place < len(values) else None
    if counter is None or counter.opcode != "add":
        return 1
    for name in re.findall(r"%([\w.-]+)", counter.rest.partition(")")[0]):
        added = by_name.get(name)
        number = re.match(r"(\d+)\)", added.rest) if added else None
        if added and added.opcode == "constant" and number:
            return max(1, int(number[1]))
    return 1


def _named(rest: str, role: str) -> str:
    found = re.search(rf"\b{role}=%?([\w.-]+)", rest)
    return found[1] if found else ""


def group_of(rest: str, devices: int) -> list[int]:
    """The devices of the first group that a collective joins."""
    found = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest)
    if found:
        return _mesh_group(found[1], found[2])
    found = re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest
    )
    if found:
        return _iota_group(int(found[2]), _ints(found[3]), _ints(found[4] or ""))
    found = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    if found:
        return _ints(found[1])
    found = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", rest)
    return [int(found[1]), int(found[2])] if found else list(range(devices))


def _ints(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def _mesh_group(mesh: str, axes: str) -> list[int]:
    """Groups as axes of a mesh: ['x'=4,'y'=2] {'x'}, or a part of one, 'x':(2)2."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    strides, stride = {}, 1
    for name in reversed(sizes):
        strides[name], stride = stride, stride * sizes[name]
    steps = []
    for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes):
        count = int(size) if size else sizes[name]
        inner = sizes[name] // (int(before or 1) * count)
        steps.append([i * inner * strides[name] for i in range(count)])
    return sorted(sum(place) for place in itertools.product(*steps))


def _iota_group(size: int, dims: list[int], order: list[int]) -> list[int]:
    """The first `size` numbers of arange(dims), its axes reordered."""
    order = order or list(range(len(dims)))
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    places = itertools.product(*(range(dims[axis]) for axis in order))
    steps = [strides[axis] for axis in order]
    return [
        sum(i * step for i, step in zip(place, steps))
        for place in itertools.islice(places, size)
    ]


def axis_of(group: Iterable[int], mesh: Mapping[str, int]) -> str:
    """The axes of a mesh along which the devices of a group differ, joined by +."""
    names: list[str] = []
    left = list(group)
    for name in reversed(list(mesh)):
        if len({n % mesh[name] for n in left}) > 1:
            names.append(name)
        left = [n // mesh[name] for n in left]
    return "+".join(reversed(names))


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
    """All collectives of a program over a mesh, most received first."""
    computations, entry = parse(text)

    @functools.cache
    def collect(name: str) -> tuple[Collective, ...]:
        found: list[Collective] = []
        for line in computations.get(name, ()):
            found.extend(_own(line, computations[name], mesh))
            if line.opcode.endswith(("-done", "-update")):
                continue  # what it ends was counted where it began
            if line.opcode == "while":
                trips = trips_of(line, computations)
                for role in ("body", "condition"):
                    found.extend(_times(collect(_named(line.rest, role)), trips))
            elif line.opcode == "conditional":
                branches = [collect(branch) for branch in _branches(line.rest)]
                found.extend(max(branches, key=received, default=()))
            else:
                for _, called in _CALLED.findall(line.rest):
                    found.extend(collect(called))
        return tuple(_once(found))

    return sorted(collect(entry), key=lambda x: -x.received)


def received(found: Iterable[Collective]) -> float:
    """Bytes that each device receives in all of them."""
    return sum(collective.received for collective in found)


def _once(found: Iterable[Collective]) -> list[Collective]:
    """Each collective that is spread over a chain, once."""
    kept: dict[object, Collective] = {}
    for place, one in enumerate(found):
        kept.setdefault(one.chain or place, one)
    return list(kept.values())


def _times(found: Iterable[Collective], trips: int) -> list[Collective]:
    return [x._replace(received=x.received * trips, trips=x.trips * trips) for x in found]


def _branches(rest: str) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", rest)
    if listed:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return re.findall(r"(?:true|false)_computation=%?([\w.-]+)", rest)


def _own(
    line: Instruction, lines: list[Instruction], mesh: Mapping[str, int]
) -> list[Collective]:
    """The collective that a line is, if it is one that receives anything."""
    kind = line.opcode.removesuffix("-start")
    if kind not in KINDS:
        return []
    results = arrays(line.shape)
    if line.opcode == "all-gather-start":  # (operands, results)
        results = results[len(results) // 2 :]
    elif line.opcode == "collective-permute-start":  # (operand, result, two counts)
        results = results[1:2]
    group = group_of(line.rest, math.prod(mesh.values()))
    size, count = sum(amount for _, amount in results), len(group)
    share = {
        "all-gather": (count - 1) / count,
        "all-reduce": 2 * (count - 1) / count,
        "reduce-scatter": count - 1,
        "all-to-all": (count - 1) / count,
        "collective-permute": 1,
    }[kind]
    if not size or not share:
        return []
    chain = re.search(r'channel_id=(\d+),.*\bchain_id="', line.rest)
    return [
        Collective(
            kind,
            dtype=results[0][0],
            axis=axis_of(group, mesh),
            received=size * share,
            trips=1,
            op=_source(line, lines),
            chain=chain[1] if chain else "",
        )
    ]


def _source(line: Instruction, lines: list[Instruction]) -> str:
    """The source's name of a line, or of what it reads where it has none."""
    by_name = {other.name: other for other in lines}
    for _ in range(6):
        found = re.search(r'op_name="([^"]*)"', line.rest)
        if found:
            return found[1]
        operand = re.match(r"[^%)]*%([\w.-]+)", line.rest)
        if not operand or operand[1] not in by_name:
            return ""
        line = by_name[operand[1]]
    return ""


def total(found: Iterable[Collective]) -> list[Collective]:
    """Collectives of one kind, dtype, axis and op as one, most received first."""
    sums: dict[tuple[str, str, str, str], Collective] = {}
    for one in found:
        key = (one.kind, one.dtype, one.axis, one.op)
        old = sums.get(key)
        if old is not None:
            one = old._replace(
                received=old.received + one.received, trips=old.trips + one.trips
            )
        sums[key] = one
    return sorted(sums.values(), key=lambda x: -x.received)
