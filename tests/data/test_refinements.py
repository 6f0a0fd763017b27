"""Records of refinements: read again as written, refused by name, grouped and counted."""

import dataclasses
import json

import pytest

from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.refinements import (
    RefinementRecord,
    Wrong,
    Yield,
    append_refinements,
    count_yield,
    describe_yield,
    group_siblings,
    number_wrong,
    read_refinements,
)
from stepcoder_jax.records import Attempt, Variant, Verdict

WRONG = "def f(x):\n    return x\n"
RIGHT = RefinementRecord(
    task_id="mine/1",
    wrong_id="mine/1#0",
    wrong=WRONG,
    source="runs/sft, step 4",
    feedback=Attempt(WRONG, Verdict.WRONG, 1, "Call: f(2)\nExpected: 4\nGot: 2"),
    explanation="x is not döubled\n",
    refinement="def f(x):\n    return 2 * x\n",
    variant=Variant.EXPLAIN,
    teacher="runs/sft, step 4",
    round=1,
    verdict=Verdict.PASS,
    passed_tests=3,
    tests=3,
    similar=0.8,
    weak=False,
)
FAILED = dataclasses.replace(RIGHT, verdict=Verdict.RUNTIME, passed_tests=1)
UNCOMPILED = dataclasses.replace(
    RIGHT,
    wrong_id="mine/1#1",
    wrong="def f(x:",
    feedback=Attempt("def f(x:", Verdict.COMPILE, None, "The program does not compile: ("),
    variant=Variant.DIRECT,
    explanation="",
)


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(path)]


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "records.jsonl"
    with path.open("w") as file:
        append_refinements(file, [RIGHT, FAILED])
        append_refinements(file, [UNCOMPILED])
    assert read_refinements([str(path)]) == [RIGHT, FAILED, UNCOMPILED]
    first = json.loads(path.read_text().splitlines()[0])
    assert first["feedback"] == {
        "kind": "test",
        "test": 1,
        "text": "Call: f(2)\nExpected: 4\nGot: 2",
    }
    assert list(first)[:3] == ["task_id", "wrong_id", "wrong"] and first["passed"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "infra"}, "field verdict: expected one of pass, wrong, "),
        ({"passed": False}, "fields passed and verdict: contradict, bool false and"),
        ({"passed_tests": 2}, "field passed_tests: 2 of 3 contradicts the verdict pass"),
        ({"tests": 0}, "field tests: expected 1 or more, got int 0"),
        ({"round": True}, "field round: expected 1 or more, got bool true"),
        ({"similar": 1.5}, r"field similar: expected a share in \[0, 1\], got 1.5"),
        ({"similar": None}, "field similar: expected a number, got NoneType null"),
        ({"variant": "both"}, "field variant: expected one of direct, explain, got"),
        ({"weak": 0}, "field weak: expected bool, got int 0"),
        ({"wrong": "\ud800"}, "field wrong: holds half of a surrogate pair"),
        ({"wrong_id": " "}, "field wrong_id: expected text, got only blanks"),
        ({"feedback": {}}, "field feedback.kind: expected str, but it is missing"),
        (
            {"feedback": {"kind": "test", "test": None, "text": ""}},
            "field feedback.test: expected int, got NoneType null",
        ),
    ],
)
def test_a_bad_record_is_refused_by_file_line_and_field(tmp_path, change, said):
    paths = write(tmp_path / "some.jsonl", RIGHT.to_row(), RIGHT.to_row() | change)
    with pytest.raises(DataError, match=rf"some\.jsonl: line 2: {said}"):
        read_refinements(paths)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(RIGHT)])
def test_no_field_may_be_missing(tmp_path, name):
    row = {key: value for key, value in RIGHT.to_row().items() if key != name}
    with pytest.raises(DataError, match=f"line 1: field {name}: expected"):
        read_refinements(write(tmp_path / "some.jsonl", row))


def test_a_line_cut_by_a_kill_and_an_empty_file_are_named(tmp_path):
    path = tmp_path / "cut.jsonl"
    path.write_text(json.dumps(RIGHT.to_row())[:-5])
    with pytest.raises(DataError, match=r"cut\.jsonl: line 1: not valid JSON"):
        read_refinements([str(path)])
    path.write_text("")
    with pytest.raises(DataError, match=r"cut\.jsonl: no line in it; expected records"):
        read_refinements([str(path)])


@pytest.mark.parametrize("name", ["task_id", "wrong"])
def test_siblings_answer_one_program(tmp_path, name):
    one = write(tmp_path / "one.jsonl", RIGHT.to_row())
    other = write(tmp_path / "other.jsonl", RIGHT.to_row() | {name: "another"})
    said = rf"other\.jsonl: line 1: field {name}: expected that of .*one\.jsonl: line 1"
    with pytest.raises(DataError, match=said):
        read_refinements([*one, *other])


def test_siblings_are_grouped_in_their_order():
    groups = group_siblings([RIGHT, UNCOMPILED, FAILED])
    assert groups == {"mine/1#0": [RIGHT, FAILED], "mine/1#1": [UNCOMPILED]}


def test_wrong_programs_are_numbered_within_their_problem_once_each():
    drawn = [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x\n\n"), ("a", "z")]
    assert number_wrong(drawn) == [
        Wrong("a#0", "a", "x"),
        Wrong("b#0", "b", "x"),
        Wrong("a#1", "a", "y"),
        Wrong("a#2", "a", "z"),
    ]


def test_the_yield_counts_wrong_programs_and_what_was_weak_mends_none():
    weak = dataclasses.replace(UNCOMPILED, weak=True)
    asked = [Wrong("mine/2#0", "mine/2", "pass"), Wrong("mine/1#0", "mine/1", WRONG)]
    assert weak.passed and not weak.is_right
    assert count_yield([FAILED, RIGHT, weak]) == Yield(1, 2, 1)
    assert count_yield([FAILED, RIGHT, weak], asked) == Yield(2, 3, 1)
    table = describe_yield({"mine": Yield(2, 3, 1), "none": Yield(0, 0, 0)})
    assert table.splitlines() == [
        "      problems  wrong programs  mended    share",
        "mine         2               3       1  33.33 %",
        "none         0               0       0        -",
        "all          2               3       1  33.33 %",
    ]
