"""A run's model, read back; `stepcoder sample`, and `stepcoder evaluate` of a split."""

import json
import re
import shutil

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.runs import restore
from stepcoder_jax.runs.disk.run_folder import RunFolder
from tests.run_kit import run_train

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One iteration with a checkpoint, and one more as the best."""
    folder = tmp_path_factory.mktemp("restore") / "run"
    flags = ["--run.total_steps", "1", "--evaluation.every", "1"]
    assert run_train(folder, *flags) == 0
    return folder


def tables(text):
    """First cell -> the other cells, of the rows of all Markdown tables, heads included."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| "):
            name, *cells = (cell.strip() for cell in line.split("|")[1:-1])
            found.setdefault(name, []).append(cells)
    return found


def test_evaluate_prints_the_scores_of_a_split(run, capsys):
    assert main(["evaluate", str(run), "--before"]) == 0
    before = capsys.readouterr().out
    assert before.startswith(f"{run}, reference, 500 problems of test, greedy\n")
    found = tables(before)
    assert found[""] == [["problems", "pass@1, % [95 %]"]]
    names = ("introductory", "interview", "competition", "all")
    counts = [int(found[name][0][0]) for name in names]
    scores = [float(found[name][0][1].split()[0]) for name in names]
    assert counts == [200, 200, 100, 500]
    # the shipped warm start: fluent, and with something left to learn
    assert 25 <= scores[3] <= 50 and scores[2] < 15
    mean = sum(score * count for score, count in zip(scores, counts[:3])) / 500
    assert scores[3] == pytest.approx(mean, abs=0.1)
    (shares,) = found["samples, %"]
    assert shares == ["compile error", "runtime error", "failure", "pass"]
    whole = [float(share) for share in found["all"][1]]
    assert whole[0] <= 5 and whole[3] == scores[3] and sum(whole) == pytest.approx(100)
    assert found["C unknown"]


def test_the_best_checkpoint_is_the_default_and_steps_can_be_chosen(run, capsys):
    for flags, label in ([], "iteration 1 (best)"), (["--step", "1"], "iteration 1"):
        assert main(["sample", str(run), "--count", "1", *flags]) == 0
        assert capsys.readouterr().out.startswith(f"{run}, {label}, greedy\n")


def test_a_damaged_checkpoint_is_named_and_another_is_used(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    ask = ["sample", str(copy), "--count", "1"]
    for place, label in (("best/1", "iteration 1"), ("1", "")):
        damaged = copy / "checkpoints" / place
        (damaged / "_CHECKPOINT_METADATA").write_text("{}")
        code = main(ask)
        out, err = capsys.readouterr()
        assert f"checkpoint {damaged} is damaged: " in err
        if label:
            assert code == 0 and out.startswith(f"{copy}, {label}, greedy\n")
            assert "; the one before is used" in err
    assert code == 2 and "no other checkpoint was kept: --before" in err
    assert main([*ask, "--step", "1"]) == 2


def test_sample_shows_programs_with_verdict_and_reward(run, capsys):
    assert main(["sample", str(run), "--count", "3", "--before"]) == 0
    text = capsys.readouterr().out
    assert text.count("verdict: ") == text.count("reward: ") == 3
    assert text.count("| def solve(") == 3  # given
    assert re.search(r"^\+ ", text, re.M)  # executed
    assert "\x1b" not in text  # no colours where nobody sees them


def test_sample_shows_what_is_read_of_a_failure_and_answered(run, tmp_path, capsys):
    test = {"inputs": [2], "expected": "no list program returns this"}
    row = {"id": "mine", "statement": "Write solve.", "entry_point": "solve"}
    row |= {"mode": "call", "tests": [test], "starter_code": "def solve(xs):\n"}
    file = tmp_path / "mine.jsonl"
    lines = [row | {"visible_tests": 1}, row | {"id": "unseen"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    ask = ["sample", str(run), "--before", "--problems", str(file), "--rounds", "1"]
    assert main([*ask, "--variant", "explain"]) == 0
    first, second = capsys.readouterr().out.split("\nunseen: ")
    assert first.count("round 1, the model reads:\n  The program ") == 1
    told = "  Explain what is wrong with the program, then mend it.\n"
    assert first.partition(told)[2]  # what it answers
    assert "round 1" not in second and "no visible tests: there is nothing" in second
    assert main([*ask, "--max-prompt-length", "40"]) == 0
    out, err = capsys.readouterr()
    assert "not asked: its prompt would be too long\n" in out
    assert re.search(
        r"not asked: 1 prompts have more than 40 tokens .*: mine \(\d+ after 1 attempts",
        err,
    )
    assert main([*ask[:-1], "-1"]) == 2
    assert "--rounds: expected 0 or more, got -1" in capsys.readouterr().err


def test_the_reference_is_the_model_the_run_began_with(run, capsys):
    with restore.opened(str(run), None, before=True) as (config, _, _, label):
        assert label == "reference"
        assert config.model.checkpoint == str(run / "reference")


def test_a_split_without_a_file_is_named(run, tmp_path, capsys):
    config = RunFolder(run).read_config()
    config.data.path = "mine.json"
    config.run.folder = str(tmp_path / "files")
    other = RunFolder(config.run.folder)
    other.open(config)
    (other.path / "reference").symlink_to(run / "reference")
    assert main(["evaluate", str(other.path), "--before"]) == 2
    assert "data.test: the run has no test problems" in capsys.readouterr().err
