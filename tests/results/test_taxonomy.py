"""Kinds of bugs by rules, from words and from programs that have them."""

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.records import Mode, Report, TestResult, Verdict
from stepcoder_jax.results.taxonomy import (
    Bug,
    Share,
    bug_of,
    classify,
    differ_in_form,
    share_of,
)
from tests.execution.kit import make_program, make_settings


def test_every_verdict_of_a_program_has_a_share():
    assert {v for v in Verdict if share_of(v) is None} == {Verdict.INFRA, Verdict.NOT_RUN}
    assert share_of(Verdict.TIMEOUT) is share_of(Verdict.OUTPUT) is Share.RUNTIME
    assert share_of(Verdict.WRONG) is Share.FAILURE
    assert share_of(Verdict.COMPILE) is Share.COMPILE


def test_verdicts_without_a_bug():
    for verdict in (Verdict.PASS, Verdict.INFRA, Verdict.NOT_RUN):
        assert classify(verdict, "TypeError") is None


def test_what_no_rule_knows():
    assert classify(Verdict.COMPILE, "MemoryError") is Bug.SYNTAX_UNKNOWN
    assert classify(Verdict.RUNTIME) is Bug.RUNTIME_UNKNOWN
    assert classify(Verdict.WRONG, "AssertionError") is Bug.FUNCTIONAL_UNKNOWN


def test_the_names_are_twelve_in_three_classes():
    named = [bug for bug in Bug if not bug.endswith("unknown")]
    assert [sum(bug.startswith(c) for bug in named) for c in "ABC"] == [3, 5, 4]


@pytest.mark.parametrize(
    ("given", "wanted", "alike"),
    [
        ("YES\n", "Yes\n", True),
        ("[1, 2]", "1 2", True),
        ("3,5", "3 5", True),
        ("1 2", "2 1", False),
        ("-1", "1", False),
        ("1.5", "15", False),
        ("yes", "yes", False),  # no difference at all
        ("", "...", False),  # no word says that anything was right
        ("?", "!", False),
        ("1 2 3", "1 2", False),
    ],
)
def test_form(given, wanted, alike):
    assert differ_in_form(given, wanted) is alike


# Programs of one test, entry point f, mode -> the bug they show.
PROGRAMS = [
    ("def f(x)\n    return x", Bug.INCOMPLETE_SYNTAX),
    ("def f(x):\nreturn x", Bug.INDENTATION),
    ("def f(x):\n\tif x:\n        return x", Bug.INDENTATION),
    ("import nowhere_to_be_found\ndef f(x): return x", Bug.IMPORT),
    ("def f(x): return x.up()", Bug.API_MISUSE),
    ("def f(x): return x + 'a'", Bug.API_MISUSE),
    ("def f(x): return x[0]", Bug.API_MISUSE),
    ("def f(x): return len(x)", Bug.API_MISUSE),
    ("def f(x): raise TypeError('so')", Bug.RUNTIME_UNKNOWN),
    ("def f(x): return y", Bug.DEFINITION_MISSING),
    ("def f(x): return [][x]", Bug.BOUNDARY),
    ("def f(x): return x / 0", Bug.BOUNDARY),
    ("def f(): return 1", Bug.ARGUMENT),
    ("def f(x): return int(x, bas=2)", Bug.ARGUMENT),
    ("def f(x): return f(x)", Bug.RUNTIME_MINOR),
    ("def f(x):\n    while True: pass", Bug.RUNTIME_MINOR),
    ("def f(x): raise LookupError", Bug.RUNTIME_UNKNOWN),
    ("def f(x): return -x", Bug.FUNCTIONAL_UNKNOWN),
    ("def f(x): return x", None),
]


def test_programs_show_their_bugs():
    programs = [
        make_program(source, ((4,), 4), mode=Mode.CALL, entry_point="f", cpu_seconds=0.3)
        for source, _ in PROGRAMS
    ]
    text = make_program("print('YES')", ("", "Yes\n"))
    other = make_program("print('no')", ("", "Yes\n"))
    with Pool(make_settings(coverage="none")) as pool:
        *reports, of_text, of_other = pool.run([*programs, text, other])
    wrong = [
        (source, bug, found)
        for (source, bug), report in zip(PROGRAMS, reports)
        if (found := bug_of(report, 4)) is not bug
    ]
    assert not wrong
    assert bug_of(of_text, "Yes\n") is Bug.FORMAT
    assert bug_of(of_other, "Yes\n") is Bug.FUNCTIONAL_UNKNOWN


def test_the_test_that_decided_is_asked():
    """Not one that failed later otherwise, nor what the program says of other errors."""
    stderr = "TypeError: f() takes 1 positional argument\nIndexError: list index\n"
    tests = (
        TestResult(Verdict.PASS),
        TestResult(Verdict.RUNTIME, "IndexError", stderr=stderr),
        TestResult(Verdict.RUNTIME, "NameError"),
    )
    assert bug_of(Report(Verdict.RUNTIME, tests, frozenset())) is Bug.BOUNDARY
    tests = (TestResult(Verdict.RUNTIME, "TypeError", stderr=stderr),)
    assert bug_of(Report(Verdict.RUNTIME, tests, frozenset())) is Bug.ARGUMENT
