"""One run, whatever computes it: trials of host_trials.py.

A layout is so many processes of so many devices each. `same`: 5 iterations on a layout,
beside those of one process of one device: rollouts equal (tokens, programs, verdicts; and
their numbers, written with five digits, to 1e-4), metrics apart by 1e-5 at most; and how
many programs each host judged, and the bytes that were written. `moved`: a layout is killed
in its fourth iteration, and another goes on from what is saved. `judging`: seconds that are
waited for the judge, each process on a processor of its own, where the judge has far more
to do than the model.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.host_runs import AT, Hosts

STEPS = 5
APART = 1e-5  # of metrics, relative or absolute
DIGITS = 1e-4  # of numbers of tokens, which are written with five digits
CLOCKED = ("seconds/", "judge/seconds", "hosts/")
FLAGS = [
    *("--run.total_steps", str(STEPS), "--run.save_every", "2", "--run.keep", "9"),
    *("--sampling.problems_per_step", "4", "--evaluation.every", "2"),
    *("--evaluation.validation_problems", "8"),
]
# many programs of a model that has next to nothing to compute
BOUND = [
    *("--run.total_steps", "4", "--run.rollouts_every", "0"),
    *("--sampling.problems_per_step", "64", "--sampling.rollouts_per_problem", "8"),
    *("--sampling.chunk", "32", "--ppo.num_epochs", "1"),
]


class Layout(NamedTuple):
    """What computes a run."""

    processes: int
    devices: int  # of each

    def __str__(self) -> str:
        return f"{self.processes}x{self.devices}"

    @classmethod
    def of(cls, text: str) -> Layout:
        return cls(*map(int, text.split("x")))


BASE = Layout(1, 1)
LAYOUTS = (BASE, Layout(2, 1), Layout(2, 2), Layout(4, 1), Layout(1, 8))
# each with another number of processes or of devices, both ways
MOVES = list(itertools.permutations(("1x1", "2x1", "4x1", "1x8"), 2))


class Made(NamedTuple):
    """What is left of a run."""

    rollouts: dict[str, str]  # the text of each file
    metrics: list[dict]  # without what a clock put there
    programs: list[int]  # judged by each host
    bytes: int  # written, but for checkpoints and each host's own log
    parameters: str  # digest of those of the last checkpoint, "" where they were not read


def execute(hosts: Hosts, cache: Path, *flags: str) -> None:
    """A run from its start to its end; RuntimeError where it does not end well."""
    hosts.flags += [*flags, "--run.compilation_cache", str(cache.absolute())]
    codes = hosts.run()
    if set(codes) != {0}:
        raise RuntimeError(f"codes {codes}: {hosts.errors()}")


def look_at(folder: Path, processes: int) -> Made:
    """What a run has left in its folder."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    total = int(sum(row["judge/programs"] for row in rows))
    others = [_judged_by(folder / "hosts" / f"{n}.log") for n in range(1, processes)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = [x for x in files if not {"checkpoints", "hosts"} & set(x.parts)]
    return Made(
        {path.name: path.read_text() for path in sorted((folder / "rollouts").iterdir())},
        [without_clocks(row) for row in rows],
        [total - sum(others), *others],
        sum(path.stat().st_size for path in kept),
        digest_of(folder, rows[-1]["step"] + 1),
    )


def _judged_by(log: Path) -> int:
    """The programs that a host's own log counts."""
    lines = log.read_text().splitlines() if log.exists() else []
    words = [line.partition("judge/programs ")[2] for line in lines]
    return sum(int(word.split(",")[0]) for word in words if word)


def without_clocks(row: dict) -> dict:
    return {name: value for name, value in row.items() if not name.startswith(CLOCKED)}


def digest_of(folder: Path, step: int) -> str:
    """Digest of the parameters of a checkpoint, as this process of one device reads it."""
    import jax
    import numpy as np

    from stepcoder_jax.runs import restore

    found = restore.restore(str(folder), step, before=False)
    total = hashlib.sha256()
    for leaf in jax.tree.leaves((found.actor, found.critic)):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()


@functools.cache
def base_of(cache: Path) -> Made:
    """The undisturbed run of one process of one device."""
    return run_on(BASE, cache)


def run_on(layout: Layout, cache: Path) -> Made:
    """The undisturbed run of a layout."""
    with tempfile.TemporaryDirectory() as name:
        hosts = Hosts(Path(name), *layout)
        execute(hosts, cache, *FLAGS)
        return look_at(hosts.folder / "run", layout.processes)


def compare(made: Made, base: Made) -> dict:
    """How far a run is from another."""
    pairs = zip(made.metrics, base.metrics)
    apart = [_apart(row.get(x), other[x]) for row, other in pairs for x in other]
    number_apart, others = compare_rollouts(made.rollouts, base.rollouts)
    return {
        "rollouts_equal": not others and number_apart <= DIGITS,
        "rollout_bytes_equal": made.rollouts == base.rollouts,
        "rollout_numbers_apart": number_apart,
        "rollout_fields_apart": others,
        "rows": [len(made.metrics), len(base.metrics)],
        "metrics_apart": max(apart),
    }


def compare_rollouts(
    texts: dict[str, str], others: dict[str, str]
) -> tuple[float, list[str]]:
    """How far numbers of tokens are apart at most, and all else that differs."""
    if texts.keys() != others.keys():
        return 0.0, ["files"]
    apart, fields = 0.0, set()
    for name, text in texts.items():
        rows, theirs = text.splitlines(), others[name].splitlines()
        if len(rows) != len(theirs):
            fields.add("rows")
        for row, other in zip(map(json.loads, rows), map(json.loads, theirs)):
            for field in row.keys() | other.keys():
                value, their = row.get(field), other.get(field)
                if value == their:
                    continue
                if _are_numbers(value) and _are_numbers(their) and len(value) == len(their):
                    apart = max(apart, *map(_apart, value, their))
                else:
                    fields.add(field)
    return apart, sorted(fields)


def _are_numbers(value: object) -> bool:
    """Floats of a row's tokens; numbers of tokens in the vocabulary are none."""
    return isinstance(value, list) and any(isinstance(x, float) for x in value)


def _apart(value: float | str | None, other: float | str | None) -> float:
    if value == other:
        return 0.0
    if not isinstance(value, int | float) or not isinstance(other, int | float):
        return math.inf
    return abs(value - other) / max(1.0, abs(other))


def same(number: int, cache: Path) -> dict:
    """A layout beside one process of one device."""
    layout, base = LAYOUTS[number], base_of(cache)
    made = base if layout == BASE else run_on(layout, cache)
    row = compare(made, base) | {"layout": str(layout), "programs": made.programs}
    return row | {"bytes": made.bytes, "bytes_of_one": base.bytes}


def moved(number: int, cache: Path) -> dict:
    """A kill under one layout, and the rest of the run under another."""
    before, after = map(Layout.of, MOVES[number])
    with tempfile.TemporaryDirectory() as name:
        hosts = Hosts(Path(name), *before)
        hosts.flags += [*FLAGS, "--run.compilation_cache", str(cache.absolute())]
        hosts.environ_of[before.processes - 1] = {AT: "sample:3:0.01:9"}
        codes = hosts.run()
        execute(Hosts(Path(name), *after), cache, *FLAGS, "--run.resume", "auto")
        made = look_at(Path(name) / "run", 1)
    row = compare(made, base_of(cache)) | {"from": str(before), "to": str(after)}
    return row | {"codes": codes}


def judging(number: int, cache: Path) -> dict:
    """Seconds waited for the judge by one process and by two, one processor each."""
    seconds = {}
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as name:
            hosts = Hosts(Path(name), processes)
            hosts.is_pinned = True
            execute(hosts, cache, *BOUND)
            metrics = (hosts.folder / "run" / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in metrics[1:]]  # the first one compiles
        seconds[processes] = statistics.median(row["seconds/judge"] for row in rows)
    row = {"one": round(seconds[1], 3), "two": round(seconds[2], 3), "round": number}
    return row | {"share": round(seconds[2] / seconds[1], 3), "load": os.getloadavg()[0]}


class Kind(NamedTuple):
    """A kind of trial."""

    run: Callable[[int, Path], dict]
    trials: int


KINDS = {
    "same": Kind(same, len(LAYOUTS)),
    "moved": Kind(moved, len(MOVES)),
    "judging": Kind(judging, 3),
}


def complaints(row: dict) -> Iterator[str]:
    """What is wrong with a trial."""
    if row["kind"] == "judging":
        if row["share"] > 0.6:
            yield f"two wait {row['share']} of the seconds of one"
        return
    if not row["rollouts_equal"] or row["rows"] != [STEPS, STEPS]:
        yield f"other rollouts, or rows: {row['rows']}"
    if not row["metrics_apart"] <= APART:
        yield f"metrics apart by {row['metrics_apart']:.1g}"
    programs = row.get("programs", [1])
    share = sum(programs) / len(programs)
    if any(abs(each - share) > share / 10 for each in programs):
        yield f"programs of each host: {programs}"
    if row.get("bytes", 0) > 1.01 * row.get("bytes_of_one", 0):
        yield f"{row['bytes']} bytes, of one host {row['bytes_of_one']}"
    if row["kind"] == "moved" and 0 in row["codes"]:
        yield f"it was not killed: {row['codes']}"


def describe(rows: list[dict]) -> list[str]:
    """Lines on the trials."""
    lines = []
    for row in rows:
        if row["kind"] == "judging":
            lines.append(f"judging: {row['one']} s, {row['two']} s: {row['share']}")
            continue
        what = row.get("layout") or f"{row['from']} to {row['to']}"
        told = "equal" if row["rollouts_equal"] else "NOT equal"
        line = f"{row['kind']} {what}: rollouts {told}, metrics {row['metrics_apart']:.1g}"
        if "programs" in row:
            line += f", programs {row['programs']}, bytes {row['bytes']}"
        lines.append(line)
    return lines
