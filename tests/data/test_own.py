"""Our own JSON lines: what is written is read again, exactly; bad rows are named."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcoder_jax.data.formats import own
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.records import Mode, Problem, TestCase
from tests.execution.kit import run_sources

ROW = {
    "id": "mine/1",
    "statement": "Double it.",
    "starter_code": "def f(x):\n",
    "solution": "def f(x):\n    return 2 * x\n",
    "entry_point": "f",
    "mode": "call",
    "tests": [{"inputs": [2], "expected": 4}, {"inputs": [[1]], "expected": [1, 1]}],
    "difficulty": "introductory",
    "cpu_seconds": 2,
}
MAIN = {"id": "m", "statement": "", "mode": "stdin_main"}
MAIN["tests"] = [{"inputs": "1\n", "expected": "2\n"}]


def change(row, **fields):
    changed = {**row, **fields}
    return {name: value for name, value in changed.items() if value is not ...}


def test_rows_become_problems(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{json.dumps(MAIN)}\n")
    (first, second), complaints = read_any(str(path), strict=True)
    assert complaints == []
    assert first == Problem(
        "mine/1",
        "Double it.",
        "def f(x):\n",
        "def f(x):\n    return 2 * x\n",
        "f",
        Mode.CALL,
        (TestCase((2,), 4), TestCase(([1],), [1, 1])),
        "introductory",
        2.0,
    )
    assert isinstance(first.cpu_seconds, float)
    tests = (TestCase("1\n", "2\n"),)
    assert second == Problem("m", "", "", "", None, Mode.STDIN_MAIN, tests, "unknown")


def test_visible_tests_are_a_list_or_how_many_of_the_first():
    tests = (TestCase((2,), 4), TestCase(([1],), [1, 1]))
    assert own.read_row(ROW).visible_tests == ()
    assert own.read_row({**ROW, "visible_tests": 1}).visible_tests == tests[:1]
    other = [{"inputs": [{"python": "(1,)"}], "expected": 2}]
    problem = own.read_row({**ROW, "visible_tests": other})
    assert problem.visible_tests == (TestCase(((1,),), 2),) and problem.tests == tests
    assert own.read_row(own.to_row(problem)) == problem
    assert "visible_tests" not in own.to_row(own.read_row(ROW))  # old digests hold
    assert own.digest_tests([problem]) == own.digest_tests([own.read_row(ROW)])
    assert problem.metadata == {}
    for bad in (3, -1, True, "1", None):
        with pytest.raises(DataError, match=r"field visible_tests: .* of the 2 tests, got"):
            own.read_row({**ROW, "visible_tests": bad})
    with pytest.raises(DataError, match=r"field visible_tests\[0\].inputs: expected the"):
        own.read_row({**ROW, "visible_tests": [{"inputs": 1, "expected": 2}]})


def test_a_files_own_fields_are_kept(tmp_path, capsys):
    about = {"source": {"url": "u"}, "ratings": [1, 2.5], "python": "é"}
    path, copy = tmp_path / "file.jsonl", tmp_path / "copy.jsonl"
    path.write_text(f"{json.dumps(ROW | about)}\n{json.dumps(MAIN)}\n")
    problems, complaints = read_any(str(path), strict=True)
    assert complaints == []
    assert [problem.metadata for problem in problems] == [about, {}]
    said = "kept as metadata, without a say in the verdict: python (1 rows), ratings (1"
    assert said in capsys.readouterr().err
    own.write(problems, copy)
    assert read_any(str(copy), strict=True)[0] == problems
    hash(dataclasses.replace(problems[1], metadata=about))  # dicts have none


def test_all_modes_are_written_and_read(tmp_path):
    code = TestCase("assert f(1) == 2\n", None)
    base = dataclasses.replace(own.read_row(ROW), cpu_seconds=None)
    problems = [
        base,
        own.read_row(MAIN),
        dataclasses.replace(base, id="é\u2028\n", mode=Mode.ASSERT_PROXY, tests=(code,)),
        dataclasses.replace(base, id="c", mode=Mode.ASSERT_INPROC, tests=(code,)),
        dataclasses.replace(
            base, id="d", mode=Mode.STDIN_FN, tests=(TestCase("", "\r\n"),)
        ),
        *benchmark.generate("validation", 5, (3, 3, 3)),
    ]
    path = tmp_path / "out.jsonl"
    own.write(problems, path)
    assert path.read_text().count("\n") == len(problems)
    assert read_any(str(path), strict=True) == (problems, [])


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=4)
    | st.complex_numbers(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.sets(st.integers() | st.text(max_size=2), max_size=3)
    ),
    max_leaves=8,
)


def same(a, b):
    """Equal in value and in every type."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b


@settings(deadline=None, max_examples=200)
@given(PLAIN)
def test_every_plain_value_comes_back(value):
    text = json.dumps(own.dump_value(value))
    assert same(own.load_value("x", json.loads(text)), value), text


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ((1, (2,)), {"python": "(1, (2,))"}),
        ((), {"python": "()"}),
        ([1, {"a": None}], [1, {"a": None}]),
        ([{1: 2}], {"python": "[{1: 2}]"}),
        ({"python": 1}, {"python": "{'python': 1}"}),
        ({"python": "1", "other": 2}, {"python": "1", "other": 2}),
        (set(), {"python": "set()"}),
        ((float("inf"), -math.inf), {"python": "(1e999, -1e999)"}),
    ],
)
def test_values_as_they_stand_in_a_file(value, written):
    assert own.dump_value(value) == written and own.load_value("x", written) == value


def test_a_nan_alone_is_jsons_own():
    assert math.isnan(own.load_value("x", json.loads(json.dumps(own.dump_value(math.nan)))))


def test_sets_are_written_the_same_in_every_process():
    code = (
        "from stepcoder_jax.data.formats import own; "
        "print(own.dump_value({'one', 'two', 'three', 'four', 'five'}))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert said == {"""{'python': "{'five', 'four', 'one', 'three', 'two'}"}\n"""}


@pytest.mark.parametrize("value", [object(), (math.nan,), frozenset([1]), complex("nan")])
def test_values_that_no_literal_says(value):
    problem = dataclasses.replace(own.read_row(ROW), tests=(TestCase((value,), 1),))
    with pytest.raises(DataError, match="problem mine/1: tests: expected values of None"):
        own.to_row(problem)


def test_problems_that_were_read_are_judged():
    problems = [own.read_row(ROW), own.read_row(MAIN)]
    reports = run_sources(problems, [ROW["solution"], "print(1 + int(input()))"])
    assert [str(report.verdict) for report in reports] == ["pass", "pass"]


BAD_ROWS = [
    (change(ROW, id=" "), "field id: expected text, got only blanks"),
    (change(ROW, statement=...), "field statement: expected str, but it is missing"),
    (change(ROW, solution=3), "field solution: expected str, got int 3"),
    (
        change(ROW, mode="calls"),
        'field mode: expected one of stdin_main, .*got str "calls"',
    ),
    (change(ROW, entry_point=None), "field entry_point: expected a function's name for"),
    (change(ROW, entry_point="a b"), "field entry_point: expected a function's name"),
    (change(ROW, cpu_seconds=0), "field cpu_seconds: expected a number above 0 or null"),
    (change(ROW, cpu_seconds=True), "field cpu_seconds: expected .* got bool true"),
    (change(ROW, cpu_seconds=1e999), "field cpu_seconds: expected"),
    (change(ROW, tests=[]), "field tests: expected at least 1 test, got none"),
    (change(ROW, tests={}), "field tests: expected list, got dict"),
    (change(ROW, tests=[3]), r"field tests\[0\]: expected an object with inputs and exp"),
    (change(ROW, tests=[{"inputs": []}]), r"field tests\[0\]: expected an object"),
    (
        change(ROW, tests=[*ROW["tests"], {"inputs": "2", "expected": 1}]),
        r'field tests\[2\].inputs: expected the list of arguments, got str "2"',
    ),
    (
        change(ROW, tests=[{"inputs": [{"python": "f(x)"}], "expected": 1}]),
        r"field tests\[0\].inputs: expected a Python literal in 'python', got dict",
    ),
    (
        change(ROW, tests=[{"inputs": [], "expected": {"python": 3}}]),
        r"field tests\[0\].expected: expected a Python literal",
    ),
    (
        change(MAIN, tests=[{"inputs": 1, "expected": ""}]),
        r"field tests\[0\].inputs: expected text, got int 1",
    ),
    (
        change(MAIN, tests=[{"inputs": "", "expected": None}]),
        r"field tests\[0\].expected: expected text for mode stdin_main, got NoneType null",
    ),
    (
        change(ROW, mode="assert_proxy", tests=[{"inputs": "x", "expected": "y"}]),
        r"field tests\[0\].expected: expected null for mode assert_proxy",
    ),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_reported_with_line_and_field(tmp_path, row, message):
    path = tmp_path / "file.jsonl"
    path.write_text("\n".join(map(json.dumps, [MAIN, row])))
    problems, (complaint,) = own.read_problems(str(path), strict=False)
    assert [problem.id for problem in problems] == ["m"]
    assert complaint.startswith(f"{path}: line 2: field ")
    with pytest.raises(DataError, match=f"line 2: {message}"):
        own.read_problems(str(path), strict=True)
