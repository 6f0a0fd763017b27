"""All trials of several hosts: their ends, that they are one run, and what a kill costs.

    python -m experiments.benchmarks.host_trials --out trials.jsonl
    python -m experiments.benchmarks.host_trials --out trials.jsonl --one-in 10 --minutes 15

The kinds are those of host_ends.py (20 trials each, with two processes), host_same.py
(each layout, each move between two, three rounds of judging) and host_lost.py (25 moments).
A row for each trial goes to --out, and what is wrong with it is in the row; those that are
there already are not run again. --one-in N runs the first of every N trials of a kind;
after --minutes no other begins. The exit code is 1 where anything is wrong with a trial.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks import host_ends, host_lost, host_same
from experiments.benchmarks.kit import machine

ENDS = 20  # trials of each kind of end
PROCESSES = 2


class Kind(NamedTuple):
    """One kind of trial."""

    run: Callable[[int, Path], dict]  # number, folder of compiled programs
    complaints: Callable[[dict], Iterator[str]]
    trials: int


def kinds(seed: int) -> dict[str, Kind]:
    """All kinds by name, in the order in which they are run."""

    def end(kind: str) -> Callable[[int, Path], dict]:
        return lambda number, cache: host_ends.run_trial(
            kind, PROCESSES, random.Random(f"{seed} {kind} {number}"), cache
        )

    def lose(number: int, cache: Path) -> dict:
        return host_lost.run_trial(number, seed, cache)

    return {
        **{kind: Kind(end(kind), host_ends.complaints, ENDS) for kind in host_ends.KINDS},
        **{
            name: Kind(of.run, host_same.complaints, of.trials)
            for name, of in host_same.KINDS.items()
        },
        "lost": Kind(lose, host_lost.complaints, host_lost.TRIALS),
    }


def run_one(name: str, kind: Kind, number: int, cache: Path) -> dict:
    """One trial: its row, with what is wrong."""
    began, head = time.monotonic(), {"kind": name, "number": number}
    try:
        row = head | kind.run(number, cache)
        wrong = list(kind.complaints(row))
    except RuntimeError as error:  # a run of it did not begin, or did not end well
        row, wrong = head, [str(error)]
    return row | {"took": round(time.monotonic() - began, 1), "wrong": wrong}


def describe(rows: list[dict], all_kinds: dict[str, Kind]) -> str:
    """A table of all kinds, and lines on what is not an end."""
    lines = ["| kind | trials | wrong | longest end, s | codes | left |", "|---" * 6 + "|"]
    for name, kind in all_kinds.items():
        chosen = [row for row in rows if row["kind"] == name]
        if not chosen:
            continue
        wrong = sum(bool(row["wrong"]) for row in chosen)
        codes = sorted({code for row in chosen for code in row.get("codes", ())}, key=str)
        seconds = max((row.get("seconds", 0) for row in chosen), default=0) or ""
        left = sum(len(row.get("left", ())) for row in chosen)
        told = ", ".join(map(str, codes))
        count = f"{len(chosen)} of {kind.trials}"
        lines.append(f"| {name} | {count} | {wrong} | {seconds} | {told} | {left} |")
    whole = [row for row in rows if row.keys() - {"kind", "number", "took", "wrong"}]
    of_same = [row for row in whole if row["kind"] in host_same.KINDS]
    of_lost = [row for row in whole if row["kind"] == "lost"]
    return "\n".join(
        [*lines, "", *host_same.describe(of_same), *host_lost.describe(of_lost)]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="a row for each trial")
    all_kinds = kinds(0)
    parser.add_argument("--kinds", nargs="+", choices=all_kinds, default=list(all_kinds))
    parser.add_argument("--trials", type=int, help="of each kind, at most; default: all")
    parser.add_argument("--one-in", type=int, default=1, metavar="N")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args()
    began, rows = time.monotonic(), []
    if given.out.exists():
        rows = [json.loads(line) for line in given.out.read_text().splitlines()]
    done = {(row["kind"], row["number"]) for row in rows}
    asked = [
        (name, number)
        for name in given.kinds
        for number in range(all_kinds[name].trials)[: given.trials : given.one_in]
        if (name, number) not in done
    ]
    left_out = []
    for name, number in asked:
        if time.monotonic() - began > 60 * given.minutes:
            left_out.append(f"{name} {number}")
            continue
        cache = given.out.with_suffix(".cache")
        row = run_one(name, all_kinds[name], number, cache)
        rows.append(row)
        with open(given.out, "a") as file:
            file.write(json.dumps(row) + "\n")
        said = "; ".join(row["wrong"]) or "as it should"
        print(f"{name} {number}: {row['took']} s: {said}", file=sys.stderr, flush=True)
    print(f"{machine()}\n\n{describe(rows, all_kinds)}")
    if left_out:
        print(f"\nnot run in {given.minutes:g} minutes: {', '.join(left_out)}")
    return int(any(row["wrong"] for row in rows if row["kind"] in given.kinds))


if __name__ == "__main__":
    sys.exit(main())
