"""The shipped warm start of the guarded tier: fluent at each part, guessing at words."""

import json

import numpy as np
import pytest

from experiments.benchmarks.guarded_positions import positions
from stepcoder_jax.__main__ import main
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated import tiers

SAMPLES = 5


@pytest.mark.long
def test_each_part_of_nine_is_fluent_and_its_word_a_guess(tmp_path):
    """A share of 1,000 samples has a standard error of .003 at .99, of .014 at .25."""
    hard = [p for p in tiers.load("guarded", "validation") if p.difficulty == "competition"]
    file, out = tmp_path / "problems.jsonl", tmp_path / "out"
    # APPS+ would put the starter code into the statement, which is another prompt
    file.write_text("".join(json.dumps(own.to_row(p)) + "\n" for p in hard))
    flags = ["--samples-per-problem", str(SAMPLES), "--temperature", "1", "--top-p", "1"]
    words = ["evaluate", "guarded", "--problems", str(file), *flags, "--out", str(out)]
    assert main(words) == 0
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 200 * SAMPLES
    shares = positions(rows)
    assert set(shares) == {9}
    guard, in_class, operation = np.array(shares[9]).T
    assert guard.min() >= 0.99 and in_class.min() >= 0.98
    assert operation.min() >= 0.20 and operation.max() <= 0.30
    assert sum(row["passed"] for row in rows) == 0
