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
import json

import numpy as np

from stepcoder_jax.data.generated import guarded, tiers


def positions(rows: list[dict]) -> dict[int, np.ndarray]:
    """K -> shares [K, 3]: guard, class and meaning right, in the order of the parts."""
    known = {
        problem.id: problem
        for split in ("train", "validation", "test")
        for problem in tiers.load("guarded", split)
    }
    found = collections.defaultdict(list)
    for row in rows:
        problem = known[row["task_id"]]
        program = problem.starter_code + row["completion"]
        accuracy = guarded.accuracy_by_position(problem, program)
        found[len(accuracy)].append(accuracy)
    return {count: np.mean(found[count], axis=0) for count in sorted(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", help="results.jsonl of `stepcoder evaluate --out`")
    with open(parser.parse_args().results, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for count, shares in positions(rows).items():
        verdicts = [
            row["passed"]
            for row in rows
            if guarded.PARTS[row["task_id"].split("/")[2]] == count
        ]
        print(f"K = {count}: {sum(verdicts)} of {len(verdicts)} programs pass")
        for name, column in zip(guarded.Accuracy._fields, shares.T, strict=True):
            print(f"  {name:10s}", " ".join(f"{share:5.3f}" for share in column))


if __name__ == "__main__":
    main()
