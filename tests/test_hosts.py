"""A run over two hosts: here two processes, one CPU device each, with real collectives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.benchmarks import host_runs
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.devices import joining
from stepcoder_jax.models import weights
from stepcoder_jax.runs.hosts.place import HOSTS_VARIABLE, PlaceError
from tests.commands import sft_kit
from tests.run_kit import HERE, metrics_of, rollouts_of, saved

SCRIPT = Path(__file__).with_name("two_hosts.py")
COUNTED = str(Path(__file__).with_name("counted_hosts.py"))
PLAIN = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


def run_on_two_hosts(*command: str) -> list[str]:
    """What each of two processes prints; both must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        host_runs.start(
            [sys.executable, *command],
            env=os.environ | PLAIN | {HOSTS_VARIABLE: f"127.0.0.1:{port},2,{index}"},
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
    first.append(["int32", [0, 0]])
    assert [x["agreed"] for x in seen] == [first, first]
    assert [x["acted"] for x in seen] == [[0], []]


@pytest.mark.parametrize("said", ["yes", "10.0.0.1:1", "10.0.0.1:1,2", "10.0.0.1:1,2,x"])
def test_a_host_that_cannot_be_placed_is_refused(monkeypatch, said):
    monkeypatch.setenv(HOSTS_VARIABLE, said)
    with pytest.raises(PlaceError, match="expected 1 or ADDRESS:PORT,PROCESSES"):
        joining.join_hosts()


def run_on_one_host(*command: str) -> str:
    """The same on one process with two devices."""
    two_devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    ended = subprocess.run(
        [sys.executable, *command],
        env=os.environ | PLAIN | two_devices,
        check=True,
        capture_output=True,
        text=True,
    )
    return ended.stdout


def assert_close(rows: list[dict], expected: list[dict]) -> None:
    """Metrics of two hosts and of one: sums come in another order."""
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        apart = {
            name: (row[name], other[name])
            for name in row
            if row[name] != other[name]
            and (
                None in (row[name], other[name])
                or row[name] != pytest.approx(other[name], rel=1e-5, abs=1e-5)
            )
        }
        assert not apart, f"step {row['step']}"


def files_of(folder: Path) -> dict[str, int]:
    """Bytes of each file of a run, but for what Orbax splits by host."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and "checkpoints" not in path.parts
    }


@pytest.mark.long
def test_two_hosts_share_the_work_of_one_run(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ("--run.total_steps", "2", "--evaluation.test_problems", "0")
    flags += ("--execution.cache_size", "0", "--run.save_every", "9")
    run_on_one_host("-m", "stepcoder_jax", "train", HERE, "--run.folder", str(one), *flags)
    command = (COUNTED, "train", HERE, "--run.folder", str(two), *flags)
    printed = run_on_two_hosts(*command)
    assert rollouts_of(two) == rollouts_of(one)
    clocked = ("seconds/", "judge/seconds", "hosts/")
    assert_close(metrics_of(two, clocked), metrics_of(one, clocked))
    # each judged half of the 16 rows, and process 0 alone wrote
    log = (two / "hosts" / "1.log").read_text().splitlines()
    assert [line.split(", ")[0] for line in log] == [
        f"iteration {step}: judge/programs 8" for step in range(2)
    ]
    ours, theirs = files_of(two), files_of(one)
    assert ours.keys() - theirs.keys() == {"hosts/1.log"}
    assert ours["hosts/1.log"] < 250 * 2
    for name in theirs.keys() - {"config.json", "metrics.jsonl", "curves.png"}:
        assert ours[name] == theirs[name], name
    for text in printed:  # of an iteration: what is agreed on, experience, and text
        for counted in json.loads(text.splitlines()[-1]):
            assert counted["chunks"] >= 2 and counted["others"] <= 3


@pytest.mark.slow  # five runs, each with its own compilation
def test_a_run_on_two_hosts_is_that_of_one_host_with_two_devices(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    command = ("-m", "stepcoder_jax", "train", HERE, "--run.folder")
    run_on_one_host(*command, str(one))
    run_on_two_hosts(*command, str(two), "--run.total_steps", "2")
    run_on_two_hosts(*command, str(two), "--run.resume")
    assert rollouts_of(two) == rollouts_of(one)
    assert_close(metrics_of(two), metrics_of(one))
    assert saved(two, 4)[2]["step"] == 4
    benchmark.write(benchmark.load("test")[:8], tmp_path / "problems.json")
    measured = ("--problems", str(tmp_path / "problems.json"), "--samples-per-problem", "4")
    command = ("-m", "stepcoder_jax", "evaluate", str(two), *measured, "--out")
    run_on_one_host(*command, str(tmp_path / "by_one"))
    printed = run_on_two_hosts(*command, str(tmp_path / "by_two"))
    assert "32 samples of 8 problems" in printed[0]
    for name in ("samples.jsonl", "results.json"):
        found = (tmp_path / "by_two" / name).read_text()
        assert found == (tmp_path / "by_one" / name).read_text()


@pytest.mark.slow  # two runs, each with its own compilation
def test_fine_tuning_on_two_hosts_is_that_of_one_host_with_two_devices(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    command = ("-m", "stepcoder_jax", "sft", sft_kit.HERE, "--run.folder")
    run_on_one_host(*command, str(one))
    run_on_two_hosts(*command, str(two))
    assert_close(sft_kit.metrics_of(two), sft_kit.metrics_of(one))
    found, expected = (weights.load_checkpoint(x, np.float32)[1] for x in (two, one))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)
