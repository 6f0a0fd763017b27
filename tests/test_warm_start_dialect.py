"""The shipped warm start of the dialect tier: fluent, and each part a guess."""

import json

import numpy as np
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated import dialect, tiers

SAMPLES = 4


@pytest.mark.long
def test_each_part_is_one_of_its_operations_and_right_once_in_four(tmp_path):
    """Of 4,800 parts a share has a standard error of .006 at .25."""
    problems = tiers.load("dialect", "validation")
    file, out = tmp_path / "problems.jsonl", tmp_path / "out"
    own.write(problems, file)
    flags = ["--samples-per-problem", str(SAMPLES), "--temperature", "1", "--top-p", "1"]
    words = ["evaluate", "dialect", "--problems", str(file), *flags, "--out", str(out)]
    assert main(words) == 0
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    by_id = {problem.id: problem for problem in problems}
    written, right, drawn = [], [], []
    for row in rows:
        problem = by_id[row["task_id"]]
        meanings = dialect.meanings_of(problem)
        source = problem.starter_code + row["completion"]
        found = dialect.operations_of(source, len(meanings))
        written.append(found is not None)
        for said, meaning in zip(found or (), meanings):
            right.append(said == meaning)
            drawn.append(dialect.OPERATIONS.index(said))
    assert len(rows) == 600 * SAMPLES and np.mean(written) >= 0.99
    assert 0.22 <= np.mean(right) <= 0.28
    assert np.bincount(drawn).min() >= 0.15 * len(drawn)
