"""Two real hosts: they join, and whatever ends one of them ends both.

The short form of experiments/benchmarks/host_trials.py, which has more kinds and trials.
"""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from experiments.benchmarks import (
    host_ends,
    host_lost,
    host_runs,
    host_same,
    host_trials,
)


@pytest.mark.long  # two processes, each with JAX and its own compilation
@pytest.mark.parametrize("kind", ["differ", "error", "reward", "term", "kill"])
def test_both_end_in_time_with_one_word(kind, tmp_path):
    row = host_ends.run_trial(kind, 2, random.Random(f"0 {kind} 0"), tmp_path / "cache")
    assert list(host_ends.complaints(row)) == []
    said = [lines for lines in row["said"].values() if lines]
    if kind == "term":
        # all were told, and the first says what was kept
        assert "saving, then exit code 75" in json.dumps(said[1])
        assert "saved iteration" in said[0][-1]
        return
    last = {lines[-1] for lines in said if "host " in lines[-1]}
    assert len(last) == 1 and f"host {row['host']}" in last.pop()


@pytest.mark.slow
def test_one_trial_in_ten(tmp_path):
    """Seconds of judging are not of these: they want processors that nobody else uses."""
    out = tmp_path / "trials.jsonl"
    kinds = [kind for kind in host_trials.kinds(0) if kind != "judging"]
    flags = ["--out", out, "--one-in", "10", "--minutes", "14", "--kinds", *kinds]
    command = [sys.executable, "-m", "experiments.benchmarks.host_trials", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(out.read_text().splitlines()) > 1


def row(**other):
    good = {"kind": "kill", "ended": True, "seconds": 2.0, "codes": [-signal.SIGKILL, 75]}
    return good | {"left": [], "said": {"1": ["host 0 was lost"]}} | other


def test_what_is_wrong_with_a_trial_is_told():
    assert list(host_ends.complaints(row())) == []
    assert list(host_ends.complaints(row(seconds=31.0))) == ["took 31.0 s of 30"]
    assert list(host_ends.complaints(row(ended=False))) == ["took 2.0 s of 30"]
    assert list(host_ends.complaints(row(codes=[134, 75]))) == ["codes [134, 75]"]
    assert list(host_ends.complaints(row(left=[7]))) == ["left [7]"]
    stack = {"0": ["*** Check failure stack trace: ***"]}
    assert list(host_ends.complaints(row(said=stack)))


SAME = {"kind": "same", "rollouts_equal": True, "rows": [5, 5], "metrics_apart": 1e-6}
SAME |= {"programs": [40, 40], "bytes": 1000, "bytes_of_one": 1000, "layout": "2x1"}
LOST = {f"{what}_equal": True for what in ("metrics", "rollouts", "parameters")}
LOST |= {"kind": "lost", "signal": "SIGTERM", "again": 1, "codes": [75, 75]}


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (SAME, {"rollouts_equal": False}),
        (SAME, {"rows": [4, 5]}),
        (SAME, {"metrics_apart": 2e-5}),
        (SAME, {"programs": [60, 20]}),
        (SAME, {"bytes": 2000}),
        (SAME | {"kind": "moved", "codes": [75]}, {"codes": [0]}),
        (LOST, {"parameters_equal": False}),
        (LOST, {"again": 2}),
        (LOST | {"signal": "SIGKILL", "again": 2}, {"again": 3}),
        (LOST, {"codes": [0, 0]}),
    ],
)
def test_what_is_wrong_with_a_run_is_told(good, bad):
    of = host_lost if good["kind"] == "lost" else host_same
    assert list(of.complaints(good)) == [] and len(list(of.complaints(good | bad))) == 1


def test_rollouts_are_compared_by_field():
    def text(**row):
        return {"0.jsonl": json.dumps({"tokens": [1, 2], "advantages": [0.5, 1.0]} | row)}

    compare = host_same.compare_rollouts
    assert compare(text(), text()) == (0.0, [])
    assert compare(text(), text(tokens=[1, 3])) == (0.0, ["tokens"])
    apart, others = compare(text(), text(advantages=[0.5, 1.00001]))
    assert 0 < apart < host_same.DIGITS and others == []
    assert compare(text(), text(advantages=[0.5])) == (0.0, ["advantages"])
    assert compare(text(), {}) == (0.0, ["files"])


def test_the_series_is_told_in_a_table():
    rows = [row(number=0, wrong=[]), row(number=1, seconds=40.0, wrong=["took"])]
    rows += [SAME | {"number": 0, "wrong": []}, LOST | {"number": 0, "wrong": []}]
    rows.append({"kind": "same", "number": 1, "wrong": ["it did not begin"]})
    told = host_trials.describe(rows, host_trials.kinds(0))
    assert "| kill | 2 of 20 | 1 | 40.0 | -9, 75 | 0 |" in told
    assert "same 2x1: rollouts equal, metrics 1e-06, programs [40, 40], bytes 1000" in told
    assert "lost, SIGTERM: 1 moments, 0 wrong, at most 1 iterations run again" in told


def test_a_process_of_a_trial_ends_with_who_started_it():
    code = "from experiments.benchmarks import host_runs; "
    code += "print(host_runs.start(['sleep', '60']).pid, flush=True); input()"
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as starter:
        (child,) = host_runs.descendants(int(starter.stdout.readline()))
        assert child.lives
        starter.kill()
    until = time.monotonic() + 30
    while child.lives:
        assert time.monotonic() < until
        time.sleep(0.01)
