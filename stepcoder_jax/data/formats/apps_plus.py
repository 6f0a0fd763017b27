"""Reader of APPS+ v1 problem files (JSON list; arXiv:2402.01391, section 3.3).

There is no function name in a row: it is the last `def NAME(` of `starter_code`, a
method of `Solution` where that is a class. String inputs mean a function without
arguments that reads standard input and prints; list inputs mean a call, whose arguments
and results are JSON values or, where they are strings, Python source literals. The tests
that the statement shows are the visible ones.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from stepcoder_jax.data.formats import examples, rows
from stepcoder_jax.data.formats.rows import DataError, require, say
from stepcoder_jax.records import Mode, Problem, TestCase

_DEFINITION = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\(", re.MULTILINE)
_TEXT_FIELDS = ("prompt", "canonical_solution", "starter_code", "difficulty")
MARKS = {"inputs", "outputs"}  # fields that no other format has
READ = {*_TEXT_FIELDS, "inputs", "outputs", "id", "scope"}  # scope: cuts.py finds its own


def read_problems(path: str, *, strict: bool) -> tuple[list[Problem], list[str]]:
    """Read a file; return the good rows' problems and one complaint per bad row.

    DataError for a file that is missing, truncated or no list, and, when `strict`, for the
    first bad row.
    """
    return rows.read_problems(path, read_row, "an APPS+ v1 file", strict=strict)


def read_row(row: dict[str, Any], number: int) -> Problem:
    """The problem of one object; DataError naming the field that is wrong."""
    for field in _TEXT_FIELDS:
        require(row, field, str)
    inputs, outputs = require(row, "inputs", list), require(row, "outputs", list)
    if not inputs or len(inputs) != len(outputs):
        raise DataError(
            "fields inputs and outputs: expected lists of one and the same length, at "
            f"least 1, got {len(inputs)} and {len(outputs)}"
        )
    if not row["canonical_solution"].strip():
        raise DataError("field canonical_solution: expected a program, got only blanks")
    call = not isinstance(inputs[0], str)
    pairs = enumerate(zip(inputs, outputs))
    entry_point = _entry_point(row["starter_code"])
    mode = Mode.CALL if call else Mode.STDIN_FN
    tests = tuple(_read_test(i, given, wanted, call) for i, (given, wanted) in pairs)
    return Problem(
        id=str(row.get("id", f"apps_plus/{number}")),
        statement=row["prompt"],
        starter_code=_normalise_starter(row["starter_code"]),
        solution=row["canonical_solution"],
        entry_point=entry_point,
        mode=mode,
        tests=tests,
        difficulty=row["difficulty"],
        visible_tests=examples.shown_in(row["prompt"], tests, mode, entry_point),
    )


def _normalise_starter(text: str) -> str:
    r"""Trailing white space becomes one "\n"; leading newlines stay as in the file."""
    stripped = text.rstrip()
    return stripped + "\n" if stripped else ""


def _entry_point(starter_code: str) -> str:
    names: list[str] = _DEFINITION.findall(starter_code)
    if not names:
        raise DataError(
            f"field starter_code: expected a `def NAME(`, got {say(starter_code)}"
        )
    return names[-1]


def _read_test(number: int, given: Any, wanted: Any, call: bool) -> TestCase:
    kind = list if call else str
    for field, value in (("inputs", given), ("outputs", wanted)):
        if field == "outputs" and call:
            continue  # any JSON value may be returned
        if not isinstance(value, kind):
            raise DataError(
                f"field {field}[{number}]: expected {kind.__name__} as in the first test, "
                f"got {say(value)}"
            )
    if not call:
        return TestCase(given, wanted)
    return TestCase(tuple(map(decode_literal, given)), _decode_outputs(wanted))


def _decode_outputs(wanted: Any) -> Any:
    """An expected value; one inside the usual one-item list is a literal as well."""
    if isinstance(wanted, list):
        return [decode_literal(item) for item in wanted]
    return decode_literal(wanted)


def decode_literal(value: Any) -> Any:
    r"""A string that is a Python source literal becomes what it spells.

    '"abc"' becomes 'abc' and '[1, 2]' a list; other strings and values stay as they are,
    and so do strings inside of lists.
    """
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
