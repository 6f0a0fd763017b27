"""Reader of APPS+ v1 problem files (JSON list; arXiv:2402.01391, section 3.3).

There is no function name in a row: it is the last `def NAME(` of `starter_code`, a
method of `Solution` where that is a class. String inputs mean a function without
arguments that reads standard input and prints; list inputs mean a call, whose arguments
and results are JSON values or, where they are strings, Python source literals.
"""

from __future__ import annotations

import ast
import json
import os
import re
from typing import Any

from stepcoder_jax.records import InputError, Mode, Problem, TestCase

_DEFINITION = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\(", re.MULTILINE)
_TEXT_FIELDS = ("prompt", "canonical_solution", "starter_code", "difficulty")


class DataError(InputError):
    """A problem file that cannot be used; the message names file, row and field."""


def read_problems(path: str, *, strict: bool) -> tuple[list[Problem], list[str]]:
    """Read a file; return the good rows' problems and one complaint per bad row.

    Rows count from 0. DataError for a file that is missing, truncated or no list, and,
    when `strict`, for the first bad row.
    """
    problems: list[Problem] = []
    complaints: list[str] = []
    for number, row in enumerate(_read_rows(path)):
        try:
            problems.append(_read_row(row, number))
        except DataError as error:
            complaint = f"{path}: row {number}: {error}"
            if strict:
                raise DataError(complaint) from None
            complaints.append(complaint)
    return problems, complaints


def _read_rows(path: str) -> list[Any]:
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; expected an APPS+ v1 JSON file"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{path}: not valid JSON, perhaps truncated ({os.path.getsize(path)} bytes): "
            f"{error}"
        ) from None
    if not isinstance(rows, list) or not rows:
        raise DataError(
            f"{path}: expected a non-empty JSON list of problems, got {_say(rows)}"
        )
    return rows


def _say(value: object) -> str:
    """A short description of what came instead."""
    text = json.dumps(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def _read_row(row: Any, number: int) -> Problem:
    if not isinstance(row, dict):
        raise DataError(f"expected an object, got {_say(row)}")
    for field in _TEXT_FIELDS:
        _require(row, field, str)
    inputs, outputs = _require(row, "inputs", list), _require(row, "outputs", list)
    if not inputs or len(inputs) != len(outputs):
        raise DataError(
            "fields inputs and outputs: expected lists of one and the same length, at "
            f"least 1, got {len(inputs)} and {len(outputs)}"
        )
    if not row["canonical_solution"].strip():
        raise DataError("field canonical_solution: expected a program, got only blanks")
    call = not isinstance(inputs[0], str)
    pairs = enumerate(zip(inputs, outputs))
    return Problem(
        id=str(row.get("id", f"apps_plus/{number}")),
        statement=row["prompt"],
        starter_code=_normalise_starter(row["starter_code"]),
        solution=row["canonical_solution"],
        entry_point=_entry_point(row["starter_code"]),
        mode=Mode.CALL if call else Mode.STDIN_FN,
        tests=tuple(_read_test(i, given, wanted, call) for i, (given, wanted) in pairs),
        difficulty=row["difficulty"],
    )


def _require(row: dict[str, Any], field: str, kind: type) -> Any:
    if field not in row:
        raise DataError(f"field {field}: expected {kind.__name__}, but it is missing")
    if not isinstance(row[field], kind):
        raise DataError(f"field {field}: expected {kind.__name__}, got {_say(row[field])}")
    return row[field]


def _normalise_starter(text: str) -> str:
    r"""Trailing white space becomes one "\n"; leading newlines stay as in the file."""
    stripped = text.rstrip()
    return stripped + "\n" if stripped else ""


def _entry_point(starter_code: str) -> str:
    names: list[str] = _DEFINITION.findall(starter_code)
    if not names:
        raise DataError(
            f"field starter_code: expected a `def NAME(`, got {_say(starter_code)}"
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
                f"got {_say(value)}"
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
