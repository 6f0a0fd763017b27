"""`stepcoder head`: a head of a run's rollouts, and what it is worth."""

import json

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.devices import digests
from stepcoder_jax.heads import folder
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.run_folder import RunFolder
from tests.run_kit import get_config, start


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two iterations' rollouts: half of the programs do not compile."""
    path = tmp_path_factory.mktemp("head") / "run"
    start(path)
    (path / "rollouts").mkdir()
    problems = benchmark.load("train")[: get_config().data.pool_size]
    for step in (2, 10):
        rows = []
        for place, problem in enumerate(problems):
            broken = (step + place) % 4 == 0
            code = "def f(:\n" if broken else problem.solution
            row = {"problem": problem.id, "head": "", "stage": 0, "valid": True}
            verdict = "compile" if broken else "wrong"
            rows.append(row | {"completion": code, "verdict": verdict})
        lines = "\n".join(map(json.dumps, rows))
        (path / "rollouts" / f"{step}.jsonl").write_text(lines + "\n")
    return path


def test_a_head_is_learnt_measured_and_kept(run, tmp_path, capsys):
    to = tmp_path / "head"
    flags = ["--kind", "outcome", "--out", str(to), "--epochs", "1"]
    assert main(["head", str(run), *flags]) == 0
    said = capsys.readouterr().out
    for word in ("accuracy", "accuracy/failed", "majority", "ece", f"wrote {to}"):
        assert word in said
    reference = sources.load_reference(run / "reference")
    digest = digests.digest(reference)  # as a run of RL has it
    size = RunFolder(run).read_config().model.hidden_size
    head = folder.load(to, folder.Wanted("outcome", digest, size, "x"))
    assert head.kind == "outcome" and 0 <= head.measured["ece"] <= 1
    assert f"ece                {head.measured['ece']:.4g}" in said
    # what is there stays as it is
    assert main(["head", str(run), *flags]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--epochs", "0"], "--epochs: expected at least 1, got 0"),
        (["--learning-rate", "nan"], "--learning-rate: expected more than 0, got nan"),
    ],
)
def test_flags_that_cannot_work(run, tmp_path, capsys, flags, why):
    to = str(tmp_path / "head")
    assert main(["head", str(run), "--kind", "pair", "--out", to, *flags]) == 2
    assert why in capsys.readouterr().err


def test_rollouts_that_cannot_be_read(run, tmp_path, capsys):
    flags = ["--kind", "pair", "--out", str(tmp_path / "head")]
    bad = run / "rollouts" / "11.jsonl"
    for text in ("{", '{"problem": 1}', "[]"):
        bad.write_text(text)
        assert main(["head", str(run), *flags]) == 2
        said = capsys.readouterr().err
        assert f"{bad}, line 1 is no row of rollouts" in said and said.count("\n") == 1
    bad.unlink()
    empty = tmp_path / "empty"
    start(empty)
    assert main(["head", str(empty), *flags]) == 2
    assert "expected 2 judged programs or more" in capsys.readouterr().err
