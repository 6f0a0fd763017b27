"""What a problem set is like, in numbers."""

import dataclasses

import pytest

from stepcoder_jax.data.curation import stats
from stepcoder_jax.data.curation.solutions import run_solutions
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.records import Mode, Problem, Report, TestCase, Verdict
from tests.execution.kit import make_settings, need_data

LOOPS = "for a in range(3):\n    if a:\n        print(a)\n"  # E = 2, two stages
ONE = '"""Say it."""\nif input():\n    print(1)\nelse:\n    pass\n    print(2)\n'


def make_problem(name, solution, difficulty="easy", tests=1):
    cases = (TestCase("", "2\n"),) * tests
    return Problem(name, "Say.", "", solution, None, Mode.STDIN_MAIN, cases, difficulty)


PROBLEMS = [
    make_problem("a", LOOPS, tests=3),
    make_problem("b", ONE, "hard"),
    make_problem("c", "print(", "hard", tests=2),
    make_problem("d", "", "hard"),
]


def test_numbers_by_difficulty():
    found = stats.describe(PROBLEMS, {"characters": len, "words": lambda t: len(t.split())})
    assert list(found) == ["easy", "hard", "all"]
    assert found["easy"]["problems"] == 1 and found["all"]["problems"] == 4
    assert found["all"]["modes"] == {"stdin_main": 4}
    assert found["all"]["tests"] == {"mean": 1.75, "median": 1.5, "max": 3}
    assert found["easy"]["statement_characters"]["max"] == 4
    assert found["easy"]["solution_words"]["max"] == 7
    assert found["all"]["solution_lines"]["max"] == 6
    assert found["all"]["conditionals"] == {"mean": 1.5, "median": 1.5, "max": 2}
    assert found["all"]["stages"] == {1: 1, 2: 1}
    assert found["all"]["no_curriculum"] == 0.75  # b has one stage; c and d none
    assert found["easy"]["no_curriculum"] == 0.0


def test_coverage_counts_statements_that_leave_a_trace():
    def report(*executed):
        return Report(Verdict.PASS, (), frozenset(executed))

    # of ONE: the if, print(1), print(2); not the docstring, not `pass`
    assert stats.coverage(ONE, report((2, 0), (6, 4))) == 2 / 3
    assert stats.coverage(ONE, report((2, 0), (3, 4), (6, 4), (1, 0))) == 1.0
    assert stats.coverage("print(", report()) is None
    assert stats.coverage("pass", report()) is None


def test_coverage_of_solutions_that_pass():
    problems = [
        make_problem("full", "print(2)\n"),
        make_problem("half", "print(2)\nif 0.0:\n    1 + 1\n    1 + 1\n"),
        make_problem("wrong", "if 1:\n    print(3)\n", "hard"),
    ]
    reports = run_solutions(problems, make_settings(), "test")
    found = stats.describe_coverage(problems, reports)
    expected = {"solutions": 2, "mean": 0.75, "median": 0.75, "full": 0.5}
    assert found == {"easy": expected, "all": expected}


def test_the_table():
    numbers = stats.describe(PROBLEMS, {"characters": len})
    numbers["all"]["coverage"] = {"mean": 0.756, "full": 0.5, "median": 1, "solutions": 2}
    lines = [line.split("  ") for line in stats.to_table(numbers).splitlines()]
    table = {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    assert table[""] == ["easy", "hard", "all"]
    assert table["problems"] == ["1", "3", "4"]
    assert table["tests"][-1] == "1.8 / 1.5 / 3"
    assert table["stages"] == ["2:1", "1:1", "1:1 2:1"]
    assert table["no_curriculum"] == ["0.0 %", "100.0 %", "75.0 %"]
    assert table["coverage"] == ["-", "-", "75.6 %, 50 % full"]


@pytest.fixture(scope="module")
def genuine():
    problems, _ = read_any(str(need_data("apps_plus/problems.json")), strict=True)
    return problems


def test_the_genuine_file(genuine):
    found = stats.describe(genuine, {"characters": len})
    counts = {name: found[name]["problems"] for name in found}
    assert counts == {"introductory": 120, "interview": 120, "competition": 76, "all": 316}
    assert found["all"]["tests"]["mean"] == pytest.approx(2.5, abs=0.05)
    assert found["all"]["no_curriculum"] == pytest.approx(1 / 3, abs=0.02)


def test_coverage_of_genuine_solutions(genuine):
    """96 % of statements in the mean, and most programs whole."""
    some = [dataclasses.replace(problem) for problem in genuine[::10]]
    reports = run_solutions(some, make_settings(cpu_seconds=6.0), "test")
    found = stats.describe_coverage(some, reports)["all"]
    assert found["solutions"] >= len(some) - 3
    assert 0.9 < found["mean"] < 1 and 0.5 < found["full"] < 1
