"""The examples that a statement shows: which are found, and what test code they become."""

import ast
import inspect

import pytest

from stepcoder_jax.data.formats import examples
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.records import Mode, TestCase
from tests.execution.kit import need_data


def found(docstring):
    tests = examples.docstring_tests(inspect.cleandoc(docstring), "f")
    assert all(test.expected is None for test in tests)
    return [test.inputs.removesuffix("\n") for test in tests]


LINES = {
    ">>> f(1)\n2": "assert f(1) == 2",
    ">>> round(f([1]), 2) # two\n-0.50": "assert round(f([1]), 2) == -0.5",
    '>>> f(1)\n["a",\n "b"]': "assert f(1) == ['a', 'b']",
    ">>> f([1,\n...    2])\n3": "assert f([1, 2]) == 3",
    ">>> f(1) == 2": "assert f(1) == 2",
    ">>> f([])": "assert f([]) == None",  # None prints nothing
    "f(1) == 6.00": "assert f(1) == 6.0",
    "f('a)') ➞ (1, 2)": "assert f('a)') == (1, 2)",
    "* f(1) => true": "assert f(1) == True",
    "for f(1) ==>2": "assert f(1) == 2",
    "f(1)  # returns 'x'": "assert f(1) == 'x'",
    "f(1) should return 'No'.": "assert f(1) == 'No'",
    "f(1) = -1 (a remark)": "assert f(1) == -1",
    "f(1) # [2]": "assert f(1) == [2]",
}


@pytest.mark.parametrize("text", LINES)
def test_an_example_becomes_an_assert(text):
    assert found(text) == [LINES[text]]


@pytest.mark.parametrize(
    "text",
    [
        "f takes a list",
        "f(a) => 2",  # no literal
        "f(1) => 1 + 1 = 2",
        ">>> f(1",
        ">>> f(1) [2]",
        ">>> f(1) < 2",
        ">>> f(1)\nTraceback (most recent call last):",
        "g(1) == 2",
        f"f('{'a' * 3000}') == 1",
        "f(" + "(" * 3000,
        f"f({'1)' * 3000}",
    ],
)
def test_what_is_no_example(text):
    assert found(text) == []


def test_each_example_once_in_their_order():
    assert found("A.\n\n>>> f(2)\n3\n>>> f(1)\n2\n\nf(2) => 3\n") == [
        "assert f(2) == 3",
        "assert f(1) == 2",
    ]


def test_asserts_of_a_prompt():
    tests = examples.asserts_of('"""\nDo it.\nassert f(1) == 2\nassert that\'s all\n"""')
    assert [test.inputs for test in tests] == ["assert f(1) == 2\n"]


STORY = """Add.
-----Input-----
Two numbers in one line of input.
-----Examples-----
Input
1 2

Output
3

-----Sample Input-----
4
5
-----Sample Output-----
9
"""


def test_samples_of_a_story():
    shown = [TestCase("1 2\n", "3\n"), TestCase("4\n5", "9")]
    hidden = [TestCase("1\n", "3\n"), TestCase("1 2\n", "4\n"), TestCase("7 8\n", "15\n")]
    for mode in (Mode.STDIN_FN, Mode.STDIN_MAIN):
        tests = examples.shown_in(STORY, [hidden[0], *shown, *hidden[1:]], mode, None)
        assert tests == tuple(shown)


def test_calls_that_the_statement_shows():
    story = (
        'Input: nums = [1, 2], ok = true\nOutput: "a"\nInput:\ns = "x"\np = "y"\n'
        "Output: 4 \nf(5) == [6]\n"
    )
    shown = [
        TestCase(([1, 2], True), "a"),
        TestCase(("x", "y"), [4]),  # as APPS+ wraps results
        TestCase((5,), [6]),
    ]
    hidden = [TestCase(([1, 2], True), "b"), TestCase((6,), [6])]
    assert examples.shown_in(story, [*shown, *hidden], Mode.CALL, "f") == tuple(shown)


@pytest.mark.long
def test_the_genuine_files_show_examples():
    """How many problems have visible tests, which are tests that score, but HumanEval's."""
    wanted = {
        "humaneval/HumanEval.jsonl.gz": 140,
        "mbpp/mbpp.jsonl": 974,
        "mbpp/sanitized-mbpp.json": 427,
        "apps_plus/problems.json": 240,
    }
    for name, count in wanted.items():
        problems, _ = read_any(str(need_data(name)), strict=True)
        assert sum(bool(problem.visible_tests) for problem in problems) == count, name
        for problem in problems:
            if name.startswith("humaneval"):
                assert not set(problem.visible_tests) & set(problem.tests)
                assert all(ast.parse(test.inputs) for test in problem.visible_tests)
            else:
                assert all(test in problem.tests for test in problem.visible_tests)
