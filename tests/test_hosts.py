"""A run over two hosts: here two processes, one CPU device each, with real collectives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from run_kit import HERE, metrics_of, rollouts_of, saved

from stepcoder_jax import sharding

SCRIPT = Path(__file__).with_name("two_hosts.py")
PLAIN = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


def run_on_two_hosts(*command: str) -> list[str]:
    """What each of two processes prints; both must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            env=os.environ
            | PLAIN
            | {sharding.HOSTS_VARIABLE: f"127.0.0.1:{port},2,{index}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        ended = [process.communicate(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, ended):
        assert process.returncode == 0, errors[-2000:]
    return [printed for printed, _ in ended]


def test_two_hosts_hold_halves_and_agree():
    printed = run_on_two_hosts(str(SCRIPT))  # Gloo has a line of its own
    seen = [json.loads(text.splitlines()[-1]) for text in printed]
    assert [x["processes"] for x in seen] == [2, 2]
    assert [x["held"] for x in seen] == [[0, 1], [2, 3]]
    # what is of the devices is gathered, what each host has whole is left as it is
    gathered = {"split": [0, 1, 2, 3], "total": 6, "own": [0, 1, 2, 3]}
    assert [x["gathered"] for x in seen] == [gathered, gathered]
    first = [["float32", [[0.5] * 3] * 2], ["bool", [True] * 2], ["bool", [False] * 2]]
    assert [x["agreed"] for x in seen] == [first, first]
    assert [x["acted"] for x in seen] == [[0], []]


@pytest.mark.parametrize("said", ["yes", "10.0.0.1:1", "10.0.0.1:1,2", "10.0.0.1:1,2,x"])
def test_a_host_that_cannot_be_placed_is_refused(monkeypatch, said):
    monkeypatch.setenv(sharding.HOSTS_VARIABLE, said)
    with pytest.raises(
        sharding.ShardingError, match="expected 1 or ADDRESS:PORT,PROCESSES"
    ):
        sharding.join_hosts()


@pytest.mark.slow  # three runs, each with its own compilation
def test_a_run_on_two_hosts_is_that_of_one_host_with_two_devices(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    command = ("-m", "stepcoder_jax", "train", HERE, "--run.folder")
    subprocess.run(
        [sys.executable, *command, str(one)],
        env=os.environ | PLAIN | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        check=True,
        capture_output=True,
    )
    run_on_two_hosts(*command, str(two), "--run.total_steps", "2")
    run_on_two_hosts(*command, str(two), "--run.resume")
    assert rollouts_of(two) == rollouts_of(one)
    for row, expected in zip(metrics_of(two), metrics_of(one), strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    printed = run_on_two_hosts(
        "-m", "stepcoder_jax", "evaluate", str(two), "--split", "test"
    )
    assert "8 problems of test" in printed[0]
    assert saved(two, 4)[2]["step"] == 4
