"""The digest of parameters: the same on any mesh, and another for any other tree."""

from __future__ import annotations

import hashlib

import jax
import numpy as np
import pytest

from stepcoder_jax.config import MeshConfig
from stepcoder_jax.devices import digests, gathers, sharding
from stepcoder_jax.records import InputError
from tests.hosts_kit import on_hosts
from tests.kit import tiny_params

ONE = {"a": np.float32([1, 2]), "b": np.float32([3])}


@pytest.mark.parametrize(
    ("count", "mesh"),
    [
        (1, MeshConfig()),
        (2, MeshConfig(data=1, fsdp=2)),
        (2, MeshConfig(data=2, fsdp=1)),
        (4, MeshConfig(data=1, fsdp=2, tensor=2)),
        (8, MeshConfig(data=1, fsdp=4, tensor=2)),
    ],
)
def test_the_digest_is_the_same_on_any_mesh(count, mesh):
    params = tiny_params()
    devices = sharding.make_mesh(mesh, jax.devices()[:count])
    placed = sharding.to_devices(
        jax.device_get(params), sharding.param_shardings(devices, params)
    )
    on_one = jax.device_get(params)
    assert digests.digest(placed) == digests.digest(on_one)


def test_the_digest_tells_trees_apart():
    assert digests.digest(ONE) == digests.digest(dict(ONE))
    flipped = np.float32([1, 2]).view(np.uint32) ^ np.uint32([0, 1])
    others = (
        {"a": np.float32([1, 2]), "b": np.float32([4])},
        {"a": np.float32([2, 1]), "b": np.float32([3])},
        {"a": np.float32([1, 3]), "b": np.float32([2])},
        {"a": flipped.view(np.float32), "b": np.float32([3])},
        {"a": np.float32([1, 2]), "c": np.float32([3])},
        {"a": np.float32([[1, 2]]), "b": np.float32([3])},
        {"a": np.float32([1, 2]).view(np.int32), "b": np.float32([3])},
        {"a": np.float32([1, 2])},
    )
    found = {digests.digest(tree) for tree in (ONE, *others)}
    assert len(found) == len(others) + 1


def test_exchanged_rows_and_columns_of_small_numbers_are_told_apart():
    whole = np.arange(12, dtype=np.int8).reshape(3, 4)
    trees = (whole, whole[::-1], whole[:, ::-1], whole[::-1, ::-1], np.zeros_like(whole))
    assert len({digests.digest({"a": tree.copy()}) for tree in trees}) == len(trees)


def test_a_record_of_this_version_stays_readable():
    # by hand, with Python's integers of any size
    known = "sums:8407f7f6ea7d3d0b50e4987a10d2a5108d17f27517fcc4f7b31732859fbb94a2"
    assert digests.digest(ONE) == known
    assert digests.agrees(known, digests.digest(ONE), ONE)
    assert not digests.agrees(known, "sums:0", ONE)


def test_a_record_of_an_older_version_is_recognised_or_refused(monkeypatch):
    old = hashlib.sha256()
    for name, array in ONE.items():
        old.update(f"['{name}'] float32 {array.shape}".encode() + array.tobytes())
    ours = digests.digest(ONE)
    assert digests.agrees(old.hexdigest(), ours, ONE)
    assert not digests.agrees("0" * 64, ours, ONE)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"run.folder: .* resume and save there once"):
        digests.agrees(old.hexdigest(), ours, ONE)


def test_a_large_weight_comes_to_the_host_in_blocks(monkeypatch):
    params = jax.device_get(tiny_params())
    placed = jax.device_put(params)
    whole, sizes = digests.digest(placed), []
    add_up = digests._sum

    def look(data, start):
        sizes.append(data.nbytes)
        return add_up(data, start)

    monkeypatch.setattr(digests, "BLOCK", 4096)
    monkeypatch.setattr(digests, "_sum", look)
    assert digests.digest(placed) == whole
    assert max(sizes) <= 32 * 64 * 4 < 304 * 32 * 4  # one layer's, not an embedding


def test_hosts_exchange_two_numbers_of_each_array(monkeypatch):
    """Each holds all of it here, and the first tells."""
    sent = []
    pack = gathers.pack

    def look(tree):
        sent.append(pack(tree).nbytes)
        return pack(tree)

    monkeypatch.setattr(gathers, "pack", look)
    found, count = on_hosts(monkeypatch, 2, lambda host: digests.digest(ONE))
    assert found == [digests.digest(ONE)] * 2 and count == 1
    assert set(sent) == {2 * 2 * 8}
