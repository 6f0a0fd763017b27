"""Which statements ran, the same on every interpreter."""

import gzip
import json

import pytest

from stepcoder_jax.execution import Pool
from tests.execution.kit import (
    INTERPRETERS,
    find_interpreter,
    judge,
    make_program,
    make_settings,
    need_data,
    pool_fixture,
)

pool = pool_fixture(tests="run_all")


GOLDEN = '''"""Module docstring."""
from __future__ import annotations
import os, sys


class Thing:
    """A docstring."""
    size: int = 3

    @staticmethod
    def never(): return 1


def work(n):
    "docstring"
    global total
    total = 0
    for i in range(n):
        if i == 1: continue
        elif i > 5:
            total += 100
        else:
            pass
        total += i
    else:
        total += 0
    while True: break
    x: int
    ...
    return (total +
            1)
    print("dead")


def lazy():
    pass


try:
    value = work(3); other = [(lambda: q)() for q in (1, 2)]
    with open(os.devnull) as file:
        raise KeyError("ü" + str(value)); print("dead")
except ValueError:
    print("no")
except KeyError:
    pass
else:
    print("no")
finally:
    print("é"); assert True
if 0:
    print("no")
match value:
    case 0:
        print("no")
    case _:
        print(value)
1 / 0
print("dead")
'''
GOLDEN_EXECUTED = {
    (2, 0),  # from __future__
    (3, 0),
    (6, 0),  # class
    (8, 4),
    (11, 4),  # def under a decorator: the line of `def`
    (14, 0),
    (17, 4),  # after docstring and global
    (18, 4),
    (19, 8),
    (19, 19),  # continue
    (20, 8),  # elif header
    (23, 12),  # pass
    (24, 8),
    (26, 8),
    (27, 4),
    (27, 16),  # break
    (28, 4),  # annotation without a value
    (29, 4),  # ...
    (30, 4),  # return over two lines
    (35, 0),
    (39, 0),  # try
    (40, 4),
    (40, 21),
    (41, 4),
    (42, 8),
    (46, 4),  # pass in the handler
    (50, 4),
    (50, 17),  # a byte column, after é
    (51, 0),
    (53, 0),
    (57, 8),
    (58, 0),  # the raising statement counts
}


def test_golden_coverage(pool):
    report = judge(pool, GOLDEN, ("", ""))
    assert report.tests[0].error == "ZeroDivisionError", report
    assert report.tests[0].line == 58
    assert report.executed == GOLDEN_EXECUTED


def test_coverage_sees_threads_generators_and_nested_functions(pool):
    source = "\n".join(
        [
            "import threading",
            "def outer():",
            "    def inner():",
            "        yield 1",
            "        yield 2",
            "    return next(inner())",
            "thread = threading.Thread(target=outer)",
            "thread.start(); thread.join()",
        ]
    )
    report = judge(pool, source, ("", ""))
    assert report.passed
    every = {(1, 0), (2, 0), (3, 4), (4, 8), (6, 4), (7, 0), (8, 0), (8, 16)}
    assert report.executed == every


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_coverage_counts_lines_as_python_does(pool, end):
    source = end.join(["x = 'a\x0cb\u2028c\x85'", "\x0cy = 1", "if y:", "\tprint(3)", ""])
    report = judge(pool, source, ("", "3\n"))
    assert report.passed, report
    assert {line for line, _ in report.executed} == {1, 2, 3, 4}


def test_coverage_is_kept_per_test_and_as_union(pool):
    source = "x = int(input())\nif x == 1:\n    print(1)\nelse:\n    print(2)\n"
    report = judge(pool, source, ("1", "1"), ("2", "2"))
    first, second = (test.executed for test in report.tests)
    assert first == {(1, 0), (2, 0), (3, 4)} and second == {(1, 0), (2, 0), (5, 4)}
    assert report.executed == first | second and report.passed_tests == 2


def test_without_coverage_verdicts_are_the_same():
    with Pool(make_settings(workers=1, coverage="none")) as pool:
        report = judge(pool, GOLDEN, ("", ""))
        assert report.tests[0].error == "ZeroDivisionError"
        assert report.tests[0].line == 58 and not report.executed
        assert judge(pool, "print(3)", ("", "3")).passed


def test_probes_are_invisible_to_the_program(pool):
    source = "\n".join(
        [
            "def f(a):",
            "    names = sorted(locals())",
            "    return names",
            "class C:",
            "    x = 1",
            "    names = sorted(n for n in vars() if n[0] != '_')",
            "print(f(1), C.names, sorted(n for n in globals() if n[0] != '_'))",
        ]
    )
    assert judge(pool, source, ("", "['a'] ['x'] ['C', 'f']\n")).passed


def test_nothing_is_noted_of_expressions_unless_asked_for(pool):
    report = judge(pool, "a = 1 or 2\n", ("", ""))
    assert report.passed and report.executed and not report.expressions
    assert not report.tests[0].expressions


def solutions(name):
    """Canonical solutions of a shared data set as programs that run by themselves."""
    path = need_data(name)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        if "code" in row:
            setup, tests = row["test_setup_code"], "\n".join(row["test_list"])
            yield f"{row['code']}\n{setup}\n{tests}\n"
        else:
            solution = row["prompt"] + row["canonical_solution"] + "\n" + row["test"]
            yield f"{solution}\ncheck({row['entry_point']})\n"


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("humaneval/HumanEval.jsonl.gz", 160),
        pytest.param("mbpp/mbpp.jsonl", 950, marks=pytest.mark.long),
    ],
)
def test_every_interpreter_gives_the_same_statements(name, least):
    """As test_judge.py has it for APPS+; these bring asserts, classes and recursion."""
    programs = [make_program(source, ("", "")) for source in solutions(name)]
    found = {}
    for interpreter in INTERPRETERS:
        settings = make_settings(python=find_interpreter(interpreter), cpu_seconds=20.0)
        with Pool(settings) as pool:
            found[interpreter] = pool.run(programs)
    compared = 0
    for program, *reports in zip(programs, *found.values()):
        # What an interpreter lacks (numpy, say) ends the program elsewhere.
        if not any(report.tests[0].error == "ModuleNotFoundError" for report in reports):
            assert len({report.executed for report in reports}) == 1, program.source
            compared += 1
    assert compared >= least, f"skipped {len(programs) - compared} for want of a module"


SEVERAL_TESTS = '''"""Compiled by the first test, for all of them."""
class Shape:
    def area(self, side):
        return [side * side if side > 1 else 0 for _ in "x"][0]
def pick(n):
    if n > 10 or n == 7:
        return (lambda: Shape().area(n))()
    raise ValueError(n)
try:
    print(pick(int(input())))
except ValueError as error:
    assert {frozenset()} != {1}
    print("bad", error)
'''


@pytest.mark.parametrize("coverage", ["none", "statement", "expression"])
@pytest.mark.parametrize("name", INTERPRETERS)
def test_later_tests_of_a_program_see_what_a_first_one_sees(name, coverage):
    python = find_interpreter(name)
    if coverage == "expression" and not name:
        pytest.skip("takes 3.12")
    tests = [("7\n", "49\n"), ("3\n", "bad 3\n"), ("x\n", ""), ("12\n", "144\n")]
    settings = make_settings(workers=1, python=python, tests="run_all", coverage=coverage)
    with Pool(settings) as pool:
        together = judge(pool, SEVERAL_TESTS, *tests).tests
        alone = [judge(pool, SEVERAL_TESTS, test).tests[0] for test in tests]
        # what one program compiled is not the next one's
        assert judge(pool, "print(1)", ("", "1"), ("", "1")).passed
        assert judge(pool, "print(2)", ("", "2"), ("", "2")).passed

    def seen(result):
        return (
            *(result.verdict, result.error, result.line, result.stdout, result.stderr),
            *(result.executed, result.expressions),
        )

    assert [seen(result) for result in together] == [seen(result) for result in alone]
    assert coverage == "none" or len({result.executed for result in alone}) > 2


def test_a_program_too_deep_or_too_long_to_keep_is_compiled_for_each_test(pool):
    deep = "x = " + "(" * 60 + "1" + ",)" * 60 + "\nprint(3)\n"
    long = f"x = '{'y' * (9 << 20)}'\nprint(3)\n"  # above the limit of `head`
    for source in (deep, long):
        assert judge(pool, source, ("", "3\n"), ("", "3\n"), ("", "3\n")).passed
