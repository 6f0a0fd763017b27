"""Problems as JSON lines of our own: every field of a Problem, read and written exactly.

One object per line (or a JSON list of them), UTF-8, gzipped or not:

  id            text, unique in the file
  statement     what the model is asked, text
  starter_code  how the answer begins, text; may be missing or empty
  solution      the canonical solution, a whole program; "" or missing where none is known
  entry_point   the function or method that tests call; null for mode stdin_main
  mode          stdin_main, stdin_fn, call, assert_proxy or assert_inproc (records.Mode)
  tests         list of {"inputs": ..., "expected": ...}, at least one
  difficulty    text; may be missing ("unknown")
  cpu_seconds   CPU limit of one test in seconds, or null: the default; may be missing
                (training measures limits itself, from the canonical solutions)
  visible_tests what the model may be shown, a list as `tests`, or how many of `tests`, from
                the first; may be missing (none). It scores only where it stands in `tests`

`inputs` and `expected` are, in the stdin modes, text; in mode call, the list of arguments
and the result; in the assert modes, the source of the test code, and null. A value that
JSON has no word for (tuple, set, bytes, complex, a dict whose keys are not all text) is
{"python": "(1, 2)"}: its Python literal, as an argument or result as a whole. NaN and the
infinities stand as Python's `json` writes them. Fields of other names are the file's own:
they are kept as `metadata` of the problem, and go where it goes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stepcoder_jax.data.formats import rows
from stepcoder_jax.data.formats.literals import source_of
from stepcoder_jax.data.formats.rows import DataError, require, require_text, say
from stepcoder_jax.execution.crossing import values
from stepcoder_jax.records import Mode, Problem, TestCase

MARKS = {"statement", "mode", "tests"}  # fields that no other format has
STDIN_MODES = (Mode.STDIN_MAIN, Mode.STDIN_FN)
ASSERT_MODES = (Mode.ASSERT_PROXY, Mode.ASSERT_INPROC)
LITERAL = "python"  # {"python": "(1, 2)"}
UNKNOWN = "unknown"
READ = {
    "id", "statement", "starter_code", "solution", "entry_point", "mode", "tests",
    "difficulty", "cpu_seconds", "visible_tests",
}  # fmt: skip


def read_problems(path: str, *, strict: bool) -> tuple[list[Problem], list[str]]:
    """Read a file; return the good rows' problems and one complaint per bad row.

    DataError for a file that cannot be read and, when `strict`, for the first bad row.
    """
    return rows.read_problems(path, read_row, "problems as JSON lines", strict=strict)


def read_row(row: dict[str, Any], number: int = 0) -> Problem:
    """The problem of one object; DataError naming the field that is wrong."""
    del number
    mode = _read_mode(require(row, "mode", str))
    tests = _read_tests("tests", require(row, "tests", list), mode)
    if not tests:
        raise DataError("field tests: expected at least 1 test, got none")
    return Problem(
        id=require_text(row, "id"),
        statement=require(row, "statement", str),
        starter_code=_optional(row, "starter_code", ""),
        solution=_optional(row, "solution", ""),
        entry_point=_read_entry_point(row, mode),
        mode=mode,
        tests=tests,
        difficulty=_optional(row, "difficulty", UNKNOWN),
        cpu_seconds=_read_cpu_seconds(row.get("cpu_seconds")),
        visible_tests=_read_visible(row.get("visible_tests", 0), tests, mode),
        metadata={name: value for name, value in row.items() if name not in READ},
    )


def _optional(row: dict[str, Any], field: str, default: str) -> str:
    return str(require(row, field, str)) if field in row else default


def _read_mode(name: str) -> Mode:
    if name not in list(Mode):
        raise DataError(f"field mode: expected one of {', '.join(Mode)}, got {say(name)}")
    return Mode(name)


def _read_entry_point(row: dict[str, Any], mode: Mode) -> str | None:
    name = row.get("entry_point")
    if name is None and mode is Mode.STDIN_MAIN:
        return None
    if not isinstance(name, str) or not name.isidentifier():
        raise DataError(
            f"field entry_point: expected a function's name for mode {mode}, got "
            f"{say(name)}"
        )
    return name


def _read_cpu_seconds(value: Any) -> float | None:
    if value is None:
        return None
    is_number = type(value) in (int, float)
    if not is_number or not (value > 0 and math.isfinite(value)):
        raise DataError(
            f"field cpu_seconds: expected a number above 0 or null, got {say(value)}"
        )
    return float(value)


def _read_tests(field: str, tests: list[Any], mode: Mode) -> tuple[TestCase, ...]:
    return tuple(
        _read_test(f"{field}[{number}]", test, mode) for number, test in enumerate(tests)
    )


def _read_visible(
    value: Any, tests: tuple[TestCase, ...], mode: Mode
) -> tuple[TestCase, ...]:
    if isinstance(value, list):
        return _read_tests("visible_tests", value, mode)
    if type(value) is not int or not 0 <= value <= len(tests):
        raise DataError(
            f"field visible_tests: expected a list of tests, or how many of the "
            f"{len(tests)} tests, got {say(value)}"
        )
    return tests[:value]


def _read_test(place: str, test: Any, mode: Mode) -> TestCase:
    if not isinstance(test, dict) or test.keys() != {"inputs", "expected"}:
        raise DataError(
            f"field {place}: expected an object with inputs and expected, got {say(test)}"
        )
    inputs, expected = test["inputs"], test["expected"]
    if mode is Mode.CALL:
        if not isinstance(inputs, list):
            raise DataError(
                f"field {place}.inputs: expected the list of arguments, got {say(inputs)}"
            )
        arguments = [load_value(f"{place}.inputs", value) for value in inputs]
        return TestCase(tuple(arguments), load_value(f"{place}.expected", expected))
    if not isinstance(inputs, str):
        raise DataError(f"field {place}.inputs: expected text, got {say(inputs)}")
    kind = str if mode in STDIN_MODES else type(None)
    if not isinstance(expected, kind):
        words = "text" if kind is str else "null"
        raise DataError(
            f"field {place}.expected: expected {words} for mode {mode}, got {say(expected)}"
        )
    return TestCase(inputs, expected)


def load_value(place: str, value: Any) -> Any:
    """A value as it stands in a file -> the Python value."""
    if not isinstance(value, dict) or value.keys() != {LITERAL}:
        return value
    try:
        return ast.literal_eval(value[LITERAL])
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise DataError(
            f"field {place}: expected a Python literal in {LITERAL!r}, got {say(value)}"
        ) from None


def dump_value(value: Any) -> Any:
    """The Python value -> as it stands in a file; DataError for what no literal says."""
    return value if _is_json(value) else {LITERAL: source_of(value)}


def _is_json(value: Any) -> bool:
    """Whether JSON gives the very same value back, and it is not taken for a literal."""
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        texts = all(isinstance(key, str) for key in value)
        return texts and value.keys() != {LITERAL} and all(map(_is_json, value.values()))
    return value is None or type(value) in (bool, int, float, str)


def to_row(problem: Problem) -> dict[str, Any]:
    """The object that `read_row` reads as this problem; DataError names the problem."""
    try:
        tests, visible = (
            [_dump_test(test, problem.mode) for test in each]
            for each in (problem.tests, problem.visible_tests)
        )
    except DataError as error:
        raise DataError(f"problem {problem.id}: tests: {error}") from None
    return {
        **problem.metadata,
        "id": problem.id,
        "statement": problem.statement,
        "starter_code": problem.starter_code,
        "solution": problem.solution,
        "entry_point": problem.entry_point,
        "mode": str(problem.mode),
        "tests": tests,
        "difficulty": problem.difficulty,
        "cpu_seconds": problem.cpu_seconds,
    } | ({"visible_tests": visible} if visible else {})


def _dump_test(test: TestCase, mode: Mode) -> dict[str, Any]:
    if mode is not Mode.CALL:
        return {"inputs": test.inputs, "expected": test.expected}
    arguments = [dump_value(value) for value in test.inputs]
    return {"inputs": arguments, "expected": dump_value(test.expected)}


def digest_tests(problems: Iterable[Problem]) -> str:
    """SHA-256 of what judges an answer: ids, statements, starter code and tests."""
    total = hashlib.sha256()
    for problem in problems:
        tests = [(test.inputs, test.expected) for test in problem.tests]
        about = (problem.id, problem.statement, problem.starter_code, problem.entry_point)
        total.update(values.encode((*about, str(problem.mode), tests)) + b"\n")
    return total.hexdigest()


def write(problems: Iterable[Problem], path: Path) -> None:
    """Write problems, one per line; a file of this name is overwritten."""
    with open(path, "w", encoding="utf-8") as file:
        for problem in problems:
            file.write(json.dumps(to_row(problem)) + "\n")
