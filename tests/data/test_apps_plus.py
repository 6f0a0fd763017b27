"""The APPS+ reader: what a row becomes, and what is said of a bad one."""

import json

import pytest

from stepcoder_jax.data.formats.apps_plus import decode_literal, read_problems
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.records import Mode, TestCase
from tests.execution.kit import need_data

STDIN_ROW = {
    "prompt": '\ndef abcde():\n    """Double."""\n',
    "canonical_solution": "\ndef abcde():\n    print(2 * int(input()))\n",
    "inputs": ["2\n", "3\n"],
    "outputs": ["4\n", "6\n"],
    "starter_code": "\ndef abcde():  \n \n",
    "scope": [["Function Body", 2, 3]],
    "difficulty": "interview",
}
CALL_ROW = {
    "id": 7,
    "prompt": "p",
    "canonical_solution": "class Solution:\n    def twice(self, s, n): return s * n\n",
    "inputs": [['"ab"', 2], ["'1'", "3"], ["[1]", [1, "2"]]],
    "outputs": [['"abab"'], ["111"], "[1, 1]"],
    "starter_code": "class Solution:\n    def one(self): ...\n    def twice(self, s, n):",
    "scope": [],
    "difficulty": "introductory",
}


@pytest.fixture
def write(tmp_path):
    def write(rows):
        path = tmp_path / "problems.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return str(path)

    return write


def test_rows_become_problems(write):
    (first, second), complaints = read_problems(write([STDIN_ROW, CALL_ROW]), strict=True)
    assert complaints == []
    assert (first.id, first.mode, first.entry_point) == (
        "apps_plus/0",
        Mode.STDIN_FN,
        "abcde",
    )
    assert first.starter_code == "\ndef abcde():\n"
    assert first.statement == STDIN_ROW["prompt"]
    assert first.solution == STDIN_ROW["canonical_solution"]
    assert first.tests == (TestCase("2\n", "4\n"), TestCase("3\n", "6\n"))
    assert (second.id, second.mode, second.entry_point) == ("7", Mode.CALL, "twice")
    assert second.difficulty == "introductory" and second.cpu_seconds is None
    assert second.tests == (
        TestCase(("ab", 2), ["abab"]),
        TestCase(("1", 3), [111]),
        TestCase(([1], [1, "2"]), [1, 1]),
    )


def test_literals():
    assert decode_literal('"a\\nb"') == "a\nb"
    assert decode_literal("plain words") == "plain words"
    assert decode_literal("__import__('os')") == "__import__('os')"
    assert decode_literal(["'a'"]) == ["'a'"]
    assert decode_literal("(" * 5000) == "(" * 5000


def change(row, **fields):
    changed = {**row, **fields}
    return {name: value for name, value in changed.items() if value is not ...}


BAD_ROWS = [
    ("text", "expected an object, got str"),
    (change(STDIN_ROW, prompt=...), "field prompt: expected str, but it is missing"),
    (change(STDIN_ROW, inputs="2"), 'field inputs: expected list, got str "2"'),
    (change(STDIN_ROW, outputs=["4"]), "one and the same length, at least 1, got 2 and 1"),
    (change(STDIN_ROW, inputs=[], outputs=[]), "at least 1, got 0 and 0"),
    (change(STDIN_ROW, inputs=["2", 3]), r"field inputs\[1\]: expected str .* got int 3"),
    (change(STDIN_ROW, outputs=["2", 3]), r"field outputs\[1\]: expected str .* got int 3"),
    (change(CALL_ROW, inputs=[[1], 2, [3]]), r"field inputs\[1\]: expected list"),
    (change(STDIN_ROW, starter_code="x = 1"), "field starter_code: expected a `def NAME"),
    (
        change(STDIN_ROW, canonical_solution=" \n"),
        "field canonical_solution: expected a pro",
    ),
    (change(STDIN_ROW, difficulty=3), "field difficulty: expected str, got int 3"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_reported_with_row_and_field(write, row, message):
    path = write([STDIN_ROW, row, CALL_ROW])
    problems, (complaint,) = read_problems(path, strict=False)
    assert [problem.id for problem in problems] == ["apps_plus/0", "7"]
    assert complaint.startswith(f"{path}: row 1: ")
    with pytest.raises(DataError, match=message):
        read_problems(path, strict=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps([STDIN_ROW])[:-40], "truncated"),
        ("", "truncated"),
        ("[" * 200_000, "not valid JSON"),
        ("3", "non-empty JSON list, got int"),
        ("[]", "non-empty JSON list, got list"),
    ],
)
def test_broken_files_are_errors_even_when_lenient(write, text, message):
    with pytest.raises(DataError, match=message):
        read_problems(write(text), strict=False)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_problems(str(tmp_path / "absent.json"), strict=False)
    (tmp_path / "binary.json").write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="not UTF-8 text at byte 2"):
        read_problems(str(tmp_path / "binary.json"), strict=False)


def test_the_genuine_file_reads_without_complaint():
    problems, complaints = read_problems(
        str(need_data("apps_plus/problems.json")), strict=True
    )
    assert (len(problems), complaints) == (316, [])
    assert {problem.mode for problem in problems} == {Mode.STDIN_FN, Mode.CALL}
    assert len({problem.id for problem in problems}) == 316
    for problem in problems:
        assert problem.entry_point in problem.solution
        assert problem.starter_code.endswith("\n") and problem.tests
