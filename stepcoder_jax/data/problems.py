"""Problem files of any format that the house can read."""

from __future__ import annotations

from types import ModuleType

from stepcoder_jax.data import apps_plus, humaneval, mbpp
from stepcoder_jax.data.rows import DataError, Row, read_rows, say
from stepcoder_jax.records import Problem

WANTED = "an APPS+ v1, HumanEval or MBPP file"
_READERS: tuple[ModuleType, ...] = (apps_plus, humaneval, mbpp)


def read_any(path: str, *, strict: bool) -> tuple[list[Problem], list[str]]:
    """Read a file of APPS+ v1, HumanEval or MBPP, whichever its rows' fields say it is.

    Returns the good rows' problems and one complaint per bad row. DataError for a file
    that cannot be read or is none of these and, when `strict`, for the first bad row.
    """
    reader = _recognise(path, read_rows(path, WANTED))
    problems, complaints = reader.read_problems(path, strict=strict)
    return problems, complaints


def _recognise(path: str, rows: list[Row]) -> ModuleType:
    for row in rows:
        for reader in _READERS:
            if isinstance(row.value, dict) and reader.MARKS & row.value.keys():
                return reader
    marks = "; ".join(
        f"{reader.__name__.rpartition('.')[2]}: {', '.join(sorted(reader.MARKS))}"
        for reader in _READERS
    )
    raise DataError(
        f"{path}: expected {WANTED}, whose rows are known by their fields ({marks}); got "
        f"as {rows[0].place} {rows[0].error or say(rows[0].value)}"
    )
