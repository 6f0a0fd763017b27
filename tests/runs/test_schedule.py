"""The end of a run, and what is due on its way, by iterations and by generated tokens."""

import json

import pytest

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.runs import schedule
from stepcoder_jax.runs.schedule import Spent
from tests.run_kit import metrics_of, rollouts_of, run_train, saved


def make_config(**run):
    config = Config()
    config.run.total_steps, config.run.save_every = 10, 4
    for name, value in run.items():
        setattr(config.run, name, value)
    return config


def walk(*generated):
    spent = Spent()
    for tokens in generated:
        spent = spent.after(tokens)
        yield spent


def test_tokens_are_counted_up():
    assert list(walk(30, 0, 45)) == [(1, 30, 30), (2, 30, 0), (3, 75, 45)]
    assert Spent(7, None).after(30) == (8, None, 30)


def test_a_run_ends_after_the_first_iteration_that_reaches_its_tokens():
    config = make_config(total_tokens=100)
    ends = [schedule.find_end(spent, config.run) for spent in walk(60, 39, 1, 60)]
    assert ends == ["", "", "run.total_tokens", "run.total_tokens"]
    assert schedule.find_end(Spent(10, 99), config.run) == "run.total_steps"
    assert schedule.find_end(Spent(10, 100), config.run) == "run.total_tokens"
    assert schedule.find_end(Spent(9, 10**9), make_config().run) == ""
    assert schedule.find_end(Spent(9, None), config.run) == ""


def test_validation_is_due_after_the_first_iteration_that_reaches_each_multiple():
    config = make_config(total_tokens=500)
    config.evaluation.every_tokens = 100
    # 60, 100, 199, 200, 450 (two multiples at once), 499, and the end
    walked = walk(60, 40, 99, 1, 250, 49, 1)
    due = [schedule.is_validation_due(spent, config) for spent in walked]
    assert due == [False, True, False, True, True, False, True]
    assert not schedule.is_validation_due(Spent(3, None, 100), config)
    config.evaluation.every_tokens = 0
    assert not schedule.is_validation_due(Spent(10, 500, 60), config)
    config.evaluation.every = 3
    by_steps = [schedule.is_validation_due(Spent(i, 100, 100), config) for i in range(1, 5)]
    assert by_steps == [False, False, True, False]


def test_a_checkpoint_is_due_every_few_iterations_and_at_either_end():
    run = make_config(total_tokens=100).run
    due = [schedule.is_save_due(Spent(i, 10 * i, 10), run) for i in range(1, 11)]
    assert [i for i, is_due in enumerate(due, start=1) if is_due] == [4, 8, 10]
    assert schedule.is_save_due(Spent(3, 100, 50), run)


def test_what_an_older_checkpoint_knows():
    assert schedule.read({"step": 7}, make_config().run) == (7, None, 0)
    assert schedule.read({"step": 7, "spent": [7, 90, 20]}, make_config().run) == (
        7,
        90,
        20,
    )
    with pytest.raises(ConfigError, match=r"^run\.total_tokens: 100 .* did not count"):
        schedule.read({"step": 7}, make_config(total_tokens=100).run)


def test_validation_is_counted_in_iterations_or_in_tokens():
    config = Config()
    config.evaluation.every, config.evaluation.every_tokens = 2, 500
    with pytest.raises(ConfigError, match=r"^evaluation\.every_tokens: expected 0, since"):
        config.validate()


@pytest.mark.long
def test_tokens_end_a_run_and_are_counted_on_after_a_resume(tmp_path, capfd):
    folder = tmp_path / "run"
    flags = ["--evaluation.test_problems", "0", "--evaluation.validation_problems", "4"]
    flags += ["--evaluation.every", "0", "--evaluation.every_tokens", "1500"]
    assert run_train(folder, *flags, "--run.total_steps", "3") == 0
    assert "run.total_steps ended the run: 3 iterations, " in capfd.readouterr().out
    limit = metrics_of(folder)[-1]["tokens/generated"] + 1
    more = ["--run.total_steps", "9", "--run.total_tokens", str(limit), "--run.resume"]
    assert run_train(folder, *flags, *more) == 0
    rows, totals = metrics_of(folder), []
    for step in range(4):
        lines = rollouts_of(folder)[f"{step}.jsonl"].splitlines()
        before = totals[-1] if totals else 0
        totals.append(before + sum(len(json.loads(line)["executed"]) for line in lines))
    assert [row["tokens/generated"] for row in rows] == totals
    told = capfd.readouterr()
    assert f"run.total_tokens ended the run: 4 iterations, {totals[3]:,} " in told.out
    assert f" tokens={totals[3] / 1e3:.0f}k/{limit / 1e3:.0f}k" in told.err
    assert saved(folder, 4)[2]["spent"] == [4, totals[3], totals[3] - totals[2]]
    reached = [now // 1500 > then // 1500 for then, now in zip([0, *totals], totals)]
    assert True in reached and False in reached
    measured = [row["validation/pass@1"] is not None for row in rows]
    assert measured == [reached[0], reached[1], True, True]
