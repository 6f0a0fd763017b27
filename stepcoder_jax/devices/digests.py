"""A digest of parameters that is equal on any mesh: each host adds up what it holds.

Of an array whose element i = (i_1, i_2, ...) has the bits b_i, as a number, for two lanes l

    h_l = sum_i b_i u_l1(i_1) u_l2(i_2) ...  mod 2^64

with fixed odd numbers u that look random (the finaliser of SplitMix64). Sums of integers
come out the same in any order, so hosts exchange two numbers of each array and nothing
else. The digest is the SHA-256 of all names, dtypes, shapes and sums. It finds what has
changed; it is no proof against somebody who forges weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from stepcoder_jax.devices import gathers
from stepcoder_jax.records import InputError

MARK = "sums:"  # before the digits; those of older versions have none
BLOCK = 1 << 26  # bytes that are on the host at a time, or those of one row
_LANES = 2


def digest(params: Any) -> str:
    """The digest of a tree of arrays; every host must call it."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    own = np.zeros((len(leaves), _LANES), np.uint64)
    for number, (_, leaf) in enumerate(leaves):
        for data, start in _own_blocks(leaf):
            own[number] += _sum(data, start)
    found = hashlib.sha256()
    sums = gathers.stack(own).sum(axis=0, dtype=np.uint64)
    for (path, leaf), numbers in zip(leaves, sums, strict=True):
        said = f"{jax.tree_util.keystr(path)} {leaf.dtype} {tuple(leaf.shape)}"
        found.update(said.encode() + numbers.astype("<u8").tobytes())
    return MARK + found.hexdigest()


def agrees(known: str, ours: str, params: Any) -> bool:
    """Whether what a record has is the digest of these parameters, which is `ours`.

    One of an older version is of whole arrays: InputError on several hosts.
    """
    if known.startswith(MARK):
        return known == ours
    if jax.process_count() > 1:
        raise InputError(
            "run.folder: the checkpoint was saved by an older version, whose digest of the "
            "weights can be checked on one host alone; resume and save there once, then go "
            "on with several"
        )
    return known == _digest_of_whole(params)


def _own_blocks(leaf: Any) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    """The parts of an array that this host tells of, each with its first index."""
    if not isinstance(leaf, jax.Array):
        if jax.process_index() == 0:
            yield np.asarray(leaf), (0,) * np.ndim(leaf)
        return
    held = {
        gathers.corners_of(shard.index, leaf.shape): shard.data
        for shard in leaf.addressable_shards
    }
    for host, corners in gathers.pieces(leaf.sharding, leaf.shape):
        if host == jax.process_index():
            first = tuple(begin for begin, _ in corners)
            for block, row in _cut(held[corners]):
                yield block, (first[0] + row, *first[1:]) if first else ()


def _cut(data: jax.Array) -> Iterator[tuple[np.ndarray, int]]:
    """An array of one device in blocks of its rows, and the first row of each."""
    if data.nbytes <= BLOCK or not data.ndim:
        yield np.asarray(data), 0
        return
    rows = max(1, BLOCK // (data.nbytes // len(data)))
    for row in range(0, len(data), rows):
        yield np.asarray(data[row : row + rows]), row


def _sum(data: np.ndarray, start: tuple[int, ...]) -> np.ndarray:
    """u64[_LANES]: the sums of a part of an array that begins at this index."""
    unsigned = np.dtype(f"u{data.dtype.itemsize}")
    bits = np.ascontiguousarray(data).view(unsigned).astype(np.uint64).reshape(data.shape)
    sums = np.zeros(_LANES, np.uint64)
    for lane in range(_LANES):
        left = bits
        for axis in reversed(range(data.ndim)):
            numbers = _numbers(lane, axis, start[axis], data.shape[axis])
            left = np.einsum("...i,i->...", left, numbers)
        sums[lane] = left
    return sums


def _numbers(lane: int, axis: int, start: int, count: int) -> np.ndarray:
    """u64[count]: u of a lane and an axis, from `start` on."""
    x = np.arange(start, start + count, dtype=np.uint64)
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64((lane * 64 + axis + 1) * 0xD1B54A32D192ED03 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) | np.uint64(1)


def _digest_of_whole(params: Any) -> str:
    """What older versions kept: SHA-256 of names, dtypes, shapes and bytes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(jax.device_get(leaf))
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
