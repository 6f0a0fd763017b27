"""What a model has right at each part of the guarded tier's programs.

Command    stepcoder evaluate MODEL --problems guarded --split validation \
               --samples-per-problem 10 --temperature 1 --top-p 1 --out runs/positions
           python experiments/benchmarks/guarded_positions.py runs/positions/results.jsonl
Shows      for K = 3, 6, 9: the share of programs that are right, and for each part the
           share of guards that are copied, of operations that are of the word's class, and
           of those that are its meaning. The shipped warm start has to have at least .99,
           at least .98, and .20 to .30, at each part of K = 9.
"""

import argparse
import collections
import functools
import sys
from typing import Any

import numpy as np

from stepcoder_jax.data.formats.rows import require, require_object, stream_lines
from stepcoder_jax.data.generated import guarded, tiers
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.records import InputError, Problem

WANTED = "results.jsonl of `stepcoder evaluate MODEL --problems guarded --out DIR`"


@functools.cache
def tier_problems() -> dict[str, Problem]:
    """The tier's problems, by id."""
    splits: tuple[Split, ...] = ("train", "validation", "test")
    return {
        problem.id: problem for split in splits for problem in tiers.load("guarded", split)
    }


def read_results(path: str) -> list[dict[str, Any]]:
    """The rows of a file of results; InputError that names file, line and field."""
    rows, known = [], tier_problems()
    for row in stream_lines(path, WANTED):
        try:
            found = require_object(row)
            require(found, "completion", str)
            require(found, "passed", bool)
            if require(found, "task_id", str) not in known:
                raise InputError(
                    f"field task_id: {found['task_id']!r} is none of the tier's"
                )
        except InputError as error:
            raise InputError(f"{path}: {row.place}: {error}; expected {WANTED}") from None
        rows.append(found)
    if not rows:
        raise InputError(f"{path}: has no rows; expected {WANTED}")
    return rows


def positions(rows: list[dict[str, Any]]) -> dict[int, np.ndarray]:
    """K -> shares [K, 3]: guard, class and meaning right, in the order of the parts."""
    known = tier_problems()
    found = collections.defaultdict(list)
    for row in rows:
        problem = known[row["task_id"]]
        program = problem.starter_code + row["completion"]
        accuracy = guarded.accuracy_by_position(problem, program)
        found[len(accuracy)].append(accuracy)
    return {count: np.mean(found[count], axis=0) for count in sorted(found)}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", help="results.jsonl of `stepcoder evaluate --out`")
    try:
        rows = read_results(parser.parse_args(argv).results)
    except InputError as error:
        print(f"guarded_positions.py: {error}", file=sys.stderr)
        return 2
    for count, shares in positions(rows).items():
        verdicts = [
            row["passed"]
            for row in rows
            if guarded.PARTS[row["task_id"].split("/")[2]] == count
        ]
        print(f"K = {count}: {sum(verdicts)} of {len(verdicts)} programs pass")
        for name, column in zip(guarded.Accuracy._fields, shares.T, strict=True):
            print(f"  {name:10s}", " ".join(f"{share:5.3f}" for share in column))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
