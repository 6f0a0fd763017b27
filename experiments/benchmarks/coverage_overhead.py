"""What coverage costs: CPU time of a judged program with it, over the same without.

python experiments/benchmarks/coverage_overhead.py [PYTHON ...]

PYTHON are sandbox interpreters (default: this one). Prints a Markdown row per interpreter
and program: seconds without coverage, and the ratios for statements and for expressions.
Runs are interleaved, all on one processor. A ratio is that of the least CPU seconds of
all rounds, since what a virtual machine's host takes away counts as the program's own; in
brackets the median of the rounds' ratios: where the two differ, neither is to be trusted.
Wanted: at most 1.1 on Python 3.12 and newer, at most 2 on 3.11.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys

from stepcoder_jax.config import ExecutionConfig
from stepcoder_jax.execution import Pool, PoolSettings, SandboxError
from stepcoder_jax.records import Mode, Problem, Program, TestCase, Verdict

ROUNDS = 7
COVERAGES = ("none", "statement", "expression")
PROGRAMS = {
    "nested loops": """
total = 0
for i in range(1500):
    for j in range(1500):
        if i & j:
            total += 1
        else:
            total -= 1
""",
    "recursion": """
def fibonacci(n):
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)
fibonacci(31)
""",
    "dynamic programming": """
def common(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a)):
        for j in range(len(b)):
            if a[i] == b[j]:
                table[i + 1][j + 1] = table[i][j] + 1
            else:
                table[i + 1][j + 1] = max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]
common("abcde" * 200, "badce" * 200)
""",
    "builtins": """
for _ in range(30):
    numbers = sorted(str(n * 7919 % 100003) for n in range(40000))
    total = sum(map(len, numbers))
    words = dict(zip(numbers, range(len(numbers))))
""",
}


def make_program(name: str) -> Program:
    source = PROGRAMS[name]
    tests = (TestCase("", ""),)
    problem = Problem(name, "", "", source, None, Mode.STDIN_MAIN, tests, "introductory")
    return Program(problem, source, 0, ())


def open_pools(python: str, stack: contextlib.ExitStack) -> dict[str, Pool]:
    """One pool for each coverage that the interpreter can give."""
    base = vars(ExecutionConfig(workers=1, cpu_seconds=60.0, python=python, cache_size=0))
    pools = {}
    for coverage in COVERAGES:
        # Python 3.11 refuses expressions, by design.
        with contextlib.suppress(SandboxError):
            pools[coverage] = stack.enter_context(
                Pool(PoolSettings(**base, coverage=coverage))
            )
    return pools


def measure(pools: dict[str, Pool], program: Program) -> dict[str, list[float]]:
    """CPU seconds of each round, by coverage."""
    seconds: dict[str, list[float]] = {coverage: [] for coverage in pools}
    for _ in range(ROUNDS):
        for coverage, pool in pools.items():
            (report,) = pool.run([program])
            if report.verdict is not Verdict.PASS:
                raise RuntimeError(f"{program.problem.id}: {report}")
            seconds[coverage].append(report.tests[0].cpu_seconds)
    return seconds


def ratio(seconds: dict[str, list[float]], coverage: str) -> str:
    """Of the least CPU seconds, and the median of the rounds' own; a dash for none."""
    if coverage not in seconds:
        return "-"
    pairs = zip(seconds[coverage], seconds["none"])
    middle = statistics.median(with_it / without for with_it, without in pairs)
    return f"{min(seconds[coverage]) / min(seconds['none']):.2f} ({middle:.2f})"


def main(interpreters: list[str]) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(
        "| Python | program | none, CPU s | statement | expression |\n|---|---|---|---|---|"
    )
    for python in interpreters:
        with contextlib.ExitStack() as stack:
            pools = open_pools(python, stack)
            version = ".".join(map(str, pools["none"].interpreter))
            for name in PROGRAMS:
                seconds = measure(pools, make_program(name))
                cells = [f"{min(seconds['none']):.2f}"]
                cells += [ratio(seconds, coverage) for coverage in COVERAGES[1:]]
                print("|", " | ".join([version, name, *cells]), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [""])
