"""What a model reads of a failing program, by kind, from real reports of the judge."""

import ast
import dataclasses

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback import turns
from stepcoder_jax.records import (
    Attempt,
    Mode,
    Report,
    TestCase,
    TestResult,
    Told,
    Verdict,
)
from tests.execution.kit import make_program, make_settings

CALL = {"mode": Mode.CALL, "entry_point": "f"}
CODE = {"mode": Mode.ASSERT_PROXY, "entry_point": "f"}
BESIDE = {"mode": Mode.ASSERT_INPROC, "entry_point": "f"}


@pytest.fixture(scope="module")
def pool():
    with Pool(make_settings(workers=1, cpu_seconds=0.5, memory_mb=256)) as pool:
        yield pool


@pytest.fixture
def read(pool):
    """The attempt that a program makes of visible tests; it has one test that scores."""

    def read(source, *visible, **options):
        scored = (("hidden", None),) if options in (CODE, BESIDE) else (("", "hidden"),)
        program = make_program(source, *scored, **options)
        tests = tuple(TestCase(*test) for test in visible)
        problem = dataclasses.replace(program.problem, visible_tests=tests)
        seen = turns.on_visible_tests(dataclasses.replace(program, problem=problem))
        assert seen.problem.tests == tests
        (report,) = pool.run([seen])
        return turns.attempt_of(seen, report, 0.5)

    return read


TESTS = {
    "call": (
        "def f(x, y=0):\n    return [x, {y}]\n",
        [((1, 2), [1, {2}]), (("a",), {"b", "a"})],
        CALL,
        (Verdict.WRONG, 1),
        "The program fails this test:\nCall: f('a')\nExpected: {'a', 'b'}\nGot: ['a', {0}]",
    ),
    "stdin": (
        "print(input())",
        [("1\n2\n", "3\n")],
        {},
        (Verdict.WRONG, 0),
        "The program fails this test:\nInput:\n1\n2\nExpected: 3\nGot: 1",
    ),
    "nothing printed": (
        "",
        [("", "3\n")],
        {},
        (Verdict.WRONG, 0),
        "The program fails this test:\nInput:\nExpected: 3\nGot: nothing",
    ),
    "assert equal": (
        "def f(x): return x",
        [("import math\nassert f(2) == 2 * math.pi\n", None)],
        CODE,
        (Verdict.WRONG, 0),
        "The program fails this test:\nCall: f(2)\nExpected: 2 * math.pi\nGot: 2",
    ),
    "assert of what is made of it": (
        "def f(x): return [x]",
        [("assert sorted(f(2)) == [3]\n", None)],
        CODE,
        (Verdict.WRONG, 0),
        "The program fails this test:\nCall: sorted(f(2))\nExpected: [3]\nf returned: [2]",
    ),
    "another assert": (
        "def f(x): return x",
        [("assert f(2) > 3, 'too\\x07 small'\n", None)],
        CODE,
        (Verdict.WRONG, 0),
        "The program fails this test:\nTest: assert f(2) > 3, 'too\\x07 small'\n"
        "Error: AssertionError: too\ufffd small",
    ),
    "beside the program": (
        "def f(x): return x",
        [("assert f(2) == 3\n", None)],
        BESIDE,
        (Verdict.WRONG, 0),
        "The program fails this test:\nCall: f(2)\nExpected: 3",
    ),
    "error": (
        "def f(x):\n    y = 1\n    return y / x\n",
        [((1,), 1.0), ((0,), 1)],
        CALL,
        (Verdict.RUNTIME, 1),
        "The program stops with an error in this test:\nCall: f(0)\n"
        "ZeroDivisionError: division by zero\nLine 3: return y / x",
    ),
    "error under test code": (
        "def f(x):\n    return [][x]\n",
        [("assert f(0) == 1\n", None)],
        CODE,
        (Verdict.RUNTIME, 0),
        "The program stops with an error in this test:\nCall: f(0)\n"
        "IndexError: list index out of range\nLine 2: return [][x]",
    ),
    "no value": (
        "def f(x): return f",
        [((1,), 1)],
        CALL,
        (Verdict.RUNTIME, 0),
        "The program stops with an error in this test:\nCall: f(1)\n"
        "ValueCodecError: returned what equals no plain value: function",
    ),
    "timeout": (
        "while True: pass",
        [("1\n", "1\n")],
        {},
        (Verdict.TIMEOUT, 0),
        "The program is too slow: it runs for more than 0.5 s in this test:\nInput: 1",
    ),
    "memory": (
        "def f(x): return [0] * 10**9",
        [((1,), 1)],
        CALL,
        (Verdict.MEMORY, 0),
        "The program takes too much memory in this test:\nCall: f(1)",
    ),
    "output": (
        "print('x' * 10**8)",
        [("", "1\n")],
        {},
        (Verdict.OUTPUT, 0),
        "The program prints too much in this test:\nInput:",
    ),
    "large value": (
        "def f(x): return [0] * (2 * 10**6 + 1)",
        [((1,), 1)],
        CALL,
        (Verdict.OUTPUT, 0),
        "The program returns too much in this test:\nCall: f(1)",
    ),
    "compile": (
        "def f(x):\n    return (x\n",
        [((1,), 1)],
        CALL,
        (Verdict.COMPILE, None),
        "The program does not compile: SyntaxError: '(' was never closed (line 2)\n"
        "Line 2: return (x",
    ),
}


@pytest.mark.parametrize("name", TESTS)
def test_feedback_by_kind(read, name):
    source, visible, options, (verdict, number), text = TESTS[name]
    attempt = read(source, *visible, **options)
    assert attempt == Attempt(source, verdict, number, text)
    assert turns.tell_less(attempt, Told.TEST) is attempt
    kind = turns.tell_less(attempt, Told.VERDICT)
    assert kind.feedback.startswith("The program ") and kind.feedback.endswith(".")
    assert "\n" not in kind.feedback and not any(x.isdigit() for x in kind.feedback)


def test_what_gives_no_context(read):
    assert read("def f(x): return x", ((1,), 1), **CALL) is None
    program = make_program("", ("", ""))
    for report in (
        Report(Verdict.INFRA, (TestResult(Verdict.NOT_RUN),), frozenset()),
        Report(Verdict.WRONG, (TestResult(Verdict.WRONG, unfaithful=True),), frozenset()),
    ):
        assert turns.attempt_of(program, report, 1.0) is None


def test_hidden_tests_are_never_told(read):
    attempt = read("print(2)", ("1\n", "1\n"))
    assert "hidden" not in attempt.feedback


def test_what_a_model_wrote_is_cut_and_drives_nothing(read):
    attempt = read("print('a\\x1b[2J' + 'b' * 10**6 + '\\u202e')", ("", "1"))
    assert len(attempt.feedback) < 600
    assert attempt.feedback.isprintable() or set(attempt.feedback) - {"\n"}
    assert "\x1b" not in attempt.feedback and "a\ufffd[2Jbb" in attempt.feedback
    line = "x = " + "1 + " * 10**4 + "None"
    attempt = read(f"if True:\n    {line}", ("", "1"))
    assert len(attempt.feedback) < 400 and "\nLine 2: x = 1 + 1" in attempt.feedback
    attempt = read(
        "def f(x):\r    raise ValueError('é\\n' + 'y' * 9999)", ((1,), 1), **CALL
    )
    assert len(attempt.feedback) < 900 and attempt.feedback.count("\n") <= 4


def report_of(*verdicts, message="the first one's"):
    results = tuple(TestResult(Verdict(x), got=str(i)) for i, x in enumerate(verdicts))
    whole = next((x for x in verdicts if x not in ("pass", "not_run")), "pass")
    return Report(Verdict(whole), results, frozenset(), message)


def visible_of(report, tests, visible):
    program = make_program("", *((x, x) for x in tests))
    shown = tuple(TestCase(x, x) for x in visible)
    problem = dataclasses.replace(program.problem, visible_tests=shown)
    return turns.report_on_visible(dataclasses.replace(program, problem=problem), report)


def test_what_a_report_on_all_tests_says_of_the_visible_ones():
    seen = visible_of(report_of("pass", "wrong", "not_run"), "abc", "ba")
    assert [x.got for x in seen.tests] == ["1", "0"] and seen.verdict is Verdict.WRONG
    assert seen.message == "the first one's"
    passed = visible_of(report_of("pass", "wrong", "not_run"), "abc", "a")
    assert passed.passed and passed.message == "" and len(passed.tests) == 1
    # all tests were run: the visible failure is not the one that the message is of
    other = visible_of(report_of("wrong", "pass", "runtime"), "abc", "bc")
    assert other.verdict is Verdict.RUNTIME and other.message == ""
    # behind a failure, or among those that do not score
    assert visible_of(report_of("pass", "wrong", "not_run"), "abc", "ac") is None
    assert visible_of(report_of("pass", "pass", "pass"), "abc", "ad") is None
    # a failure before the one that was not run is enough
    assert visible_of(report_of("wrong", "not_run"), "ab", "ab").verdict is Verdict.WRONG
    for verdict in (Verdict.COMPILE, Verdict.INFRA):
        report = Report(verdict, (), frozenset(), "why")
        assert visible_of(report, "abc", "ad") is report


@pytest.mark.parametrize(
    ("options", "visible", "expected"),
    [
        (CALL, [((1,), [1, 2])], ["[1, 2]"]),
        (CALL, [((1,), 12), ((1,), -1000), ((1,), "abc")], ["-1000", "'abc'"]),
        (CALL, [((1,), True), ((1,), None), ((1,), "ab"), ((1,), [1]), ((1,), 99)], []),
        (CALL, [((1,), list(range(10**4)))], []),  # too long to be shown at all
        (CODE, [("assert f(1) == [2, 'a']", None), ("assert f(1)", None)], ["[2, 'a']"]),
        ({}, [("1\n", "100\n"), ("", "NO\n"), ("", "1 2\n")], ["'100'", "100", "'1 2'"]),
    ],
)
def test_expected_values_that_say_enough(options, visible, expected):
    scored = ((0,), 0) if options is CALL else ("", None if options is CODE else "")
    problem = dataclasses.replace(
        make_program("", scored, **options).problem,
        visible_tests=tuple(TestCase(*test) for test in visible),
    )
    assert [ast.unparse(x) for x in turns.expected_literals(problem)] == expected


def test_what_a_log_shows_of_tests():
    source = "def f(x):\n    if x == 8: raise KeyError('no')\n    return x % 3\n"
    cases = [((x,), x) for x in (0, 3, 8, 1, 2, 1, 5, 7, 9)]
    program = make_program(source, *cases, **CALL)
    with Pool(make_settings(workers=1, tests="run_all")) as pool:
        (report,) = pool.run([program])
    shown = turns.describe_results(program, report)
    # three of those that passed and of those that did not, in the order of the tests
    assert [row["test"] for row in shown] == [0, 1, 2, 3, 4, 6]
    assert shown[0] == {"test": 0, "verdict": "pass", "Call": "f(0)", "Expected": "0"}
    assert shown[1] == {
        **{"test": 1, "verdict": "wrong"},
        **{"Call": "f(3)", "Expected": "3", "Got": "0"},
    }
    assert shown[2]["Error"] == "KeyError: 'no'" and shown[2]["line"] == 2
    assert turns.describe_results(program, report_of("infra", "not_run"))[0]["test"] == 0
    assert turns.describe_results(program, report_of("compile", "not_run")) == []


def test_what_a_log_shows_is_cut(pool):
    program = make_program("print('a\x1b\u202e' + 'b' * 10**5)", ("1" * 10**5, "2"))
    (report,) = pool.run([program])
    (shown,) = turns.describe_results(program, report)
    assert all(len(shown[name]) <= 240 for name in ("Input", "Expected", "Got"))
    assert shown["Got"].startswith("a\ufffd\ufffdbb")
