"""Rows of JSON files: lists, lines, gzip; places, and what is said of damage."""

import gzip
import json

import pytest

from stepcoder_jax.data.formats.rows import (
    DataError,
    Row,
    iter_rows,
    read_problems,
    read_rows,
    require_object,
    require_text,
    stream_lines,
)
from stepcoder_jax.records import Mode, Problem, TestCase


def write(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_list_counts_rows_and_lines_count_lines(tmp_path, pack):
    path = write(tmp_path, pack(b' [{"a": 1}, 2]'))
    assert read_rows(path, "x") == [Row("row 0", 0, {"a": 1}), Row("row 1", 1, 2)]
    path = write(tmp_path, pack(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": 2}\n'))
    rows = [Row("line 1", 0, {"a": 1}), Row("line 3", 1, {"a": 2})]
    assert read_rows(path, "x") == rows and list(stream_lines(path, "x")) == rows


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_white_space_before_the_first_row(tmp_path, pack):
    for blank in (b"\n \r\n", b" \n" * 50_000):
        path = write(tmp_path, pack(blank + b'{"a": 1}\n'))
        assert [row.value for row in read_rows(path, "x")] == [{"a": 1}]
        path = write(tmp_path, pack(blank + b'[{"a": 1}]'))
        assert read_rows(path, "x") == [Row("row 0", 0, {"a": 1})]


def test_lines_are_read_one_after_the_other(tmp_path):
    """What is damaged further on does no harm until it is come to."""
    packed = gzip.compress(b'{"a": 1}\n' * 200_000)
    rows = iter_rows(write(tmp_path, packed[: len(packed) // 2]), "x")
    assert next(rows) == Row("line 1", 0, {"a": 1})
    with pytest.raises(DataError, match="damaged gzip"):
        list(rows)


def test_unicode_line_separators_end_no_line(tmp_path):
    value = {"a": "one\u2028two\x85three"}
    path = write(tmp_path, json.dumps(value, ensure_ascii=False).encode())
    assert [row.value for row in stream_lines(path, "x")] == [value]


def test_a_bad_line_is_that_rows_fault_alone(tmp_path):
    lines = [b'{"a": 1}', b'{"a": ', b'{"a": "\xff"}', b'{"a": ' + b"[" * 100_000, b"[1]"]
    rows = read_rows(write(tmp_path, b"\n".join(lines)), "x")
    assert [row.place for row in rows] == [f"line {n}" for n in range(1, 6)]
    said = [row.error.split(":")[0] for row in rows]
    assert said[0] == "" and said[1] == said[3] == "not valid JSON, perhaps truncated"
    assert said[2] == "not UTF-8 text at byte 7 of the line"
    for row, words in zip(rows[1:], ("not valid", "not UTF-8", "not valid", "an object")):
        with pytest.raises(DataError, match=words):
            require_object(row)


def test_files_that_cannot_be_read(tmp_path):
    packed = gzip.compress(b'{"a": 1}\n' * 1000)
    for damaged in (packed[:-20], packed[:20] + b"xx" + packed[22:], packed[:4]):
        with pytest.raises(
            DataError, match=r"file: a damaged gzip file: .*; copy it again"
        ):
            list(stream_lines(write(tmp_path, damaged), "x"))
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"cannot be read: .*; expected a good file"):
            read_rows(str(path), "a good file")


def read_row(row, number):
    text = require_text(row, "id")
    return Problem(
        text, "", "", "", None, Mode.STDIN_MAIN, (TestCase("", ""),), str(number)
    )


def test_ids_are_unique(tmp_path):
    ids = ["a", "b", "a", " "]
    path = write(tmp_path, json.dumps([{"id": name} for name in ids]).encode())
    problems, complaints = read_problems(path, read_row, "x", strict=False)
    assert [(problem.id, problem.difficulty) for problem in problems] == [
        ("a", "0"),
        ("b", "1"),
    ]
    assert complaints == [
        f"{path}: row 2: the id 'a' is that of a row before it; make ids unique",
        f"{path}: row 3: field id: expected text, got only blanks",
    ]
    with pytest.raises(DataError, match="row 2: the id 'a'"):
        read_problems(path, read_row, "x", strict=True)
