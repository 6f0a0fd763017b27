"""Rows of metrics.jsonl: the same keys in all of them, whatever an iteration met."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from stepcoder_jax.feedback.rewards.stepcoder import OUTCOMES
from stepcoder_jax.records import Verdict
from stepcoder_jax.runs import generate
from tests.run_kit import check_names, rollouts_of, run_train, saved

FLAGS = ("--evaluation.test_problems", "0", "--evaluation.validation_problems", "4")
FLAGS += ("--run.total_steps", "4", "--run.save_every", "1", "--run.keep", "9")
FLAGS += ("--ppo.critic_warmup_steps", "0", "--run.track", "tensorboard")


def break_judge(monkeypatch, broken):
    """Rollouts of the iterations `broken` come back as our own failures."""
    real, count = generate.judge_stream, iter(range(100))

    def judge(coder, tasks, stream, label):
        judged = real(coder, tasks, stream, label)
        if label or next(count) not in broken:  # validation has a label
            return judged
        infra = [dataclasses.replace(x, verdict=Verdict.INFRA) for x in judged.reports]
        return judged._replace(reports=infra)

    monkeypatch.setattr(generate, "judge_stream", judge)


def read_rows(folder):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_an_iteration_without_a_valid_row_is_logged_and_teaches_nothing(
    algorithm, tmp_path, monkeypatch, capfd
):
    break_judge(monkeypatch, {1})
    folder = tmp_path / "run"
    assert run_train(folder, *FLAGS, "--algorithm", algorithm) == 0
    check_names(folder)
    rows = read_rows(folder)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert [row["batch/valid_rows"] for row in rows] == [16, 0, 16, 16]
    assert [row["batch/empty_in_a_row"] for row in rows] == [0, 1, 0, 0]
    empty = rows[1]
    assert empty["verdict/infra"] == 1 and empty["reward"] is None and empty["kl"] is None
    assert empty["validation/pass@1"] is not None  # due, and not of this batch
    assert rows[0]["validation/pass@1"] is None
    assert {f"fgo/masked_{verdict}" for verdict in OUTCOMES} <= rows[0].keys()
    assert ("value_rmse/pass" in rows[0]) is (algorithm == "ppo")
    before, after = (saved(folder, step)[0] for step in (1, 2))
    assert int(after.step) == int(before.step) + 1
    jax.tree.map(np.testing.assert_array_equal, before[1:], after[1:])
    moved = jax.tree.map(np.array_equal, before.actor, saved(folder, 1 + 2)[0].actor)
    assert not all(jax.tree.leaves(moved))
    assert all(
        not json.loads(x)["valid"] for x in rollouts_of(folder)["1.jsonl"].split("\n") if x
    )
    told = capfd.readouterr().err
    assert "the judge failed on every program; run `stepcoder doctor`" in told
    assert "[nothing learnt: the judge failed on every program]" in told


@pytest.mark.long
def test_a_run_whose_judge_never_answers_stops_and_goes_on(tmp_path, monkeypatch, capfd):
    folder, flags = tmp_path / "run", (*FLAGS, "--evaluation.every", "0")
    with pytest.MonkeyPatch.context() as patch:
        break_judge(patch, {1, 2, 3})
        assert run_train(folder, *flags, "--run.max_empty", "2") == 69
    told = capfd.readouterr().err
    assert "stopped: no program could be judged in 2 iterations in a row" in told
    assert "saved iteration 3" in told and "Traceback" not in told
    assert [row["batch/empty_in_a_row"] for row in read_rows(folder)] == [0, 1, 2]
    assert saved(folder, 3)[2]["empty"] == 2
    assert run_train(folder, *flags, "--run.max_empty", "2", "--run.resume") == 0
    assert [row["batch/empty_in_a_row"] for row in read_rows(folder)] == [0, 1, 2, 0]
    assert "Done in" in capfd.readouterr().out
    longer = (*flags, "--run.total_steps", "6", "--run.max_empty", "2", "--run.resume")
    with pytest.MonkeyPatch.context() as patch:
        break_judge(patch, {0, 1})
        assert run_train(folder, *longer) == 69  # in the last iteration as in any
    told = capfd.readouterr()
    assert "saved iteration 6" in told.err and "Done in" not in told.out
    assert run_train(folder, *longer) == 0  # a judge that works ends the run
    assert "Done in" in capfd.readouterr().out
    assert run_train(tmp_path / "other", *flags, "--run.max_empty", "0") == 2
    assert "run.max_empty: expected a whole number, at least 1" in capfd.readouterr().err
