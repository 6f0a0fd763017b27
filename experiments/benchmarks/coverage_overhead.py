"""What coverage costs: CPU time of a judged program with it, over the same without.

python experiments/benchmarks/coverage_overhead.py [--rounds N] [PYTHON ...]

PYTHON are sandbox interpreters (default: this one). Prints a Markdown row per interpreter
and program: CPU seconds without coverage, and the ratios for statements and expressions.
All on one processor, the settings taking turns, each second round in the other order. What
the host of a virtual machine takes away counts as the program's own time, so a ratio is
the median of the rounds' ratios (neighbours in time), with the interval in which that
median lies with 95 % confidence (order statistics). Wanted: at most 1.1 on Python 3.12 and
newer, at most 2 on 3.11.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import statistics

from kit import print_head, print_row, spread, use_one_processor

from stepcoder_jax.config import ExecutionConfig
from stepcoder_jax.execution import Pool, PoolSettings
from stepcoder_jax.records import Mode, Problem, Program, TestCase, Verdict

COVERAGES = ("none", "statement", "expression")
PROGRAMS = {
    "nested loops": """
total = 0
for i in range(1000):
    for j in range(1000):
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
fibonacci(29)
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
common("abcde" * 140, "badce" * 140)
""",
    "builtins": """
for _ in range(5):
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
    pools: dict[str, Pool] = {}
    for coverage in COVERAGES:
        if coverage == "expression" and pools["none"].interpreter < (3, 12):
            continue  # refused there, by design
        settings = PoolSettings(**base, coverage=coverage)
        pools[coverage] = stack.enter_context(Pool(settings))
    return pools


def measure(
    pools: dict[str, Pool], program: Program, rounds: int
) -> dict[str, list[float]]:
    """CPU seconds of each round, by coverage."""
    seconds: dict[str, list[float]] = {coverage: [] for coverage in pools}
    for turn in range(rounds):
        for coverage in list(pools)[:: -1 if turn % 2 else 1]:
            (report,) = pools[coverage].run([program])
            if report.verdict is not Verdict.PASS:
                raise RuntimeError(f"{program.problem.id}: {report}")
            seconds[coverage].append(report.tests[0].cpu_seconds)
    return seconds


def median_interval(values: list[float]) -> tuple[float, float]:
    """The order statistics between which the median lies with at least 95 % confidence.

    Values k and n + 1 - k of n sorted ones, for the greatest k with P(X < k) <= 0.025,
    X binomial(n, 1/2): of fewer than six values the least and the greatest.
    """
    count, tail, low = len(values), 0.0, 0
    while (tail := tail + math.comb(count, low) / 2**count) <= 0.025:
        low += 1
    ordered, low = sorted(values), max(low - 1, 0)
    return ordered[low], ordered[-1 - low]


def ratio(seconds: dict[str, list[float]], coverage: str) -> str:
    """The median of the rounds' ratios with its interval; a dash for no measurement."""
    if coverage not in seconds:
        return "-"
    pairs = zip(seconds[coverage], seconds["none"])
    ratios = [with_it / without for with_it, without in pairs]
    low, high = median_interval(ratios)
    return spread(ratios, low, high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("interpreters", nargs="*", default=[""], metavar="PYTHON")
    options = parser.parse_args()
    use_one_processor()
    print_head("Python", "program", "none, CPU s", "statement", "expression")
    for python in options.interpreters:
        with contextlib.ExitStack() as stack:
            pools = open_pools(shutil.which(python) or python, stack)
            version = ".".join(map(str, pools["none"].interpreter))
            for name in PROGRAMS:
                seconds = measure(pools, make_program(name), options.rounds)
                cells = [f"{statistics.median(seconds['none']):.2f}"]
                cells += [ratio(seconds, coverage) for coverage in COVERAGES[1:]]
                print_row(version, name, *cells)


if __name__ == "__main__":
    main()
