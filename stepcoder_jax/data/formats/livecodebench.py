"""Reader of LiveCodeBench's code generation files, JSON lines (arXiv:2403.07974).

Tests are the public ones, which are the visible ones too, then the private ones. A `stdin`
test is text in and text out of a whole program; a `functional` one calls the method
`func_name` of `Solution` that `metadata` names, with one JSON value per line of its input.
Private tests are JSON or, in
the files of the hub, base64 of zlib of a pickle of JSON: the pickle is never loaded, only
the one text that it may hold is read (pickled_text.py). The files have no solutions.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

from stepcoder_jax.data.formats import rows
from stepcoder_jax.data.formats.pickled_text import read_text
from stepcoder_jax.data.formats.rows import (
    DataError,
    load_field,
    require,
    require_text,
    say,
)
from stepcoder_jax.records import Mode, Problem, TestCase

MARKS = {"question_content", "public_test_cases"}  # fields that no other format has
READ = {
    "question_id", "question_content", "starter_code", "difficulty", "metadata",
    "public_test_cases", "private_test_cases",
    "question_title", "platform", "contest_id", "contest_date",
}  # fmt: skip
LARGEST = 1 << 30  # bytes of one problem's private tests, unpacked
_FIELDS = {"input", "output", "testtype"}
_MODES = {"stdin": Mode.STDIN_MAIN, "functional": Mode.CALL}


def read_problems(path: str, *, strict: bool) -> tuple[list[Problem], list[str]]:
    """Read a file; return the good rows' problems and one complaint per bad row.

    DataError for a file that cannot be read and, when `strict`, for the first bad row.
    """
    return rows.read_problems(path, read_row, "a LiveCodeBench file", strict=strict)


def read_row(row: dict[str, Any], number: int) -> Problem:
    """The problem of one object; DataError naming the field that is wrong."""
    del number
    public = _read_tests("public_test_cases", require(row, "public_test_cases", str))
    private = _unpack(require(row, "private_test_cases", str))
    found = [*public, *_read_tests("private_test_cases", private)]
    kinds = {test["testtype"] for _, test in found}
    if len(kinds) != 1 or not kinds <= _MODES.keys():
        raise DataError(
            "field public_test_cases: expected tests, all of testtype stdin or all "
            f"functional, got {', '.join(map(repr, sorted(kinds))) or 'no test'}"
        )
    mode = _MODES[kinds.pop()]
    starter = require(row, "starter_code", str).rstrip()
    tests = tuple(_read_test(place, test, mode) for place, test in found)
    return Problem(
        id=f"livecodebench/{require_text(row, 'question_id')}",
        statement=require_text(row, "question_content"),
        starter_code=starter + "\n" if starter else "",
        solution="",
        entry_point=_entry_point(row) if mode is Mode.CALL else None,
        mode=mode,
        tests=tests,
        difficulty=require_text(row, "difficulty"),
        visible_tests=tests[: len(public)],
    )


def _unpack(text: str) -> str:
    """The JSON of the private tests, which may be packed."""
    if text.lstrip()[:1] in ("[", ""):
        return text
    field = "field private_test_cases"
    try:
        packed = base64.b64decode(text, validate=True)
        opened = zlib.decompressobj()
        data = opened.decompress(packed, LARGEST)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise DataError(
            f"{field}: expected JSON, or base64 of zlib of a pickled text: {error}"
        ) from None
    if opened.unconsumed_tail:
        raise DataError(f"{field}: more than {LARGEST} bytes when unpacked; refused")
    if not opened.eof:
        raise DataError(f"{field}: the packed text is cut off; copy the file again")
    try:
        return read_text(data)
    except DataError as error:
        raise DataError(f"{field}: {error}") from None


def _read_tests(field: str, text: str) -> list[tuple[str, dict[str, Any]]]:
    """The tests of a field, each with its place in words."""
    tests = load_field(field, text) if text.strip() else []
    if not isinstance(tests, list):
        raise DataError(f"field {field}: expected a list of tests, got {say(tests)}")
    for number, test in enumerate(tests):
        is_test = isinstance(test, dict) and test.keys() >= _FIELDS
        if not is_test or not all(isinstance(test[name], str) for name in _FIELDS):
            raise DataError(
                f"field {field}[{number}]: expected texts {', '.join(sorted(_FIELDS))}, "
                f"got {say(test)}"
            )
    return [(f"{field}[{number}]", test) for number, test in enumerate(tests)]


def _entry_point(row: dict[str, Any]) -> str:
    about = load_field("metadata", require(row, "metadata", str))
    name = about.get("func_name") if isinstance(about, dict) else None
    if not isinstance(name, str) or not name.isidentifier():
        raise DataError(
            f"field metadata: expected a func_name for functional tests, got {say(about)}"
        )
    return name


def _read_test(place: str, test: dict[str, Any], mode: Mode) -> TestCase:
    given, wanted = test["input"], test["output"]
    if mode is Mode.STDIN_MAIN:
        return TestCase(given, wanted)
    lines = [line for line in given.split("\n") if line.strip()]
    arguments = [load_field(f"{place}.input", line) for line in lines]
    return TestCase(tuple(arguments), load_field(f"{place}.output", wanted))
