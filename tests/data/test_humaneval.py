"""The HumanEval reader: the test code it composes, and what is said of a bad row."""

import pytest

from stepcoder_jax.data.formats.humaneval import read_problems
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.formats.source import parse
from stepcoder_jax.records import Mode
from tests.execution.kit import need_data, run_sources, run_swapped

PROMPT = '''from __future__ import annotations
from typing import List

def half(x: int):
    return x // 2

def quarter(x: List[int]) -> int:
    """ A fourth, by `half`; \\d is no escape. """
'''
ROW = {
    "task_id": "HumanEval/7",
    "prompt": PROMPT,
    "entry_point": "quarter",
    "canonical_solution": "    return half(half(x))\n",
    "test": "\nMETADATA = {}\n\ndef check(candidate):\n  assert candidate(8) == half(4)\n",
}
# HumanEval+ as the hub has it: inputs and results in `test`, numpy for what is near.
PLUS_TEST = """
import numpy as np

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False

def assertion(out, exp, atol):
    exact_match = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match

def check(candidate):
    inputs = [[8], [16], [2.0]]
    results = [2, 4, 0.5]
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(candidate(*inp), exp, 0)
"""


def test_a_row_becomes_a_problem(write):
    (problem,), complaints = read_problems(write(ROW), strict=True)
    assert complaints == []
    assert (problem.id, problem.entry_point) == ("HumanEval/7", "quarter")
    assert (problem.mode, problem.difficulty) == (Mode.ASSERT_PROXY, "humaneval")
    assert problem.statement == problem.starter_code == PROMPT
    assert problem.solution == PROMPT + ROW["canonical_solution"]


def test_the_docstrings_examples_are_visible_and_never_score(write):
    prompt = PROMPT.replace("no escape.", "no escape.\n    >>> quarter(4)\n    1\n   ")
    ((problem,), _) = read_problems(write({**ROW, "prompt": prompt}), strict=True)
    assert [test.inputs for test in problem.visible_tests] == ["assert quarter(4) == 1\n"]
    assert len(problem.tests) == 1 and problem.visible_tests[0] not in problem.tests


def test_the_test_code_calls_the_program_and_trusts_the_prompts_helpers(write):
    ((problem,), _) = read_problems(write(ROW), strict=True)
    (test,) = problem.tests
    assert test.expected is None
    kinds = [type(node).__name__ for node in parse("test", test.inputs).body]
    assert kinds == [
        "ImportFrom",
        "ImportFrom",
        "FunctionDef",  # half
        "FunctionDef",  # quarter, a stub
        "Assign",  # quarter = candidate
        "Assign",
        "FunctionDef",  # check
        "Expr",
    ]
    lines = test.inputs.splitlines()
    assert lines[-1] == "check(quarter)" and "half(half" not in test.inputs
    assert lines.index("def quarter(x: List[int]) -> int:") < lines.index(
        "quarter = candidate"
    )


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        (PROMPT + ROW["canonical_solution"], "pass"),
        ("def quarter(x): return x // 4", "pass"),  # `half` is the prompt's in any case
        ("def half(x): return 9\ndef quarter(x): return 9", "wrong"),
        (PROMPT, "wrong"),  # the stub
        ("def other(x): return 2", "runtime"),
    ],
)
@pytest.mark.parametrize("name", ["candidate", "quarter"])
def test_programs_meet_the_test_code(write, source, verdict, name):
    row = change(test=ROW["test"].replace("candidate(8)", f"{name}(8)"))
    problems, _ = read_problems(write(row), strict=True)
    (report,) = run_sources(problems, [source])
    assert (str(report.verdict), report.weak) == (verdict, False)


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("def quarter(x): return x // 4 if x > 2 else x / 4 + 1e-9", "pass"),
        ("def quarter(x): return {8: 2, 16: 4}[x]", "runtime"),
        ("def quarter(x): return {8: 2}.get(x)", "wrong"),
    ],
)
def test_the_hubs_plus_inputs_judge(write, source, verdict):
    problems, _ = read_problems(write(change(test=PLUS_TEST)), strict=True)
    (report,) = run_sources(problems, [source])
    assert str(report.verdict) == verdict


def change(**fields):
    changed = {**ROW, **fields}
    return {name: value for name, value in changed.items() if value is not ...}


BAD_ROWS = [
    (change(task_id=""), "field task_id: expected text"),
    (change(task_id=7), "field task_id: expected str, got int 7"),
    (change(prompt=...), "field prompt: expected str, but it is missing"),
    (change(prompt="def f(:"), "field prompt: expected Python source, got SyntaxError"),
    (change(prompt="def f():\n"), "field prompt: expected Python source"),
    (change(entry_point="a b"), "field entry_point: expected a name, got 'a b'"),
    (change(canonical_solution=None), "field canonical_solution: expected str"),
    (change(test=" "), "field test: expected text, got only blanks"),
    (change(test="def check("), "field test: expected Python source, got SyntaxError"),
    (change(test="x = '\0'"), "field test: expected Python source"),
    (change(test="from __future__ import division"), "field test: expected Python source"),
    (change(test=...), "field test: expected str, but it is missing"),
    (change(plus_input=[[1]]), "field plus_input: not of the format that this file"),
    ("text", "expected an object, got str"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_reported_with_line_and_field(write, row, message):
    path = write(change(task_id="first"), row, change(task_id="last"))
    problems, (complaint,) = read_problems(path, strict=False)
    assert [problem.id for problem in problems] == ["first", "last"]
    assert complaint.startswith(f"{path}: line 2: {message}")
    with pytest.raises(DataError, match=f"line 2: {message}"):
        read_problems(path, strict=True)


@pytest.fixture(scope="module")
def genuine():
    path = str(need_data("humaneval/HumanEval.jsonl.gz"))
    problems, complaints = read_problems(path, strict=True)
    assert complaints == []
    return problems


def test_the_genuine_file_reads_without_complaint(genuine):
    assert [problem.id for problem in genuine] == [f"HumanEval/{n}" for n in range(164)]
    for problem in genuine:
        assert f"\n{problem.entry_point} = candidate\n" in problem.tests[0].inputs
        parse("canonical_solution", problem.solution)


def test_every_canonical_solution_passes(genuine):
    reports = run_sources(genuine, [problem.solution for problem in genuine])
    assert [p.id for p, report in zip(genuine, reports) if not report.passed] == []


def test_no_solution_passes_the_next_problems_tests(genuine):
    reports = run_swapped(genuine)
    assert [ids for ids, report in reports.items() if report.passed] == []
    assert {str(report.verdict) for report in reports.values()} == {"wrong", "runtime"}
