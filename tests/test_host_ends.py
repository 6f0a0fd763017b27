"""Two real hosts: they join, and whatever ends one of them ends both.

The short form of experiments/benchmarks/host_ends.py, which has more kinds and more trials.
"""

import json
import random
import signal
import subprocess
import sys

import pytest

from experiments.benchmarks import host_ends


@pytest.mark.long  # two processes, each with JAX and its own compilation
@pytest.mark.parametrize("kind", ["differ", "error", "term", "kill"])
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


@pytest.mark.slow  # a tenth of the whole series
def test_two_trials_of_each_kind(tmp_path):
    out = tmp_path / "trials.jsonl"
    command = [sys.executable, host_ends.__file__, "--out", out, "--trials", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(out.read_text().splitlines()) == 2 * len(host_ends.KINDS)


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
    told = host_ends.table([row(), row(seconds=40.0)])
    assert "| kill | 2 | 40.0 | -9, 75 | 0 | 1 |" in told
