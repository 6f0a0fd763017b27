"""JAX as one process of several: what it is told, and what is refused before."""

import socket

import pytest

from stepcoder_jax.devices import joining
from stepcoder_jax.devices.joining import JoinError
from stepcoder_jax.runs.hosts.place import Place


def test_jax_is_told_the_place_and_finds_nothing_by_itself(monkeypatch):
    """By itself it would take one GPU under Slurm, whatever else it is told."""
    told = {}
    monkeypatch.setattr(
        "jax.distributed.initialize", lambda *words, **rest: told.update(rest, words=words)
    )
    joining.start_jax(Place("h", 99, 4, 3, (2, 3)), 0.5)
    assert told == {
        "words": ("h:99", 4, 3),
        "local_device_ids": (2, 3),
        "cluster_detection_method": "deactivate",
        "initialization_timeout": 30,
    }


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            JoinError, match=f"^port {port} of .* is in use .* another port$"
        ):
            joining.start_jax(Place("127.0.0.1", port, 1, 0), 1.0)
    joining.require_free(port)
