"""A run's folder as plain records, with a note for each thing that cannot be shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stepcoder_jax.config import flatten
from stepcoder_jax.data.formats.rows import (
    DataError,
    Row,
    require,
    require_object,
    say,
    stream_lines,
)
from stepcoder_jax.records import InputError, Verdict
from stepcoder_jax.results.drawing.curves import Series, find_series
from stepcoder_jax.results.logger import METRICS, ROLLOUTS, START, read_metrics

CONFIGS = ("sft.json", "config.json")  # a finished SFT run has a model's config.json too
WANTED = "the rollouts of an iteration, one JSON object per line"
_VERDICTS = [str(verdict) for verdict in Verdict]
# What decides which problems a run has met, and so whether two runs can be compared.
_BENCHMARK = ("data.path", "data.validation", "data.difficulties", "data.pool_size")
_MOST = 1e15  # of a number; larger ones are of no run
_TOKENS = ("spans", "executed", "logprobs", "advantages", "values")


class RunRecord(NamedTuple):
    """What a run left, as far as it can be read."""

    name: str
    path: Path
    tree: dict[str, Any]  # the config, nested
    metrics: list[dict[str, Any]]
    start: dict[str, Any]  # metrics before learning
    rollouts: list[tuple[int, Path]]  # step and file, ascending

    @property
    def config(self) -> dict[str, Any]:
        """The config by dotted names."""
        return flatten(self.tree)

    def series(self, patterns: Sequence[str]) -> Series:
        return find_series(self.metrics, patterns, self.start)


def read_run(path: Path, name: str, notes: list[str]) -> RunRecord:
    """The run in a folder; what is missing or broken is told in `notes`, a line each.

    InputError for a path that is no folder.
    """
    if not path.is_dir():
        raise InputError(
            f"RUN: expected a folder of `stepcoder train` or `sft`, but {path} is none"
        )
    config = next(filter(None, (_load(path / file, notes) for file in CONFIGS)), {})
    tree = config.get("config")
    if not isinstance(tree, dict):
        notes.append(f"{path}: no config of a run ({' or '.join(CONFIGS)})")
        tree = {}
    found = _steps(path / ROLLOUTS)
    run = RunRecord(
        name=name,
        path=path,
        tree=tree,
        metrics=_read_metrics(path / METRICS, notes),
        start=_numbers(_load(path / START, notes)),
        rollouts=found,
    )
    if not found:
        notes.append(f"{path}: no rollouts, so none of its programs can be shown")
    return run


def _load(path: Path, notes: list[str]) -> dict[str, Any]:
    """A JSON object; an empty one where there is none."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path}: cannot be read: {error}")
        return {}
    return tree if isinstance(tree, dict) else {}


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in row.items() if x is None or _is_number(x)}


def _read_metrics(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The rows that have a step, each with its numbers alone."""
    if not path.is_file():
        notes.append(f"{path.parent}: no {METRICS}, so it has no curves")
        return []
    try:
        rows = read_metrics(path)
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path}: cannot be read: {error}")
        return []
    kept = [
        _numbers(row)
        for row in rows
        if isinstance(row, dict)
        and type(row.get("step")) is int
        and 0 <= row["step"] < _MOST
    ]
    if len(kept) < len(rows):
        notes.append(f"{path}: {len(rows) - len(kept)} rows have no step; left out")
    return kept


def _steps(folder: Path) -> list[tuple[int, Path]]:
    """The files STEP.jsonl; half-written ones have another name."""
    files = folder.glob("*.jsonl") if folder.is_dir() else ()
    return sorted((int(file.stem), file) for file in files if file.stem.isdecimal())


def choose_files(runs: Sequence[RunRecord], most: int, notes: list[str]) -> list[RunRecord]:
    """The runs with so few of their files, evenly over steps, that `most` rollouts remain.

    Each run has an equal share of them, and one file at least, if that is above 0.
    """
    thinned = [
        f"{run.name} {len(run.rollouts)} of {len(run.metrics)}"
        for run in runs
        if 0 < len(run.rollouts) < len(run.metrics)
    ]
    if thinned:
        notes.append(f"iterations with rollouts (run.rollouts_every): {', '.join(thinned)}")
    share = most // max(1, sum(bool(run.rollouts) for run in runs))
    chosen, files, all_files = [], 0, 0
    for run in runs:
        total = sum(_count_lines(file) for _, file in run.rollouts)
        count = len(run.rollouts)
        kept = max(min(1, share), int(count * share / total)) if total > share else count
        files, all_files = files + min(kept, count), all_files + count
        places = [round(i * (count - 1) / max(1, kept - 1)) for i in range(kept)]
        some = [run.rollouts[place] for place in places] if count else []
        chosen.append(run._replace(rollouts=some))
    if files < all_files:
        notes.append(
            f"rollouts of {files} iterations are shown, evenly chosen of {all_files} "
            f"(--rollouts {most})"
        )
    return chosen


def _count_lines(file: Path) -> int:
    with file.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


def iter_rollouts(run: RunRecord, notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (step, row) of a run's files; bad rows are counted and the first is named."""
    bad, named = 0, ""
    for step, file in run.rollouts:
        try:
            for row in stream_lines(str(file), WANTED):
                try:
                    yield step, check_row(row)
                except DataError as error:
                    bad, named = bad + 1, named or f"{file}: {row.place}: {error}"
        except DataError as error:
            notes.append(str(error))
    if bad:
        more = f" (and {bad - 1} more)" if bad > 1 else ""
        notes.append(f"{named}; left out{more}")


def check_row(row: Row) -> dict[str, Any]:
    """The rollout that a row holds; DataError where a field that every one has is wrong.

    Fields that older runs lack may be missing.
    """
    fields = require_object(row)
    for name in ("problem", "head", "completion"):
        require(fields, name, str)
    if require(fields, "verdict", str) not in _VERDICTS:
        raise DataError(f"field verdict: expected one of {', '.join(_VERDICTS)}")
    for name, kind in (("stage", int), ("tests", list), ("spans", list)):
        require(fields, name, kind)
    if not _is_number(fields.get("reward")):
        raise DataError(f"field reward: expected a number, got {say(fields.get('reward'))}")
    count = len(fields["spans"])
    for name in _TOKENS:
        values = fields.get(name, [])
        wanted = _is_span if name == "spans" else _is_number
        if not isinstance(values, list) or not all(map(wanted, values)):
            raise DataError(f"field {name}: expected a list with an item for each token")
        if values and len(values) != count:
            raise DataError(f"field {name}: has {len(values)} items for {count} tokens")
    return fields


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < _MOST  # nan is none


def _is_span(value: Any) -> bool:
    if value is None:
        return True
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and all(type(x) is int for x in value) and 0 <= value[0] <= value[1]


def benchmark_of(run: RunRecord) -> dict[str, Any]:
    """Which problems a run learns from, by its config."""
    return {name: run.config[name] for name in _BENCHMARK if name in run.config}


def compare_benchmarks(runs: Sequence[RunRecord], notes: list[str]) -> None:
    """A note where runs have met different problems."""
    known = [(run, benchmark_of(run)) for run in runs if benchmark_of(run)]
    for run, other in known[1:]:
        first, ours = known[0]
        for name in _BENCHMARK:
            if ours.get(name) != other.get(name):
                notes.append(
                    f"different benchmarks: {name} is {ours.get(name)} in {first.name} and "
                    f"{other.get(name)} in {run.name}; their curves are not comparable"
                )
                break
