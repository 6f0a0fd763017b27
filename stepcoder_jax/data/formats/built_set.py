"""The ArrayRecord data set read again, row by row or as a sequence, and what a row is.

A row has a problem's fields as text. Tests are texts too, JSON as in a file of our own
(own.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from stepcoder_jax.data.formats import own
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.execution.limits import digest_file
from stepcoder_jax.records import Mode, Problem

MEND = "build it again with `stepcoder data build`"
TEXTS = ("id", "statement", "starter_code", "solution", "difficulty")


def read_metadata(folder: str) -> dict[str, Any]:
    """What the builder noted of the sources and the shards; DataError if not there."""
    path = Path(folder) / "metadata.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        shards = {str(name): str(digest) for name, digest in found["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: expected the metadata of a data set; {MEND}") from None
    return found | {"sha256": shards}


def verify(folder: str) -> None:
    """Compare every shard with its digest; DataError names one that is not as written."""
    for name, digest in read_metadata(folder)["sha256"].items():
        path = Path(folder) / name
        if not path.is_file() or digest_file(path) != digest:
            raise DataError(f"{path}: missing or not as it was built; {MEND}")


class BuiltSplit(Sequence[Problem]):
    """The problems of a split, each read from disk when asked for.

    As a sequence it is a source for grain (pipeline.py).
    """

    def __init__(self, source: Any) -> None:
        self._source = source  # tfds's random access to ArrayRecord files

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return from_example(self._source[index % len(self)])

    def __iter__(self) -> Iterator[Problem]:
        return (self[i] for i in range(len(self)))


def open_split(folder: str, split: str) -> BuiltSplit:
    """A split of what `build` wrote, verified; DataError if there is none."""
    import tensorflow_datasets as tfds

    verify(folder)
    builder = tfds.builder_from_directory(os.fspath(folder))
    if split not in builder.info.splits:
        there = ", ".join(sorted(builder.info.splits))
        raise DataError(f"{folder}: has no split {split!r}, but {there}")
    return BuiltSplit(builder.as_data_source(split))


def to_example(problem: Problem) -> dict[str, Any]:
    """A row of the data set; DataError for text that UTF-8 cannot say."""
    row = own.to_row(problem)
    example = {name: _text(problem, name, row[name]) for name in TEXTS}
    return example | {
        "entry_point": problem.entry_point or "",
        "mode": str(problem.mode),
        "cpu_seconds": problem.cpu_seconds or 0.0,
        "metadata": json.dumps(dict(problem.metadata)),
        "visible_tests": json.dumps(row.get("visible_tests", [])),
        "tests": [
            {name: json.dumps(value) for name, value in test.items()}
            for test in row["tests"]
        ],
    }


def _text(problem: Problem, field: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"problem {problem.id!r}: field {field}: half a character pair at "
            f"{error.start}, which UTF-8 cannot say; mend the row"
        ) from None


def from_example(example: Mapping[str, Any]) -> Problem:
    """The problem of a row; to_example's inverse."""
    texts = {name: example[name].decode() for name in TEXTS}
    tests = example["tests"]
    # older sets have neither
    about = json.loads(example.get("metadata", b"{}"))
    visible = json.loads(example.get("visible_tests", b"[]"))
    row = (
        about
        | texts
        | {
            "entry_point": example["entry_point"].decode() or None,
            "mode": Mode(example["mode"].decode()),
            "cpu_seconds": float(example["cpu_seconds"]) or None,
            "visible_tests": visible,
            "tests": [
                {"inputs": json.loads(given), "expected": json.loads(wanted)}
                for given, wanted in zip(tests["inputs"], tests["expected"])
            ],
        }
    )
    return own.read_row(row)
