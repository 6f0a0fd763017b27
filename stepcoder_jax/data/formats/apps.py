"""Readers of APPS: its folders, and the JSON lines of the hub (arXiv:2105.09938).

A folder of problems (`train/0000`, `train/0001`, ...) has in each `question.txt`,
`input_output.json`, `solutions.json`, `metadata.json` and, where functions are asked for,
`starter_code.py`; a row of the hub's file has the same as fields, of which `input_output`
and `solutions` are JSON inside of text. With an `fn_name` a test is a call, whose arguments
and result are JSON values; without it a program reads standard input and prints, and a
list of lines stands for the lines.

The canonical solution is the first of the solutions that is Python 3, and "" where there
is none to choose from, as for much of the test split. As in the benchmark's own harness,
the keys of a dict given or wanted that all spell integers are integers. The tests that the
statement shows are the visible ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepcoder_jax.data.formats import examples, rows
from stepcoder_jax.data.formats.rows import (
    DataError,
    Row,
    load_field,
    require,
    require_text,
    say,
)
from stepcoder_jax.data.formats.source import parse
from stepcoder_jax.records import Mode, Problem, TestCase

MARKS = {"input_output", "question"}  # fields that no other format has
READ = {
    "id", "problem_id", "question", "input_output", "solutions", "starter_code",
    "difficulty", "url",
}  # fmt: skip
QUESTION = "question.txt"
_FILES = {  # file of a problem's folder -> field of a row
    "input_output.json": "input_output",
    "solutions.json": "solutions",
    "starter_code.py": "starter_code",
}
_UNKNOWN = "unknown"


def read_problems(path: str, *, strict: bool) -> tuple[list[Problem], list[str]]:
    """Read a file of rows; return the good ones' problems and a complaint per bad one.

    DataError for a file that cannot be read and, when `strict`, for the first bad row.
    """
    return rows.read_problems(path, read_row, "an APPS file", strict=strict)


def is_folder(path: Path) -> bool:
    """Whether this is a folder of APPS problems."""
    return path.is_dir() and any(
        (child / QUESTION).is_file() for child in sorted(path.iterdir())
    )


def read_folder(path: str, *, strict: bool) -> tuple[list[Problem], list[str]]:
    """As `read_problems`, for a folder that holds a folder per problem."""
    return rows.collect(path, _folder_rows(Path(path)), read_row, strict=strict)


def _folder_rows(folder: Path) -> Iterator[Row]:
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    for number, child in enumerate(children):
        try:
            yield Row(child.name, number, _read_files(folder.name, child))
        except DataError as error:
            yield Row(child.name, number, None, str(error))


def _read_files(split: str, folder: Path) -> dict[str, Any]:
    """A problem's folder as the row that the hub has of it."""
    row: dict[str, Any] = {"id": f"{split}/{folder.name}"}
    row["question"] = _read_text(folder / QUESTION, needed=True)
    for name, field in _FILES.items():
        row[field] = _read_text(folder / name, needed=False)
    about = _load("metadata.json", _read_text(folder / "metadata.json", needed=False), {})
    if not isinstance(about, dict):
        raise DataError(f"metadata.json: expected an object, got {say(about)}")
    row["difficulty"] = about.get("difficulty", _UNKNOWN)
    return row


def _read_text(path: Path, *, needed: bool) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if needed:
            raise DataError(f"{path.name}: expected this file, it is missing") from None
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: cannot be read: {error}") from None


def read_row(row: dict[str, Any], number: int) -> Problem:
    """The problem of one object; DataError naming the field that is wrong."""
    starter = row.get("starter_code") or ""
    if not isinstance(starter, str):
        raise DataError(f"field starter_code: expected str, got {say(starter)}")
    given = _load("input_output", require(row, "input_output", str), {})
    if not isinstance(given, dict):
        raise DataError(f"field input_output: expected an object, got {say(given)}")
    name = given.get("fn_name")
    if name is not None and (not isinstance(name, str) or not name.isidentifier()):
        raise DataError(f"field input_output.fn_name: expected a name, got {say(name)}")
    statement = require_text(row, "question")
    mode = Mode.STDIN_MAIN if name is None else Mode.CALL
    tests = tuple(_read_tests(given, is_call=name is not None))
    return Problem(
        id=f"apps/{row.get('id', row.get('problem_id', number))}",
        statement=statement,
        starter_code=starter.rstrip() + "\n" if starter.strip() else "",
        solution=_choose_solution(row.get("solutions") or ""),
        entry_point=name,
        mode=mode,
        tests=tests,
        difficulty=require_text(row, "difficulty"),
        visible_tests=examples.shown_in(statement, tests, mode, name),
    )


def _load(field: str, text: str, default: Any) -> Any:
    """JSON inside of a text; `default` where there is none."""
    return load_field(field, text) if text.strip() else default


def _choose_solution(text: Any) -> str:
    """The first solution that is Python 3; "" where the data set has none."""
    solutions = _load("solutions", text, []) if isinstance(text, str) else text
    if not isinstance(solutions, list) or not all(isinstance(s, str) for s in solutions):
        raise DataError(f"field solutions: expected a list of texts, got {say(solutions)}")
    problem = ""
    for solution in solutions:
        code = solution.replace("\r\n", "\n")
        try:
            parse("solutions", code)
        except DataError as error:
            problem = problem or str(error)
        else:
            return code
    if problem:
        raise DataError(f"none of {len(solutions)} solutions is Python 3: {problem}")
    return ""


def _read_tests(found: dict[str, Any], *, is_call: bool) -> Iterator[TestCase]:
    inputs, outputs = found.get("inputs", []), found.get("outputs", [])
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise DataError("field input_output: expected lists inputs and outputs")
    if not inputs or len(inputs) != len(outputs):
        raise DataError(
            "field input_output: expected lists inputs and outputs of one and the same "
            f"length, at least 1, got {len(inputs)} and {len(outputs)}"
        )
    for number, (given, wanted) in enumerate(zip(inputs, outputs)):
        if is_call:
            yield _read_call(number, given, wanted)
        else:
            yield TestCase(
                _join_lines(f"inputs[{number}]", given),
                _join_lines(f"outputs[{number}]", wanted),
            )


def _read_call(number: int, given: Any, wanted: Any) -> TestCase:
    if not isinstance(given, list):
        raise DataError(
            f"field input_output.inputs[{number}]: expected the list of arguments, got "
            f"{say(given)}"
        )
    if isinstance(wanted, list):
        wanted = [_integer_keys(item) for item in wanted]
    return TestCase(tuple(map(_integer_keys, given)), _integer_keys(wanted))


def _integer_keys(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        return {int(key): item for key, item in value.items()}
    except ValueError:
        return value


def _join_lines(place: str, value: Any) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise DataError(f"field input_output.{place}: expected text, got {say(value)}")
    return value
