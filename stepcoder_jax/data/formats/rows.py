"""Rows of JSON files, a list or one object per line, plain or gzipped; bad ones by name."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from stepcoder_jax.records import InputError, Problem

_GZIP_MAGIC = b"\x1f\x8b"


class DataError(InputError):
    """A file that cannot be used; the message names file, row and field."""


class Row(NamedTuple):
    """One row: its place in words, its number from 0, and its value or what is wrong."""

    place: str  # "row 3" of a list, from 0; "line 4" of a file of lines, from 1
    number: int
    value: Any
    error: str = ""


ReadRow = Callable[[dict[str, Any], int], Problem]


def read_rows(path: str, wanted: str) -> list[Row]:
    """All that `iter_rows` gives."""
    return list(iter_rows(path, wanted))


def iter_rows(path: str, wanted: str) -> Iterator[Row]:
    """Read a JSON list, or one JSON value per line where the file begins with an object.

    Lines are read one after the other, without holding the file. `wanted` says in errors
    what file was expected. DataError for a file that is missing, damaged or empty, and for
    a list that is truncated.
    """
    with _open(path, wanted) as file:
        if _begins_with_object(file.peek(64)):
            yield from _read_lines(file)
            return
        data = file.read()
    if _begins_with_object(data):  # behind a great deal of white space
        yield from _read_lines(data.split(b"\n"))
        return
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not valid JSON, perhaps truncated ({os.path.getsize(path)} bytes): "
            f"{error}"
        ) from None
    if not isinstance(values, list) or not values:
        raise DataError(f"{path}: expected a non-empty JSON list, got {say(values)}")
    for number, value in enumerate(values):
        yield Row(f"row {number}", number, value)


def _begins_with_object(data: bytes) -> bool:
    return data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"


def stream_lines(path: str, wanted: str) -> Iterator[Row]:
    """Yield one row per line that is not blank, without holding the file."""
    with _open(path, wanted) as file:
        yield from _read_lines(file)


@contextlib.contextmanager
def _open(path: str, wanted: str) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(path, "rb"))
            if file.peek(2)[:2] != _GZIP_MAGIC:
                yield file
            else:
                yield stack.enter_context(gzip.GzipFile(fileobj=file))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: a damaged gzip file: {error}; copy it again") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; expected {wanted}"
        ) from None


def _read_lines(lines: Iterable[bytes]) -> Iterator[Row]:
    number = 0
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where, value, error = f"line {place}", None, ""
        try:
            value = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as problem:
            error = f"not UTF-8 text at byte {problem.start} of the line"
        except (ValueError, RecursionError) as problem:
            error = f"not valid JSON, perhaps truncated: {problem}"
        yield Row(where, number, value, error)
        number += 1


def read_problems(
    path: str, read_row: ReadRow, wanted: str, *, strict: bool
) -> tuple[list[Problem], list[str]]:
    """Read a file with `read_row`; the good rows' problems, a complaint per bad row.

    DataError as of `read_rows` and, when `strict`, for the first bad row.
    """
    return collect(path, iter_rows(path, wanted), read_row, strict=strict)


def collect(
    path: str, found: Iterable[Row], read_row: ReadRow, *, strict: bool
) -> tuple[list[Problem], list[str]]:
    """As `read_problems`, of rows that came from `path`.

    An id that a row before it has makes a row bad.
    """
    problems: dict[str, Problem] = {}
    complaints: list[str] = []
    for row in found:
        try:
            problem = read_row(require_object(row), row.number)
            if problem.id in problems:
                raise DataError(
                    f"the id {problem.id!r} is that of a row before it; make ids unique"
                )
            problems[problem.id] = problem
        except DataError as error:
            complaint = f"{path}: {row.place}: {error}"
            if strict:
                raise DataError(complaint) from None
            complaints.append(complaint)
    return list(problems.values()), complaints


def require_object(row: Row) -> dict[str, Any]:
    """The row's value; DataError when it is no JSON object."""
    if row.error:
        raise DataError(row.error)
    if not isinstance(row.value, dict):
        raise DataError(f"expected an object, got {say(row.value)}")
    return row.value


def require(row: dict[str, Any], field: str, kind: type) -> Any:
    """The field's value; DataError when it is missing or of another type."""
    if field not in row:
        raise DataError(f"field {field}: expected {kind.__name__}, but it is missing")
    if not isinstance(row[field], kind):
        raise DataError(f"field {field}: expected {kind.__name__}, got {say(row[field])}")
    return row[field]


def load_field(field: str, text: str) -> Any:
    """The JSON that a field holds as text; DataError where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"field {field}: not valid JSON, perhaps truncated: {error}"
        ) from None


def refuse_plus(row: dict[str, Any]) -> None:
    """DataError for a row of EvalPlus's releases among rows of the benchmark itself."""
    if "plus_input" in row:
        raise DataError(
            "field plus_input: not of the format that this file begins with, whose tests "
            "would be all that judges it; put the rows that have it in a file of their own"
        )


def require_text(row: dict[str, Any], field: str) -> str:
    """The field's text; DataError when it is missing, no text, or blank."""
    text: str = require(row, field, str)
    if not text.strip():
        raise DataError(f"field {field}: expected text, got only blanks")
    return text


def say(value: object) -> str:
    """A short description of what came instead."""
    text = json.dumps(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
