"""APPS: its folders and its rows, and what is said of bad ones."""

import json

import pytest

from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.records import Mode, TestCase
from tests.execution.kit import run_sources

MAIN = {"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}
CALL = {
    "fn_name": "look_up",
    "inputs": [[{"1": "a"}, 1], [{"b": 2}, "b"]],
    "outputs": [["a"], 2],
}
SUM = "print(sum(int(x) for x in open(0).read().split()))\n"
LOOK_UP = "class Solution:\r\n    def look_up(self, d, k):\r\n        return d[k]\r\n"
ROW = {
    "id": 7,
    "question": "Add.",
    "input_output": json.dumps(MAIN),
    "solutions": json.dumps(["print 3\n", SUM, "print(3)"]),
    "starter_code": "",
    "difficulty": "interview",
    "url": "",
}
CALL_ROW = ROW | {
    "id": 8,
    "input_output": json.dumps(CALL),
    "solutions": json.dumps([LOOK_UP]),
    "starter_code": "class Solution:\n    def look_up(self, d, k):\n        ",
}


def check_problems(first, second):
    assert (first.entry_point, first.mode) == (None, Mode.STDIN_MAIN)
    assert first.solution == SUM and first.starter_code == ""
    assert first.tests == (TestCase("1 2\n", "3\n"), TestCase("3\n4", "7"))
    assert (second.entry_point, second.mode) == ("look_up", Mode.CALL)
    assert second.solution == LOOK_UP.replace("\r\n", "\n")
    assert second.tests == (TestCase(({1: "a"}, 1), ["a"]), TestCase(({"b": 2}, "b"), 2))
    assert second.starter_code.endswith("def look_up(self, d, k):\n")
    reports = run_sources([first, second], [first.solution, second.solution])
    assert [str(report.verdict) for report in reports] == ["pass", "pass"]


def test_rows_of_the_hub(write):
    problems, complaints = read_any(write(ROW, CALL_ROW), strict=True)
    assert complaints == []
    assert [problem.id for problem in problems] == ["apps/7", "apps/8"]
    assert {problem.difficulty for problem in problems} == {"interview"}
    assert problems[0].statement == "Add."
    check_problems(*problems)


FILES = {
    "question.txt": "question",
    "input_output.json": "input_output",
    "solutions.json": "solutions",
    "starter_code.py": "starter_code",
}


@pytest.fixture
def folder(tmp_path):
    """Two good problems, as APPS lays them out."""
    for name, row in (("0000", ROW), ("0001", CALL_ROW)):
        place = tmp_path / "train" / name
        place.mkdir(parents=True)
        for file, field in FILES.items():
            if row[field]:
                (place / file).write_text(row[field])
        (place / "metadata.json").write_text('{"difficulty": "interview", "url": ""}')
    return tmp_path / "train"


def test_folders(folder):
    problems, complaints = read_any(str(folder), strict=True)
    assert complaints == []
    assert [problem.id for problem in problems] == ["apps/train/0000", "apps/train/0001"]
    check_problems(*problems)


def test_a_folder_may_lack_solutions_and_metadata(folder):
    for name in ("solutions.json", "metadata.json"):
        (folder / "0000" / name).unlink()
    (first, _), complaints = read_any(str(folder), strict=True)
    assert complaints == []
    assert (first.solution, first.difficulty) == ("", "unknown")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("question.txt", None, "question.txt: expected this file, it is missing"),
        ("question.txt", b"\xff", "question.txt: cannot be read: .*utf-8"),
        ("input_output.json", None, "field input_output: .*at least 1, got 0 and 0"),
        ("input_output.json", b'{"inputs": [', "field input_output: .*truncated"),
        ("metadata.json", b"[]", "metadata.json: expected an object, got list"),
    ],
)
def test_bad_folders_are_named(folder, file, text, message):
    if text is None:
        (folder / "0000" / file).unlink()
    else:
        (folder / "0000" / file).write_bytes(text)
    (good,), (complaint,) = read_any(str(folder), strict=False)
    assert good.id == "apps/train/0001" and complaint.startswith(f"{folder}: 0000: ")
    with pytest.raises(DataError, match=f"0000: {message}"):
        read_any(str(folder), strict=True)


def test_other_folders_are_refused(folder):
    with pytest.raises(
        DataError, match=r"is a folder; expected .*train/0000.*FOLDER:SPLIT"
    ):
        read_any(str(folder.parent), strict=False)


def examples(**fields):
    return ROW | {"input_output": json.dumps({**MAIN, **fields})}


BAD_ROWS = [
    (ROW | {"question": " "}, "field question: expected text"),
    (ROW | {"input_output": 3}, "field input_output: expected str, got int 3"),
    (ROW | {"input_output": ""}, "field input_output: .*at least 1, got 0 and 0"),
    (ROW | {"input_output": "[]"}, "field input_output: expected an object, got list"),
    (ROW | {"input_output": '{"inputs'}, "field input_output: not valid JSON, perhaps tr"),
    (examples(outputs=["3"]), "field input_output: .*got 2 and 1"),
    (examples(inputs="ab"), "field input_output: expected lists inputs and outputs"),
    (examples(inputs=["a", 3]), r"field input_output.inputs\[1\]: expected text, got int"),
    (examples(outputs=["a", [3]]), r"field input_output.outputs\[1\]: expected text, got"),
    (examples(fn_name=""), "field input_output.fn_name: expected a name"),
    (examples(fn_name="f"), r"field input_output.inputs\[0\]: expected the list of arg"),
    (ROW | {"solutions": "[3]"}, "field solutions: expected a list of texts"),
    (ROW | {"solutions": '["print 3"]'}, "none of 1 solutions is Python 3: field solu"),
    (ROW | {"starter_code": 3}, "field starter_code: expected str, got int 3"),
    (ROW | {"difficulty": None}, "field difficulty: expected str"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_reported_with_line_and_field(write, row, message):
    path = write(CALL_ROW, row)
    (good,), (complaint,) = read_any(path, strict=False)
    assert good.id == "apps/8" and complaint.startswith(f"{path}: line 2: ")
    with pytest.raises(DataError, match=f"line 2: {message}"):
        read_any(path, strict=True)


def test_ids_are_unique(write):
    with pytest.raises(DataError, match="line 2: the id 'apps/7' is that of a row before"):
        read_any(write(ROW, ROW), strict=True)
