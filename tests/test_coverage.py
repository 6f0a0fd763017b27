"""What is noted of a run: statements everywhere, expressions on Python 3.12 and newer."""

import sys

import pytest
from execution_kit import INTERPRETERS, find_interpreter, judge, make_settings

from stepcoder_jax import fgo
from stepcoder_jax.execution import Pool, SandboxError
from stepcoder_jax.records import Verdict


@pytest.fixture(scope="module", params=INTERPRETERS, ids=lambda name: name or "trainer's")
def pool(request):
    python = find_interpreter(request.param)
    with Pool(make_settings(python=python, tests="run_all")) as pool:
        yield pool


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


# expressions


@pytest.fixture(scope="module", params=INTERPRETERS[1:])
def fine_pool(request):
    python = find_interpreter(request.param)
    settings = make_settings(python=python, tests="run_all", coverage="expression")
    with Pool(settings) as pool:
        yield pool


def picture(source, report):
    """The source with a dot for each byte that is dropped; spaces stay."""
    kept = fgo.byte_mask(source, report, True)
    return bytes(
        byte if keep or byte in b" \n" else ord(".")
        for byte, keep in zip(source.encode(), kept)
    ).decode()


# Pairs of lines: the program's, and below it what is kept of it.
PICTURES = {
    "right operand of and, or": """
a = [] and len(a) or 3
a = [] and ...... or 3
b = a or (2 + a)
b = a or (. . .)
while b and not a: a = b and 0
while b and not a: . . . ... .
""",
    "arms of an if-expression": """
a = [1 if c else print(2) for c in "xy"]
a = [1 if c else ........ for c in "xy"]
b = len("x") if not a else -len(a)
b = ........ if not a else -len(a)
""",
    "comprehensions that never ran": """
a = [f(x) for x in () if x.y]
a = [.... for . in () if ...]
b = {k: v for k, v in {}.items()}
b = {.. . for .. . in {}.items()}
c = sum(x * x for x in [])
c = sum(. . . for . in [])
d = [x for x in [1] if not x]
d = [. for x in [1] if not x]
""",
    "lambdas": """
f = lambda x, y=len("a"): x * y + 1
f = lambda x, y=len("a"): . . . . .
g = lambda x: x or g(0)
g = lambda x: x or ....
g(1)
g(1)
""",
    "the rest after a call that raised, TypeError": """
def boom(): return [].x
def boom(): return [].x
def f(a):
def f(a):
    return max(len(a), boom(), len(a) + 1)
    return max.len(a). boom(). ...... . ..
try: b = f("a") + f("b")
try: . = f("a") . ......
except AttributeError: a = len("a"); print("a" + a, "b")
except AttributeError: a = len("a"); print."a" + a. ....
""",
    "chained comparison": """
a = 3 < 2 < len("abc")
a = 3 < 2 < ..........
b = 1 < 2 < len("abc")
b = 1 < 2 < len("abc")
""",
    "a def that raised at a default": """
try:
try:
    @print
    @print
    def f(a, b=nothing, c=len("")): return a
    def f(a, b=nothing, c=.......): ...... .
except NameError: pass
except NameError: pass
class A(int and object or print()): b = a = 1
class A(int and object or .......): b = a = 1
""",
    "headers": """
for i, j in ():
for .. . in ():
    print(i)
    ........
with open("/dev/null") as f, (f or g()) as h:
with open("/dev/null") as f, (f or ...) as h:
    pass
    pass
if never if f.closed and [] else 1: a = 1
if ..... if f.closed and [] else 1: a = 1
elif print(): b = 2
.... ........ . . .
""",
    "assert and raise": """
assert len("a") == 1, print("no")
assert len("a") == 1, ...........
try: raise KeyError(a := 1) from (a and None)
try: raise KeyError(a := 1) from (a and None)
except KeyError: pass
except KeyError: pass
""",
    "clauses": """
a = 2
a = 2
match a:
match a:
    case 1 | 2 | 3 if a or print():
    case 1 | 2 | . if a or .......:
        b = 1
        b = 1
try: a.b
try: a.b
except (AttributeError, KeyError or a): pass
except (AttributeError, KeyError or .): pass
""",
    "columns in bytes": """
é = "日本" if len("ü") else "ßé"; z = é or "日本"
é = "日本" if len("ü") else ......; z = é or ........
""",
    "a comment goes with its statement": """
a = [1]
a = [1]
b = a or len(  # why
b = a or ....  . ...
    "abc")  # the fallback
    ......  # the fallback
""",
    "f-strings": """
a = 3
a = 3
b = f"{a} {a if a > 2 else -a:>{a}}!"
b = f"{a} {a if a > 2 else ..:>{a}}!"
""",
    "docstrings, pass and annotations have no instruction that counts": """
def f(a: int = 1) -> str:
def f(a: int = 1) -> str:
    "docstring"
    "docstring"
    b: "never" = a
    b: "never" = a
    return b
    return b
    pass; ...
    pass; ...
f()
f()
""",
}


@pytest.mark.parametrize("name", PICTURES)
def test_golden_expressions(fine_pool, name):
    lines = PICTURES[name].strip("\n").split("\n")
    source, expected = "\n".join(lines[::2]) + "\n", "\n".join(lines[1::2]) + "\n"
    report = judge(fine_pool, source, ("", ""))
    assert (report.tests[0].error == "TypeError") == ("TypeError" in name), report
    assert picture(source, report) == expected


def test_expressions_are_kept_per_test_and_as_union(fine_pool):
    source = "a = input()\nb = len(a) if a else -1\n"
    report = judge(fine_pool, source, ("\n", ""), ("x", ""))
    arms = {(2, 4, 2, 10): "len(a)", (2, 21, 2, 23): "-1"}
    empty, filled = ([test.expressions[arm] for arm in arms] for test in report.tests)
    assert (empty, filled) == ([False, True], [True, False])
    assert report.expressions == dict.fromkeys(report.expressions, True)
    assert picture(source, report) == source


def test_expressions_lie_in_the_source_and_statements_stay_as_they_are(fine_pool):
    report = judge(fine_pool, GOLDEN, ("", ""))
    assert report.executed == GOLDEN_EXECUTED
    lines = GOLDEN.encode().split(b"\n")
    assert len(report.expressions) > 80
    for line, column, end_line, end_column in report.expressions:
        assert 1 <= line <= end_line <= len(lines), "a probe has a line of its own"
        assert column <= len(lines[line - 1]) and end_column <= len(lines[end_line - 1])
        assert (line, column) < (end_line, end_column)


def test_a_timeout_keeps_its_expressions(fine_pool):
    source = "a = 1\nwhile a or a.b: a = a + (a and 1)\nprint(a)\n"
    report = judge(fine_pool, source, ("", ""), cpu_seconds=0.2)
    assert report.verdict is Verdict.TIMEOUT
    kept = "a = 1\nwhile a or ...: a = a + (a and 1)\n........\n"
    assert picture(source, report) == kept


def test_columns_beyond_255_and_the_map_beyond_its_end(fine_pool):
    wide = f"a = {'1 + ' * 100}len('') and (a if a else -a)\n"
    report = judge(fine_pool, f"a = 0\n{wide}", ("", ""))
    arm = wide.index("(a if") + 1
    assert arm > 255 and report.expressions[2, arm, 2, arm + 1] is False
    assert report.expressions[2, len(wide) - 4, 2, len(wide) - 2] is True
    many = "a = [0]\n" + "a[0] = a[0] or 1\n" * 6000 + "print(3)\n"
    report = judge(fine_pool, many, ("", "3"))
    assert report.passed and len(report.executed) == 6002
    assert 2000 < max(line for line, *_ in report.expressions) < 6000


def test_nothing_is_noted_of_expressions_unless_asked_for(pool):
    report = judge(pool, "a = 1 or 2\n", ("", ""))
    assert report.passed and report.executed and not report.expressions
    assert not report.tests[0].expressions


def test_what_does_not_compile_has_no_expressions(fine_pool):
    report = judge(fine_pool, "a = (\n", ("", ""))
    assert report.verdict is Verdict.COMPILE and not report.expressions


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this interpreter has monitoring")
def test_no_expressions_on_an_interpreter_without_monitoring():
    with pytest.raises(SandboxError) as refused:
        Pool(make_settings(coverage="expression"))
    said = str(refused.value)
    assert "got 3.11" in said and "--execution.python" in said
    assert "--fgo.granularity statement" in said and "\n" not in said
