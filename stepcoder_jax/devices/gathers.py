"""What the hosts of a run tell each other: every gather goes through `exchange`.

A gather is one program that all hosts run, and each of them waits for the slowest. So what
belongs together is packed: a tree of arrays is one row of bytes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

OPENING = 1 << 16  # bytes of a text that come with its size
MOST = 1 << 28  # bytes of arrays that come in one gather


def exchange(data: np.ndarray) -> np.ndarray:
    """u8[n] of each host -> u8[N, n], on every host; n must be the same on all."""
    if jax.process_count() == 1:
        return data[None]
    return np.asarray(multihost_utils.process_allgather(data))


def pack(tree: Any) -> np.ndarray:
    """The bytes of a tree's arrays, one behind the other, u8[n]."""
    leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(
        [leaf.reshape(-1).view(np.uint8) for leaf in leaves] or [np.zeros(0, np.uint8)]
    )


def unpack(data: np.ndarray, like: Any) -> Any:
    """u8[N, n], N times `pack` of trees like this one -> the tree, each array [N, ...]."""
    leaves, structure = jax.tree.flatten(like)
    found, start = [], 0
    for leaf in map(np.asarray, leaves):
        part = np.ascontiguousarray(data[:, start : start + leaf.nbytes])
        found.append(part.view(leaf.dtype).reshape(len(data), *leaf.shape))
        start += leaf.nbytes
    return jax.tree.unflatten(structure, found)


def stack(tree: Any) -> Any:
    """Each host's own arrays -> [N, ...] on every host, row i of them host i's.

    The arrays of the host must have the same shapes and dtypes on all.
    """
    return unpack(exchange(pack(tree)), tree)


def stack_bytes(data: bytes) -> list[bytes]:
    """Each host's own bytes, of any number, on every host.

    One gather where all are short (OPENING), else two.
    """
    own = np.frombuffer(data, np.uint8)
    first = np.zeros(OPENING, np.uint8)
    first[: len(own)] = own[:OPENING]
    sizes, opened = stack((np.int64(len(own)), first))
    most = int(sizes.max()) - OPENING
    if most <= 0:
        return [row[:size].tobytes() for row, size in zip(opened, sizes)]
    # few lengths, for each of them is a program to compile
    rest = np.zeros(1 << (most - 1).bit_length(), np.uint8)
    rest[: max(len(own) - OPENING, 0)] = own[OPENING:]
    whole = np.concatenate([opened, exchange(rest)], axis=1)
    return [row[:size].tobytes() for row, size in zip(whole, sizes)]


@functools.lru_cache(maxsize=64)
def finders(place: Sharding, shape: tuple[int, ...]) -> np.ndarray:
    """Which host reads each row of an array that lies so: i32[rows].

    One of those that hold the row; where several do, they take turns. No row is cut.
    """
    hosts: list[set[int]] = [set() for _ in range(shape[0])]
    device: Any
    for device, index in place.devices_indices_map(shape).items():
        for row in range(*index[0].indices(shape[0])):
            hosts[row].add(device.process_index)
    return np.array(
        [sorted(holders)[row % len(holders)] for row, holders in enumerate(hosts)], np.int32
    )


def own_rows(tree: Any) -> Any:
    """Arrays on the host, as far as this host holds their rows; the others are zero."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def read(array: jax.Array) -> np.ndarray:
        found = np.zeros(array.shape, array.dtype)
        for shard in array.addressable_shards:
            found[shard.index] = np.asarray(shard.data)
        return found

    return jax.tree.map(read, tree)


def share_rows(finder: np.ndarray, tree: Any) -> Any:
    """Arrays [R, ...] of which host `finder[r]` knows row r -> whole on every host."""
    if jax.process_count() == 1:
        return tree
    most = int(np.bincount(finder).max())
    ours = np.flatnonzero(finder == jax.process_index())
    padded = np.resize(ours, most) if ours.size else np.zeros(most, int)
    stacked = stack(jax.tree.map(lambda leaf: np.asarray(leaf)[padded], tree))

    def place(rows: np.ndarray) -> np.ndarray:
        whole = np.zeros((len(finder), *rows.shape[2:]), rows.dtype)
        for host, found in enumerate(rows):
            theirs = np.flatnonzero(finder == host)
            whole[theirs] = found[: len(theirs)]
        return whole

    return jax.tree.map(place, stacked)


def to_host(tree: Any) -> Any:
    """Global arrays -> whole numpy arrays on every host; the host's own stay.

    Those that are split over hosts come in one gather for each MOST bytes of them, in one
    of its own where an array has more; what is whole on each host comes in none.
    """
    if jax.process_count() == 1:
        return jax.device_get(tree)
    leaves, structure = jax.tree.flatten(tree)
    waiting: list[int] = []
    for number, leaf in enumerate(leaves):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            leaves[number] = jax.device_get(leaf)
        elif leaf.is_fully_replicated:
            leaves[number] = np.asarray(leaf.addressable_data(0))
        else:
            waiting.append(number)
    while waiting:
        together = [waiting.pop(0)]
        size = leaves[together[0]].nbytes
        while waiting and size + leaves[waiting[0]].nbytes <= MOST:
            size += leaves[waiting[0]].nbytes
            together.append(waiting.pop(0))
        for number, whole in zip(together, _whole([leaves[x] for x in together])):
            leaves[number] = whole
    return jax.tree.unflatten(structure, leaves)


def _whole(arrays: Sequence[jax.Array]) -> list[np.ndarray]:
    """Arrays that are split over hosts, whole on every host; one gather."""
    parts = [pieces(array.sharding, array.shape) for array in arrays]
    ours: list[np.ndarray] = []
    sizes = np.zeros(jax.process_count(), int)
    for array, known in zip(arrays, parts, strict=True):
        held = {corners_of(x.index, array.shape): x.data for x in array.addressable_shards}
        for host, corners in known:
            count = math.prod(stop - start for start, stop in corners)
            sizes[host] += count * array.dtype.itemsize
            if host == jax.process_index():
                ours.append(np.asarray(held[corners]))
    sent = np.zeros(sizes.max(), np.uint8)
    sent[: sizes[jax.process_index()]] = pack(ours)
    rows, begin = exchange(sent), np.zeros_like(sizes)
    found = [np.empty(array.shape, array.dtype) for array in arrays]
    for whole, known in zip(found, parts, strict=True):
        for host, corners in known:
            part = whole[tuple(slice(*pair) for pair in corners)]
            data = rows[host, begin[host] : begin[host] + part.nbytes]
            part[...] = data.view(whole.dtype).reshape(part.shape)
            begin[host] += part.nbytes
    return found


Corners = tuple[tuple[int, int], ...]  # first and last + 1 along each axis


def corners_of(index: tuple[slice, ...], shape: tuple[int, ...]) -> Corners:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


@functools.lru_cache(maxsize=1024)
def pieces(place: Sharding, shape: tuple[int, ...]) -> list[tuple[int, Corners]]:
    """The parts that an array of this shape has, each with the first host that holds it."""
    first: dict[Corners, int] = {}
    device: Any
    for device, index in place.devices_indices_map(shape).items():
        corners, host = corners_of(index, shape), device.process_index
        first[corners] = min(host, first.get(corners, host))
    return [(host, corners) for corners, host in sorted(first.items())]
