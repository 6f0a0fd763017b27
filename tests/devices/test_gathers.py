"""Gathers: what hosts tell each other comes packed, and is whole and equal on all."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from stepcoder_jax.config import MeshConfig
from stepcoder_jax.devices import gathers, sharding
from tests.hosts_kit import on_hosts


class Device:
    """A device of a host."""

    def __init__(self, host):
        self.process_index = host


class Place:
    """A sharding over hosts: the part of each of its devices, by the device's host."""

    def __init__(self, *parts):
        self.parts = parts

    def devices_indices_map(self, shape):
        del shape
        return {Device(host): index for host, index in self.parts}


def test_a_tree_is_packed_and_unpacked_to_the_bit():
    tree = {
        "a": np.array([[1.5, np.nan], [-0.0, np.inf]], np.float32),
        "b": (np.array(7, np.int64), np.array([True, False, True])),
        "c": np.zeros((2, 0), np.int32),
    }
    found = gathers.unpack(np.stack([gathers.pack(tree)] * 3), tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for rows, leaf in zip(jax.tree.leaves(found), jax.tree.leaves(tree)):
        assert rows.dtype == leaf.dtype and rows.shape == (3, *leaf.shape)
        assert all(row.tobytes() == leaf.tobytes() for row in rows)


def test_what_hosts_stack_is_the_same_on_all_and_one_gather(monkeypatch):
    def work(host):
        return gathers.stack({"x": np.arange(3) + 10 * host, "y": np.float32(host)})

    found, count = on_hosts(monkeypatch, 3, work)
    assert count == 1
    for each in found:
        assert each["x"].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
        assert each["y"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("sizes", "gathers_taken"),
    [
        ((0, 5), 1),
        ((gathers.OPENING, 1), 1),
        ((gathers.OPENING + 1, 3), 2),
        ((200_000, 70_000, 0), 2),
    ],
)
def test_bytes_of_any_length_come_whole(monkeypatch, sizes, gathers_taken):
    texts = [bytes(i % 251 for i in range(size)) for size in sizes]
    work = lambda host: gathers.stack_bytes(texts[host])  # noqa: E731
    found, count = on_hosts(monkeypatch, len(sizes), work)
    assert found == [texts] * len(sizes) and count == gathers_taken


def test_each_row_is_looked_at_by_one_host_that_holds_it():
    halves = Place((0, (slice(0, 2),)), (1, (slice(2, 4),)))
    assert gathers.finders(halves, (4,)).tolist() == [0, 0, 1, 1]
    # four devices, two hosts: both hold all rows, and take turns
    both = Place(*((host, (slice(None),)) for host in (0, 0, 1, 1)))
    assert gathers.finders(both, (5,)).tolist() == [0, 1, 0, 1, 0]
    alone = sharding.make_mesh(MeshConfig(), jax.devices())
    rows = sharding.batch_sharding(alone, 0)
    assert gathers.finders(rows, (16,)).tolist() == [0] * 16


def test_rows_that_hosts_looked_at_come_together(monkeypatch):
    finder = np.array([1, 0, 1, 1, 2])  # of unequal numbers
    whole = np.arange(10.0).reshape(5, 2), np.array([3, 1, 4, 1, 5], np.int32)

    def work(host):
        seen = [np.where(finder == host, x.T, -9).T.astype(x.dtype) for x in whole]
        return gathers.share_rows(finder, tuple(seen))

    found, count = on_hosts(monkeypatch, 4, work)  # the last looks at none
    assert count == 1
    for each in found:
        assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(each, whole))


def test_the_parts_of_an_array_are_each_told_by_one_host():
    place = Place(
        (1, (slice(0, 2), slice(None))),
        (0, (slice(0, 2), slice(None))),  # a copy
        (1, (slice(2, 4), slice(None))),
    )
    assert gathers.pieces(place, (4, 3)) == [
        (0, ((0, 2), (0, 3))),
        (1, ((2, 4), (0, 3))),
    ]
