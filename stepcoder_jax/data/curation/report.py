"""The report of a curation: one JSON file that says all, and a page to read."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcoder_jax.data.curation.screening import (
    BenchmarkOverlap,
    Finding,
    Reason,
    Thresholds,
    dropped_ids,
)
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.problems import digest

VERSION = 1
_MOST_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Source:
    """A problem file that was checked."""

    path: str
    sha256: str
    problems: int  # good rows
    bad_rows: tuple[str, ...]


def to_json(
    sources: Mapping[str, Source],
    findings: Sequence[Finding],
    benchmarks: Sequence[BenchmarkOverlap],
    drop: Collection[Reason],
    limits: Thresholds,
) -> dict[str, Any]:
    """The report; equal inputs give equal reports, for no clock is in it."""
    gone = dropped_ids(findings, drop)
    splits = {}
    for split, source in sources.items():
        mine = [item for item in findings if item.split == split]
        counts = collections.Counter(item.reason for item in mine)
        dropped = sum(name == split for name, _ in gone)
        splits[split] = {
            **dataclasses.asdict(source),
            "bad_rows": list(source.bad_rows),
            "dropped": dropped,
            "kept": source.problems - dropped,
            "reasons": {reason: counts[reason] for reason in Reason if counts[reason]},
        }
    return {
        "version": VERSION,
        "thresholds": limits._asdict(),
        "drop": [reason for reason in Reason if reason in drop],
        "splits": splits,
        "benchmarks": [dataclasses.asdict(benchmark) for benchmark in benchmarks],
        "findings": [
            {**dataclasses.asdict(item), "dropped": item.reason in drop}
            for item in sorted(findings, key=lambda item: (item.split, item.id))
        ],
    }


def to_markdown(report: Mapping[str, Any]) -> str:
    """The same as a page: counts by reason, then ids, at most 20 of a kind."""
    splits = report["splits"]
    lines = ["# Curation report", ""]
    for split, source in splits.items():
        lines.append(
            f"- {split}: `{source['path']}`, {source['problems']} problems, "
            f"{len(source['bad_rows'])} bad rows, {source['dropped']} dropped, "
            f"**{source['kept']} kept**"
        )
    found = [
        reason for reason in Reason if any(reason in s["reasons"] for s in splits.values())
    ]
    lines += ["", "| reason | dropped | " + " | ".join(splits) + " |"]
    lines.append("|---" * (2 + len(splits)) + "|")
    for reason in found:
        counts = [str(source["reasons"].get(reason, 0)) for source in splits.values()]
        word = "yes" if reason in report["drop"] else "no"
        lines.append(f"| {reason} | {word} | " + " | ".join(counts) + " |")
    if report["benchmarks"]:
        lines += ["", *_benchmark_lines(report)]
    for reason in found:
        items = [item for item in report["findings"] if item["reason"] == reason]
        lines += ["", f"## {reason} ({len(items)})", ""]
        lines += _listed([f"{i['split']} `{i['id']}`: {i['detail']}" for i in items])
    bad = [row for source in splits.values() for row in source["bad_rows"]]
    if bad:
        lines += ["", f"## bad rows ({len(bad)})", "", *_listed(bad)]
    return "\n".join(lines) + "\n"


def _benchmark_lines(report: Mapping[str, Any]) -> list[str]:
    size = report["thresholds"]["contamination_ngram"]
    lines = [
        f"| benchmark | problems | share a {size}-gram with train | more than half of the "
        "lines in train |",
        "|---|---|---|---|",
    ]
    for one in report["benchmarks"]:
        over, total = len(one["over_half"]), one["problems"]
        lines.append(
            f"| {one['name']} | {total} | {len(one['found'])} | {over} "
            f"({100 * over / total:.1f} %) |"
        )
    return lines


def _listed(items: Sequence[str]) -> list[str]:
    more = len(items) - _MOST_LISTED
    lines = [f"- {item}" for item in items[:_MOST_LISTED]]
    return [*lines, f"- ... and {more} more, in the JSON file"] if more > 0 else lines


def read_left_out(path: str, files: Mapping[str, str]) -> dict[str, list[str]]:
    """The ids that a report drops, by split, for the very files that it is of.

    DataError when it is no report, or was made of other files.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        known = {split: source["sha256"] for split, source in report["splits"].items()}
        out = [(i["split"], i["id"]) for i in report["findings"] if i["dropped"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"--report: {path}: expected the JSON report of `stepcoder data check` "
            f"({type(error).__name__}: {error})"
        ) from None
    for split, file in files.items():
        if known.get(split) != digest(file):
            raise DataError(
                f"--report: {path} is not of {file} as {split}; check that file again"
            )
    return {split: [name for home, name in out if home == split] for split in files}
