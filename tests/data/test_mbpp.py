"""The MBPP reader: function, tests and mode of a row, and what is said of a bad one."""

import dataclasses
import json

import pytest

from stepcoder_jax.data.formats.mbpp import read_problems
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.records import Mode
from tests.execution.kit import need_data, run_sources, run_swapped

CODE = """import math, sys as system\r
from os import path\r
class Node:\r
    pass\r
def helper(x): return x\r
def twice(x, y=0):\r
    return 2 * x + y\r
"""
ROW = {
    "task_id": 2,
    "text": " Double it.\n",
    "code": CODE,
    "test_list": ["assert (twice(1)) == 2", "assert max(twice(x=2), helper(1)) == 4 "],
    "test_setup_code": "",
    "challenge_test_list": ["assert twice(0) == 0"],
}
SANITIZED = {
    "task_id": 3,
    "prompt": "Double it.",
    "code": CODE,
    "test_list": ["assert math.isclose(twice(1), 2)"],
    "test_imports": ["import math"],
}
PLUS_TEST = """
def assertion(out, exp):
    assert out == exp, f"out: {out}, exp: {exp}"

inputs = [[1], [2, 3]]
results = [2, 7]
for inp, exp in zip(inputs, results):
    assertion(twice(*inp), exp)
"""
PLUS = {
    "task_id": 4,
    "prompt": "Double it.",
    "code": CODE,
    "test_list": ["assert twice(1) == 2"],
    "test_imports": [],
    "source_file": "",
    "test": PLUS_TEST,
}


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "problems.json"
        path.write_text(json.dumps(rows))
        return str(path)

    return write


@pytest.fixture
def read(write):
    def read(row):
        ((problem,), _) = read_problems(write(row), strict=True)
        return problem

    return read


def change(row, **fields):
    changed = {**row, **fields}
    return {name: value for name, value in changed.items() if value is not ...}


def sources(problem):
    assert all(test.expected is None for test in problem.tests)
    return [test.inputs for test in problem.tests]


def test_a_row_becomes_a_problem(read):
    problem = read(ROW)
    assert (problem.id, problem.entry_point) == ("Mbpp/2", "twice")
    assert (problem.mode, problem.difficulty) == (Mode.ASSERT_PROXY, "mbpp")
    assert problem.starter_code == "" and problem.solution == CODE.replace("\r\n", "\n")
    assert problem.statement == (
        "Double it.\nYour code should pass these tests:\n"
        "assert (twice(1)) == 2\nassert max(twice(x=2), helper(1)) == 4\n"
    )
    assert sources(problem) == [
        "assert (twice(1)) == 2\n",
        "assert max(twice(x=2), helper(1)) == 4\n",
    ]


def test_what_the_statement_shows_is_visible(read):
    assert read(ROW).visible_tests == read(ROW).tests
    plus = read(PLUS)
    assert [test.inputs.split("\n")[-2] for test in plus.visible_tests] == PLUS["test_list"]
    assert not set(plus.visible_tests) & set(plus.tests)


def test_a_sanitized_row_becomes_a_problem(read):
    problem = read(SANITIZED)
    assert problem.id == "Mbpp/3" and problem.statement.startswith("Double it.\nYour")
    assert sources(problem) == ["import math\nassert math.isclose(twice(1), 2)\n"]


def test_the_function_is_the_one_called_first(read):
    problem = read(change(ROW, test_list=["assert max([twice(1)]) == helper(2)"]))
    assert problem.entry_point == "twice"


def test_set_up_code_runs_before_each_test(read):
    problem = read(change(ROW, test_setup_code="a = 1\r\nb = 2\n"))
    assert [text.split("assert")[0] for text in sources(problem)] == ["a = 1\nb = 2\n"] * 2


@pytest.mark.parametrize(
    ("test", "borrowed"),
    [
        ("assert system.getsizeof(twice(1)) == 1", "import sys as system\n"),
        ("assert path.exists(twice(math.pi))", "import math\nfrom os import path\n"),
        ("import math\nassert twice(math.pi)", ""),
        ("math = 3\nassert twice(math)", ""),
        ("assert twice(1)", ""),
    ],
)
def test_imports_that_only_the_reference_has_are_borrowed(read, test, borrowed):
    problem = read(change(ROW, test_list=[test]))
    assert sources(problem) == [f"{borrowed}{test}\n"]


@pytest.mark.parametrize(
    ("test", "weak"),
    [
        ("assert twice(Node()) == 1", True),
        ("assert twice([1], int) == 1", True),
        ("assert twice([(1, int)]) == 1", True),
        ("assert twice(1, y=len) == 1", True),
        ("assert twice(lambda x: x) == 1", True),
        ("assert twice(helper) == 1", True),
        ("assert twice(int('1'), y=helper(2)) == int('2')", False),
        ("assert twice(sorted([1], key=len)) == 1", False),
        ("assert type(twice(1)) is int", False),
        ("assert twice(helper(int)) == 1", True),
        ("assert len(list(map(int, twice(1)))) == 1", False),
    ],
)
def test_tests_that_values_cannot_carry_run_beside_the_program(read, test, weak):
    problem = read(change(ROW, test_list=[test]))
    assert problem.mode is (Mode.ASSERT_INPROC if weak else Mode.ASSERT_PROXY)


def test_classes_in_the_set_up_count_too(read):
    changes = {"test_setup_code": "root = Node()", "test_list": ["assert twice(root) == 1"]}
    problem = read(change(ROW, **changes))
    assert (problem.mode, problem.entry_point) == (Mode.ASSERT_INPROC, "twice")


BAD_ROWS = [
    (change(ROW, task_id="2"), 'field task_id: expected int, got str "2"'),
    (change(ROW, text=...), "field text: expected str, but it is missing"),
    (change(SANITIZED, prompt=3), "field prompt: expected str, got int 3"),
    (change(ROW, code="def f(:"), "field code: expected Python source, got SyntaxError"),
    (change(ROW, test_list=[]), "field test_list: expected at least 1 test"),
    (change(ROW, test_list=["assert 1", 2]), r"field test_list\[1\]: expected a test's"),
    (change(ROW, test_list=["assert ("]), r"field test_list\[0\]: expected Python source"),
    (
        change(ROW, test_list=["assert other(1)"]),
        r"field test_list: expected a call .* \(helper, twice\)",
    ),
    (change(ROW, code="x = 1"), r"field test_list: expected a call .* \(it defines none\)"),
    (change(ROW, test_setup_code=...), "field test_setup_code: expected str, but it is"),
    (change(ROW, test_setup_code="("), "field test_setup_code: expected Python source"),
    (change(SANITIZED, test_imports="import math"), "field test_imports: expected list"),
    (change(SANITIZED, test_imports=[1]), "field test_imports: expected lines of source"),
    (change(SANITIZED, test_imports=["import"]), "field test_imports: expected Python"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_reported_with_row_and_field(write, row, message):
    path = write(change(ROW, task_id=8), row, change(ROW, task_id=9))
    problems, (complaint,) = read_problems(path, strict=False)
    assert [problem.id for problem in problems] == ["Mbpp/8", "Mbpp/9"]
    assert complaint.startswith(f"{path}: row 1: ")
    with pytest.raises(DataError, match=f"row 1: {message}"):
        read_problems(path, strict=True)


@pytest.mark.parametrize(
    ("name", "count", "weak"),
    [
        ("mbpp.jsonl", 974, ["Mbpp/367", "Mbpp/533", "Mbpp/601", "Mbpp/927"]),
        ("sanitized-mbpp.json", 427, []),
    ],
)
def test_the_genuine_files_read_without_complaint(name, count, weak):
    problems, complaints = read_problems(str(need_data(f"mbpp/{name}")), strict=True)
    assert (len(problems), complaints) == (count, [])
    assert [p.id for p in problems if p.mode is Mode.ASSERT_INPROC] == weak
    for problem in problems:
        assert problem.entry_point in problem.statement
        assert f"def {problem.entry_point}" in problem.solution


def every(step):
    """Some of MBPP, and all of its weak ones."""
    problems, _ = read_problems(str(need_data("mbpp/mbpp.jsonl")), strict=True)
    return [
        problem
        for number, problem in enumerate(problems)
        if number % step == 0 or problem.mode is Mode.ASSERT_INPROC
    ]


@pytest.mark.parametrize("step", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_reference_solutions_pass(step):
    problems = every(step)
    reports = run_sources(problems, [problem.solution for problem in problems])
    assert [p.id for p, report in zip(problems, reports) if not report.passed] == []
    weak = [p.id for p, report in zip(problems, reports) if report.weak]
    assert weak == ["Mbpp/367", "Mbpp/533", "Mbpp/601", "Mbpp/927"]


@pytest.mark.slow
def test_sanitized_reference_solutions_pass():
    problems, _ = read_problems(str(need_data("mbpp/sanitized-mbpp.json")), strict=True)
    reports = run_sources(problems, [problem.solution for problem in problems])
    assert [p.id for p, report in zip(problems, reports) if not report.passed] == []


@pytest.mark.parametrize(
    ("step", "alike"),
    [
        (12, []),
        # Both add two lists, item by item.
        pytest.param(1, [("Mbpp/728", "Mbpp/729")], marks=pytest.mark.slow),
    ],
)
def test_no_solution_passes_the_next_problems_tests(step, alike):
    reports = run_swapped(every(step))
    assert [ids for ids, report in reports.items() if report.passed] == alike
    assert {str(report.verdict) for report in reports.values()} <= {
        "pass",
        "wrong",
        "runtime",
    }


def test_what_the_rule_calls_weak_cannot_be_asked_by_values():
    """The sandbox agrees: run apart, these tests say nothing, or nothing wrong."""
    weak = [problem for problem in every(1) if problem.mode is Mode.ASSERT_INPROC]
    apart = [dataclasses.replace(problem, mode=Mode.ASSERT_PROXY) for problem in weak]
    reports = run_sources(apart, [problem.solution for problem in apart])
    assert [report.passed or not report.is_valid for report in reports] == [True] * 4
    assert sum(report.passed for report in reports) < 4


def test_mbpp_plus_is_judged_by_all_its_tests(read):
    problem = read(PLUS)
    assert problem.statement.endswith("tests:\nassert twice(1) == 2\n")
    assert (len(problem.tests), problem.entry_point) == (1, "twice")
    assert problem.mode is Mode.ASSERT_PROXY
    base_only = "def twice(x, y=0): return 2 * x"
    reports = run_sources([problem] * 2, [problem.solution, base_only])
    assert [str(report.verdict) for report in reports] == ["pass", "wrong"]


@pytest.mark.parametrize("test", ["", "def f(:", 3])
def test_mbpp_plus_rows_with_a_bad_test(write, test):
    with pytest.raises(DataError, match="row 0: field test: expected"):
        read_problems(write(change(PLUS, test=test)), strict=True)
