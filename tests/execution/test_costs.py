"""What judging a program with one test costs, in counts: no clock says the same twice.

Each bound is below what commit d5e64f9 needed, which stands beside it.
"""

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.records import Mode, Problem, Program, TestCase
from tests.execution.kit import find_interpreter, make_settings
from tests.execution.test_hot_pages import needs_ring

SOURCE = "a = int(input())\nif a > 1:\n    print(a * 2)\nelse:\n    print(a)\n"
TEST = TestCase("3\n", "6\n")
PROBLEM = Problem("p", "", "", SOURCE, None, Mode.STDIN_MAIN, (TEST,), "-")
TIMES = 20
PROGRAMS = [Program(PROBLEM, SOURCE, 0, ())] * TIMES


def make_pool(python="", coverage="none"):
    if not python and sys.version_info[:2] != (3, 11):
        pytest.skip("the interpreter of the tests is no 3.11")
    python = find_interpreter(python)
    return Pool(make_settings(workers=1, python=python, coverage=coverage, cache_size=0))


def run(pool):
    assert all(report.passed for report in pool.run(PROGRAMS))


def count_faults(pid):
    """Of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]), int(fields[8])


@needs_ring
@pytest.mark.parametrize(
    ("python", "coverage", "most"),
    [  # d5e64f9: 221, 284, 175, 198
        ("", "none", 165),
        ("", "statement", 220),
        ("python3.12", "none", 145),
        ("python3.12", "statement", 165),
    ],
)
def test_page_faults_of_a_worker_and_its_child(python, coverage, most):
    with make_pool(python, coverage) as pool:
        run(pool)
        worker = pool.pids[0]
        before = count_faults(worker)
        run(pool)
        own, child = (
            (b - a) / TIMES for a, b in zip(before, count_faults(worker), strict=True)
        )
    assert own < 45 and own + child < most, (own, child)


def test_python_calls_of_the_pool():
    calls = [0]

    def count(frame, event, argument):
        if event == "call":
            calls[0] += 1

    threading.setprofile(count)  # of threads that start from now on
    try:
        with make_pool() as pool:
            run(pool)
            calls[0] = 0
            sys.setprofile(count)
            run(pool)
            sys.setprofile(None)
            found = calls[0] / TIMES
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert found < 53, found  # d5e64f9: 58


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")
@pytest.mark.parametrize(
    ("python", "most"), [("", 43), ("python3.12", 47)]
)  # d5e64f9: 46, 50
def test_system_calls_of_a_worker_and_its_child(python, most, tmp_path):
    out = tmp_path / "calls"
    with make_pool(python) as pool:
        run(pool)
        follow = ["strace", "-f", "-c", "-o", out, "-p", str(pool.pids[0])]
        tracer = subprocess.Popen(follow, stderr=subprocess.PIPE, text=True)
        if "attached" not in tracer.stderr.readline():
            pytest.skip("strace may not look into processes here")
        run(pool)
        time.sleep(0.2)
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
    total = next(line for line in out.read_text().splitlines() if line.endswith("total"))
    assert int(total.split()[3]) / TIMES < most + 0.5, out.read_text()
