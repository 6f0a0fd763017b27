"""LiveCodeBench: public and private tests, and pickles that are never loaded."""

import base64
import contextlib
import json
import os
import pickle
import pickletools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcoder_jax.data.formats import livecodebench
from stepcoder_jax.data.formats.pickled_text import read_text
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.records import Mode, TestCase
from tests.execution.kit import run_sources


def pack(value, protocol=4):
    """As the hub's files hold private tests."""
    data = zlib.compress(pickle.dumps(value, protocol=protocol))
    return base64.b64encode(data).decode()


def test_of(given, wanted, kind="stdin"):
    return {"input": given, "output": wanted, "testtype": kind}


test_of.__test__ = False
PUBLIC = [test_of("1\n", "2\n")]
PRIVATE = [test_of("5\n", "6\n"), test_of("0\n", "1\n")]
ROW = {
    "question_title": "T",
    "question_content": "Add one.",
    "platform": "atcoder",
    "question_id": "abc1_a",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps(PUBLIC),
    "private_test_cases": pack(json.dumps(PRIVATE)),
    "metadata": "{}",
}
CALLS = [test_of('[1, 2]\n"ab"', '"abab"', "functional")]
CALL_ROW = ROW | {
    "question_id": "3",
    "starter_code": "class Solution:\n    def f(self, xs: List[int], s: str) -> str:\n   ",
    "public_test_cases": json.dumps(CALLS),
    "private_test_cases": json.dumps(CALLS),
    "metadata": '{"func_name": "f"}',
}


def test_rows_become_problems(write):
    (first, second), complaints = read_any(write(ROW, CALL_ROW), strict=True)
    assert complaints == []
    assert first.visible_tests == first.tests[:1] == (TestCase("1\n", "2\n"),)
    assert (first.id, first.mode, first.entry_point) == (
        "livecodebench/abc1_a",
        Mode.STDIN_MAIN,
        None,
    )
    assert (first.statement, first.solution, first.difficulty) == ("Add one.", "", "easy")
    assert first.tests == tuple(
        TestCase(t["input"], t["output"]) for t in [*PUBLIC, *PRIVATE]
    )
    assert (second.mode, second.entry_point) == (Mode.CALL, "f")
    assert second.tests == (TestCase(([1, 2], "ab"), "abab"),) * 2
    assert second.starter_code.endswith("-> str:\n")
    call = "class Solution:\n    def f(self, xs, s): return s * len(xs)\n"
    reports = run_sources([first, second], ["print(int(input()) + 1)", call])
    assert [str(report.verdict) for report in reports] == ["pass", "pass"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("length", [0, 5, 255, 256, 70_000, 300_000])
def test_pickles_of_one_text_are_read(protocol, length):
    text = ("é[" * length)[:length]
    assert read_text(pickle.dumps(text, protocol=protocol)) == text
    slim = pickletools.optimize(pickle.dumps(text, protocol=protocol))
    assert read_text(slim) == text


class Trap:
    """What a hostile file would hold: loading it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_anything_else_are_refused_and_not_loaded(tmp_path, protocol):
    trap = Trap(str(tmp_path / "sprung"))
    for value in (trap, ["a"], ("a", "b"), b"a", 3, None, {"a": trap}):
        with pytest.raises(DataError, match="expected a pickle"):
            read_text(pickle.dumps(value, protocol=protocol))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80",
        b"\x80\x01X\x01\x00\x00\x00a.",
        b"\x80\x06X\x01\x00\x00\x00a.",
        b"X\x01\x00\x00\x00a",
        b"X\xff\x00\x00\x00a.",
        b"X\x01\x00\x00\x00aX\x01\x00\x00\x00b.",
        b"X\x01\x00\x00\x00a..",
        b"X\x01\x00\x00\x00\xff.",
        b"\x94X\x01\x00\x00\x00a.",
        b"X\x01\x00\x00\x00a\x94\x94.",
        b"\x95\xff\x00\x00\x00\x00\x00\x00\x00X\x01\x00\x00\x00a.",
    ],
)
def test_damaged_pickles_are_refused(data):
    with pytest.raises(DataError, match="expected a pickle"):
        read_text(data)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_give_a_text_or_a_refusal(data):
    with contextlib.suppress(DataError):
        assert isinstance(read_text(data), str)


def test_more_than_the_limit_is_not_unpacked(write, monkeypatch):
    monkeypatch.setattr(livecodebench, "LARGEST", 1000)
    row = ROW | {"private_test_cases": pack("[" + " " * 5000)}
    with pytest.raises(DataError, match="more than 1000 bytes when unpacked; refused"):
        read_any(write(row), strict=True)


PACKED = ROW["private_test_cases"]
BAD_ROWS = [
    (ROW | {"private_test_cases": PACKED[:-8]}, "field private_test_cases: .*cut off"),
    (ROW | {"private_test_cases": "?"}, "field private_test_cases: expected JSON, or base"),
    (ROW | {"private_test_cases": "abcd"}, "field private_test_cases: expected JSON, or"),
    (ROW | {"private_test_cases": pack([1])}, "one text and nothing else.*not loaded"),
    (ROW | {"private_test_cases": pack("{}")}, "field private_test_cases: expected a list"),
    (ROW | {"private_test_cases": "[3]"}, r"private_test_cases\[0\]: expected texts input"),
    (ROW | {"public_test_cases": "["}, "field public_test_cases: not valid JSON, perhaps"),
    (
        ROW | {"public_test_cases": "", "private_test_cases": ""},
        "all of testtype stdin or all functional, got no test",
    ),
    (ROW | {"public_test_cases": json.dumps(CALLS)}, "got 'functional', 'stdin'"),
    (CALL_ROW | {"metadata": "{}"}, "field metadata: expected a func_name"),
    (CALL_ROW | {"metadata": "["}, "field metadata: not valid JSON"),
    (
        CALL_ROW | {"public_test_cases": json.dumps([test_of("1\nx", "1", "functional")])},
        r"field public_test_cases\[0\].input: not valid JSON",
    ),
    (ROW | {"question_id": ""}, "field question_id: expected text"),
    (ROW | {"starter_code": None}, "field starter_code: expected str"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_reported_with_line_and_field(write, row, message):
    path = write(ROW | {"question_id": "good"}, row)
    (good,), (complaint,) = read_any(path, strict=False)
    assert good.id == "livecodebench/good" and complaint.startswith(f"{path}: line 2: ")
    with pytest.raises(DataError, match=f"line 2: .*{message}"):
        read_any(path, strict=True)
