"""Problem files of every format that can be read here."""

from __future__ import annotations

import collections
import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType

from stepcoder_jax.data.evalplus import evalplus
from stepcoder_jax.data.formats import (
    apps,
    apps_plus,
    built_set,
    humaneval,
    livecodebench,
    mbpp,
    own,
)
from stepcoder_jax.data.formats.rows import DataError, Row, collect, iter_rows, say
from stepcoder_jax.execution import PoolSettings
from stepcoder_jax.execution.limits import digest_file
from stepcoder_jax.records import Problem

WANTED = (
    "an APPS+ v1, APPS, HumanEval(+), MBPP(+) or LiveCodeBench file or problems as JSON "
    "lines of our own"
)
FOLDERS = "a folder of APPS problems (.../train/0000) or FOLDER:SPLIT of a built data set"
# HumanEval is last: MBPP+ has a field `test` and our own format has `entry_point` as well.
# EvalPlus's releases come before both: their rows have a `test` or an `entry_point` too.
_READERS: tuple[ModuleType, ...] = (
    apps_plus,
    apps,
    livecodebench,
    evalplus,
    mbpp,
    own,
    humaneval,
)


def read_any(
    path: str, *, strict: bool, settings: PoolSettings | None = None
) -> tuple[list[Problem], list[str]]:
    """Read a problem file, whose rows' fields tell its format, or a folder of problems.

    A folder is one of APPS; "FOLDER:train" is a split of one that `stepcoder data build`
    wrote. Returns the good rows' problems and one complaint per bad row. DataError for a
    file that cannot be read or is none of these and, when `strict`, for the first bad row.
    EvalPlus's releases have no expected values: their canonical solutions are run for
    these, in a pool of `settings`.
    """
    built = split_built(path)
    if built is not None:
        return list(built_set.open_split(*built)), []
    if not Path(path).is_dir():
        rest = iter_rows(path, WANTED)
        reader, begun = _recognise(path, rest)
        unread: collections.Counter[str] = collections.Counter()
        found = _count_unread(chain(begun, rest), reader.READ, unread)
        if reader is evalplus:
            settings = settings or PoolSettings()
            read = evalplus.read_file(path, found, strict=strict, settings=settings)
        else:
            read = collect(path, found, reader.read_row, strict=strict)
        if unread:
            print(f"{path}: {_tell_unread(reader, unread)}", file=sys.stderr)
        return read
    if apps.is_folder(Path(path)):
        return apps.read_folder(path, strict=strict)
    raise DataError(f"{path}: is a folder; expected {WANTED}, {FOLDERS}")


def _count_unread(
    rows: Iterable[Row], known: Collection[str], unread: collections.Counter[str]
) -> Iterator[Row]:
    """The rows; `unread` counts those that hold something in a field that is not known."""
    for row in rows:
        if isinstance(row.value, dict):
            unread.update(
                name for name, value in row.value.items() if name not in known and value
            )
        yield row


def _tell_unread(reader: ModuleType, unread: collections.Counter[str]) -> str:
    """One line on fields that judge nothing: tests among them must not go unnoticed."""
    fields = ", ".join(f"{name} ({count} rows)" for name, count in sorted(unread.items()))
    if reader is own:
        return f"kept as metadata, without a say in the verdict: {fields}"
    if reader is mbpp and mbpp.CHALLENGE in unread:
        fields += "; the benchmark itself does not run the challenge tests"
    return f"fields that are not read, and judge nothing: {fields}"


def split_built(path: str) -> tuple[str, str] | None:
    """FOLDER and SPLIT, where `path` names a split of a built data set."""
    folder, colon, split = path.rpartition(":")
    is_built = (
        bool(colon)
        and not Path(path).exists()
        and (Path(folder) / "dataset_info.json").is_file()
    )
    return (folder, split) if is_built else None


def digest(path: str) -> str:
    """SHA-256 of a problem file; of a folder, over the names and digests of its files."""
    built = split_built(path)
    folder = Path(built[0] if built else path)
    if not folder.is_dir():
        return digest_file(folder)
    total = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        line = f"{file.relative_to(folder)} {digest_file(file)}\n"
        total.update(line.encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _recognise(path: str, rows: Iterator[Row]) -> tuple[ModuleType, list[Row]]:
    """The reader of a file's format, and the rows that were read to know it."""
    begun: list[Row] = []
    for row in rows:
        begun.append(row)
        for reader in _READERS:
            if isinstance(row.value, dict) and reader.MARKS & row.value.keys():
                return reader, begun
    marks = "; ".join(
        f"{reader.__name__.rpartition('.')[2]}: {', '.join(sorted(reader.MARKS))}"
        for reader in _READERS
    )
    raise DataError(
        f"{path}: expected {WANTED}, whose rows are known by their fields ({marks}); got "
        f"as {begun[0].place} {begun[0].error or say(begun[0].value)}"
    )
