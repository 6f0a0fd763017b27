"""The benchmarks of the judge and of peers run to their end. What they measure is for
experiments/log: here every number is only to be there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "experiments" / "benchmarks"
NUMBER = r"\d+(\.\d+)?"
SPREAD = rf"{NUMBER} \({NUMBER} to {NUMBER}\)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "row"),
    [
        ("coverage_overhead.py --rounds 2", rf"\| recursion \| {NUMBER} \| {SPREAD} \|"),
        ("judge_speed.py --rounds 2", rf"one test, coverage statement .*\| {SPREAD} \|"),
        (
            "explanation_rewards.py --problems 20",
            rf"\| TF-IDF, reworded \| -?{NUMBER} \(-?{NUMBER} to -?{NUMBER}\)",
        ),
        ("peer_speed.py --config A --work step --runs 1", rf"ours +parts 4 +{NUMBER} s"),
    ],
    ids=lambda text: text.split()[0],
)
def test_a_short_run_prints_its_rows(command, row):
    script, *options = command.split()
    whole = [sys.executable, FOLDER / script, *options]
    done = subprocess.run(whole, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(row, done.stdout), done.stdout
