"""Metrics and rollouts out: JSON lines; metrics also to the tracker of `run.track`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from stepcoder_jax.config import ConfigError
from stepcoder_jax.tracking.trackers import Track, open_tracker

METRICS = "metrics.jsonl"
START = "start.json"  # the metrics of validation before learning
WARNINGS = "warnings.jsonl"
ROLLOUTS = "rollouts"
DROPPED = "dropped"  # groups that dynamic sampling judged and did not learn from
HOSTS = "hosts"


def to_json(value: Any) -> Any:
    """Return a metric as JSON knows it: array scalars as numbers, nan and inf as null."""
    if isinstance(value, str) or value is None:
        return value
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, float) and not math.isfinite(number):
        return None
    return number


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file; a last line cut short by a kill is left out."""
    # Not splitlines: JSON may hold U+2028 and its like as they are.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ConfigError(
                f"{path}, line {number}: expected a JSON object, got {line[:40]!r}; "
                "mend or remove the line"
            ) from error
    return rows


def encode_row(row: Mapping[str, Any]) -> str:
    """Return a row as the one line of JSON that files have."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, all or nothing: a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


class Logger:
    """Writes `metrics.jsonl` and `rollouts/STEP.jsonl` into a folder, and tells a tracker.

    `start_step` is the first iteration that will be logged: rows of an interrupted run at
    or after it are removed, since they will be written again. `about` is what a tracker is
    told of the run. Raises ConfigError when the folder cannot be written, or the tracker
    does not start.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        track: Track,
        start_step: int,
        about: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.folder = Path(folder)
        path = self.folder / METRICS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            rows = read_metrics(path) if path.exists() else []
            self.before = [row for row in rows if row["step"] < start_step]
            write_lines(path, map(encode_row, self.before))
            warned = self.folder / WARNINGS
            if warned.exists():
                kept = [row for row in read_metrics(warned) if row["step"] < start_step]
                write_lines(warned, map(encode_row, kept))
            self.file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"run.folder: cannot write to {self.folder} ({error.strerror}); "
                "choose another with --run.folder"
            ) from error
        self.tracker = open_tracker(track, self.folder, start_step=start_step, about=about)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one iteration's metrics and flush, so that a kill loses none."""
        row = {name: to_json(value) for name, value in metrics.items()}
        self.file.write(encode_row({"step": step, **row}) + "\n")
        self.file.flush()
        if self.tracker is not None:
            numbers = {name: x for name, x in row.items() if isinstance(x, (int, float))}
            self.tracker.write(step, numbers)

    def write_warning(self, step: int, text: str) -> None:
        """Append what was warned of after an iteration to `warnings.jsonl`."""
        with (self.folder / WARNINGS).open("a", encoding="utf-8") as file:
            file.write(encode_row({"step": step, "warning": text}) + "\n")

    def write_rollouts(
        self, step: int, lines: Iterable[str], folder: str = ROLLOUTS
    ) -> None:
        """Write one iteration's rollouts to `rollouts/STEP.jsonl`, or to another folder."""
        (self.folder / folder).mkdir(exist_ok=True)
        write_lines(self.folder / folder / f"{step}.jsonl", lines)

    def note(self, step: int, own: Mapping[str, float]) -> None:
        """What this host did by itself is not kept: see `HostLog`."""

    def close(self) -> None:
        self.file.close()
        if self.tracker is not None:
            self.tracker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class HostLog:
    """What a host other than the first writes: `hosts/N.log`, a line for each iteration.

    Everything else in the folder of a run is written by the first. Raises ConfigError when
    the folder cannot be written.
    """

    def __init__(self, folder: Path, host: int):
        path, self.before = folder / HOSTS / f"{host}.log", list[dict[str, Any]]()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"run.folder: cannot write {path} ({error.strerror}); choose another with "
                "--run.folder, which all hosts can write"
            ) from error

    def note(self, step: int, own: Mapping[str, float]) -> None:
        """Append what this host counted in an iteration."""
        told = ", ".join(f"{name} {number:g}" for name, number in own.items() if number)
        self.file.write(f"iteration {step}: {told}\n")
        self.file.flush()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """The metrics of a run are written by its first host."""

    def write_warning(self, step: int, text: str) -> None:
        """And what it warns of."""

    def write_rollouts(
        self, step: int, lines: Iterable[str], folder: str = ROLLOUTS
    ) -> None:
        """So are its rollouts."""

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_log(
    folder: Path, host: int, *, track: Track, start_step: int, about: Mapping[str, Any]
) -> Logger | HostLog:
    """What this host logs to."""
    if host:
        return HostLog(folder, host)
    return Logger(folder, track=track, start_step=start_step, about=about)
