"""A value as a short line: what it says, and that hostile ones cost little."""

import ast
import collections
import datetime
import decimal
import fractions
import math

import pytest
from hypothesis import given

from stepcoder_jax.execution.crossing import values
from stepcoder_jax.execution.crossing.showing import MOST, Shower, show, show_call
from stepcoder_jax.execution.judging import returned
from stepcoder_jax.records import Mode, Verdict
from tests.execution.kit import judge, judge_code, pool_fixture
from tests.execution.test_values import plain, same

pool = pool_fixture(workers=1)
INSIDE = []
INSIDE.append(INSIDE)
DEEP = []
for _ in range(60):
    DEEP = [DEEP, DEEP]  # 2^60 lists, for whoever opens them all


class Loud(list):
    def __iter__(self):
        raise AssertionError("asked")

    __repr__ = __len__ = __iter__


TEXTS = {
    "[1, (2,), {'k': {1, 2}}]": [1, (2,), {"k": {2, 1}}],
    "'a\\n\\u202e'": "a\n\u202e",
    "{(), (1,)}": {(1,), ()},
    "set()": set(),
    "{'b': 1, 'a': 2}": {"b": 1, "a": 2},
    "-0.0": -0.0,
    "nan": math.nan,
    "b'\\x00'": b"\0",
    "<int of 4000 bits>": 1 << 3999,
    "[1]": Loud([1]),
    "{'a': 2}": collections.Counter("aa"),
    "deque([1, None])": collections.deque([1, None]),
    "Fraction(1, 2)": fractions.Fraction(1, 2),
    "0.10": decimal.Decimal("0.10"),
    "range(0, 3, 1)": range(3),
    "datetime.date(2024, 1, 2)": datetime.date(2024, 1, 2),
    "<object>": object(),
    "<'a\\nb'>": type("a\nb", (), {})(),
    f"<set of {MOST + 1} items>": set(range(MOST + 1)),
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts(text):
    assert show(TEXTS[text]) == text


def test_a_call():
    assert show_call("f", ()) == "f()"
    assert show_call("f", ("a", [1])) == "f('a', [1])"
    assert show_call("f", ("a" * MOST,)) == f"f('{'a' * (MOST - 3)}..."


@given(plain)
def test_short_plain_values_are_read_back(value):
    text = show(value)
    assert text.isprintable() and len(text) <= MOST + 3
    both = text + repr(value)
    if not any(word in both for word in ("...", "set", "inf", "nan", "int of", "j")):
        assert same(ast.literal_eval(text), value)


@given(plain)
def test_what_was_decoded_without_tables_reads_the_same(value):
    assert returned.show(returned.decode(values.encode(value))) == show(value)


@pytest.mark.parametrize(
    "value",
    [
        *(INSIDE, DEEP, [0] * 10**6, "x" * 10**7, [[[]]] * 10**6, list(range(10**6))),
        {frozenset({i, -i - 1}) for i in range(400)},
        dict.fromkeys(range(10**5)),
    ],
    ids=range(8),
)
def test_no_value_is_looked_at_for_long(value):
    shower = Shower()
    text = shower.show(value)
    assert len(text) <= MOST + 3 and text.isprintable()
    assert shower.steps > -MOST  # 4 values are looked at for each character
    assert sum(map(len, shower.parts)) <= MOST * (MOST + 3)


CALL = {"mode": Mode.CALL, "entry_point": "f"}


def test_a_wrong_call_says_what_it_returned(pool):
    report = judge(pool, "def f(x): return {x: {'b', 'a'}}", ((1,), {1: {"a"}}), **CALL)
    assert report.verdict is Verdict.WRONG
    assert report.tests[0].got == "{1: {'a', 'b'}}"
    report = judge(pool, "def f(x): return x", ((1,), 1), **CALL)
    assert report.passed and report.tests[0].got == ""
    report = judge(pool, "def f(x): return x / 0", ((1,), 1), **CALL)
    assert report.tests[0].got == "" and report.tests[0].message == "division by zero"


def test_wrong_test_code_says_what_the_program_returned_last(pool):
    options = {"cpu_seconds": 0.5}
    source = "def f(x): return [x, 'a\\nb']"
    report = judge_code(pool, source, "f(1)\nassert f(2) == 3\n", **options)
    assert report.tests[0].got == "[2, 'a\\nb']"
    report = judge_code(pool, source, "assert f(2)\n", **options)
    assert report.passed and report.tests[0].got == ""
    hostile = (
        "class A:\n"
        "    def __repr__(self): exit()\n"
        "A.__name__ = 'x\\n\\x1b'\n"
        "def f(x): return [A(), (i for i in 'ab')]"
    )
    (test,) = judge_code(pool, hostile, "assert f(2) == 3\n", **options).tests
    assert test.verdict is Verdict.WRONG and test.got == "[<'x\\n\\x1b'>, <generator>]"


def test_an_error_of_the_program_is_told_with_its_words(pool):
    source = "import sys\ndef f(x):\n    print('noise', file=sys.stderr)\n    return [][x]"
    (test,) = judge_code(pool, source, "assert f(2) == 3\n", cpu_seconds=0.5).tests
    assert (test.verdict, test.error, test.line) == (Verdict.RUNTIME, "IndexError", 4)
    assert test.message == "list index out of range"
    assert test.stderr == "noise\nIndexError: list index out of range"
