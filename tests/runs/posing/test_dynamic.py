"""Dynamic sampling: what takes whose place, what it costs, and that a run goes on alike."""

import json

import numpy as np
import pytest

from stepcoder_jax.config import CCCSConfig, Config, ConfigError, SamplingConfig
from stepcoder_jax.feedback import cccs
from stepcoder_jax.pytrees import Feedback, Rollout
from stepcoder_jax.records import Report, Task, Verdict
from stepcoder_jax.results.logger import read_metrics
from stepcoder_jax.runs.posing import dynamic
from tests.feedback.kit import problem as make_problem
from tests.run_kit import check_names, metrics_of, rollouts_of, run_train, saved

GROUP, COLUMNS = 2, 3


def problem(number):
    return make_problem(str(number), "print(1)\n")


def tasks_of(*numbers):
    return [
        Task(problem(number), number, 0, "") for number in numbers for _ in range(GROUP)
    ]


def batch(tasks, first=0):
    """Of problem n: n odd, its rollouts have rewards 1 and -1; n even, both -1.

    A rollout's place in the iteration is its first token. Those of 9 are not valid.
    """
    rewards = np.zeros((len(tasks), COLUMNS), np.float32)
    rewards[:, 1] = [
        1 if task.index % 2 and i % GROUP == 0 else -1 for i, task in enumerate(tasks)
    ]
    passed = rewards[:, 1] > 0
    mask = np.ones((len(tasks), COLUMNS), bool)
    tokens = np.arange(first, first + len(tasks), dtype=np.int32)[:, None]
    zeros, ends = mask * np.float32(0), np.zeros(len(tasks), np.int32)
    rollout = Rollout(tokens, ends, ends, mask, zeros, zeros, ends < 0)
    valid = np.array([task.index != 9 for task in tasks])
    reports = [
        Report(Verdict.PASS if x else Verdict.WRONG, (), frozenset()) for x in passed
    ]
    names = [f"{task.index}.{i % GROUP}" for i, task in enumerate(tasks)]
    own = dynamic.Own(list(range(len(tasks))), names, names, reports)
    feedback, columns = Feedback(rewards, mask, valid), {"x": rewards[:, 1]}
    return dynamic.Batch(tasks, own, reports, rollout, feedback, columns)


class Roll:
    """What `fill` asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, tasks, first):
        self.asked.append(([task.index for task in tasks[::GROUP]], first))
        return batch(tasks, first)


def test_groups_without_a_spread_give_way_to_those_that_have_one():
    roll, first = Roll(), batch(tasks_of(0, 1, 2, 4))
    filled = dynamic.fill(first, tasks_of(6, 3, 9, 5, 7, 11), GROUP, roll)
    # three places, then the two that are left, and one problem more than is wanted
    assert roll.asked == [([6, 3, 9], 8), ([5, 7], 14)]
    kept = filled.kept
    assert [task.index for task in kept.tasks] == [3, 3, 1, 1, 5, 5, 7, 7]
    names = ["3.0", "3.1", "1.0", "1.1", "5.0", "5.1", "7.0", "7.1"]
    assert kept.own.programs == names and kept.own.rows == list(range(8))
    np.testing.assert_array_equal(kept.columns["x"], kept.feedback.rewards[:, 1])
    assert len(filled.judged.columns["x"]) == len(filled.judged.reports) == 18
    places = [10, 11, 2, 3, 14, 15, 16, 17]  # each group has rollout indices of its own
    np.testing.assert_array_equal(kept.rollout.tokens[:, 0], places)
    assert kept.rollout.mask.shape == first.rollout.mask.shape
    assert kept.feedback.explained is None
    judged = [task.index for task in filled.judged.tasks[::GROUP]]
    assert judged == [0, 1, 2, 4, 6, 3, 9, 5, 7]
    rows = list(dynamic.dropped_rows(filled, GROUP))
    assert [(row["problem"], row["first"]) for row in rows] == [
        *(("0", 0), ("2", 4), ("4", 6)),
        *(("6", 8), ("9", 12)),
    ]
    assert rows[0]["verdicts"] == ["wrong", "wrong"] and rows[0]["rewards"] == [-1, -1]
    metrics = dynamic.metrics(filled, GROUP)
    assert metrics["dynamic/spread_before"] == 0.25 and metrics["dynamic/spread_after"] == 1
    assert metrics["dynamic/extra_rollouts"] == 10
    # 1, 3, 9, 5 and 7 have a pass each, of 18 x 3 tokens
    passes = 1000 * 5 / 54
    assert metrics["dynamic/passes_per_1000_tokens"] == pytest.approx(passes)
    assert dynamic.complaint(filled, GROUP) == ""


def test_a_host_keeps_its_own_rows_under_their_new_numbers():
    def of_second_host(tasks, first):
        whole = batch(tasks, first)
        rows = whole.own.rows[1::2]
        parts = ([part[row] for row in rows] for part in whole.own[1:])
        return whole._replace(own=dynamic.Own(rows, *parts))

    first = of_second_host(tasks_of(0, 1), 0)
    filled = dynamic.fill(first, tasks_of(2, 3), GROUP, of_second_host)
    assert filled.judged.own.rows == [1, 3, 5, 7]
    assert [task.index for task in filled.kept.tasks] == [3, 3, 1, 1]
    assert filled.kept.own.rows == [1, 3] and filled.kept.own.programs == ["3.1", "1.1"]


def test_where_no_group_has_a_spread_it_stops_after_the_bound_and_says_so():
    roll, first = Roll(), batch(tasks_of(0, 2))
    filled = dynamic.fill(first, tasks_of(4, 6, 8), GROUP, roll)
    assert roll.asked == [([4, 6], 4), ([8], 8)]
    assert [task.index for task in filled.kept.tasks] == [0, 0, 2, 2]
    said = dynamic.complaint(filled, GROUP)
    assert said.startswith("none of 5 groups") and "6 rollouts beyond" in said
    assert dynamic.metrics(filled, GROUP)["dynamic/spread_after"] == 0


def test_a_batch_of_spread_draws_nothing_more():
    roll, first = Roll(), batch(tasks_of(1, 3))
    filled = dynamic.fill(first, tasks_of(5), GROUP, roll)
    assert not roll.asked and filled.kept is filled.judged is first


def extra(problems, state, step, tasks=(), **config):
    sampling = SamplingConfig(2, GROUP, extra_problems=4)
    settings = CCCSConfig(**config)
    drawn = tasks or cccs.choose_tasks(
        problems, state, step=step, seed=3, sampling=sampling, config=settings
    )
    given = {"step": step, "seed": 3, "sampling": sampling, "config": settings}
    return drawn, cccs.choose_extra(problems, state, drawn, **given)


def test_other_problems_are_others_and_follow_from_seed_and_step():
    problems = [problem(i) for i in range(12)]
    state = cccs.initial(problems, CCCSConfig())
    seen = set()
    for step in range(6):
        drawn, found = extra(problems, state, step)
        rows = [task.index for task in found]
        assert rows[::GROUP] == rows[1::GROUP] and 1 <= len(set(rows)) <= 4
        assert not set(rows) & {task.index for task in drawn}
        assert rows == [task.index for task in extra(problems, state, step)[1]]
        seen.add(tuple(rows))
    assert len(seen) > 3
    few, alone = problems[:2], cccs.initial(problems[:2], CCCSConfig())
    assert extra(few, alone, 0)[1] == []


def test_other_problems_are_posed_at_their_stages():
    lines = "".join(f"if x > {i}:\n    x += {i}\n" for i in range(9))
    problems = [make_problem(str(i), lines) for i in range(12)]
    state = cccs.initial(problems, CCCSConfig())
    assert state.stage[0] == 2
    assert {task.stage for task in extra(problems, state, 0)[1]} == {2}
    assert {task.stage for task in extra(problems, state, 0, full_fraction=1.0)[1]} == {0}
    drawn = {task.stage for i in range(8) for task in extra(problems, state, i)[1]}
    assert drawn == {2}
    found = [extra(problems, state, i, prefix="random")[1][0].stage for i in range(8)]
    assert len(set(found)) > 2


def test_only_groups_can_be_without_a_spread():
    config = Config()
    config.model.max_positions, config.sampling.extra_problems = 4096, 4
    with pytest.raises(ConfigError, match=r"^sampling.extra_problems: expected 0, [^\n]+$"):
        config.validate()
    config.algorithm = "grpo"
    config.validate()


@pytest.mark.long
def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    flags = ["--algorithm", "grpo", "--sampling.extra_problems", "3"]
    flags += ["--ppo.overlong_buffer", "48", "--ppo.tis_cap", "2"]
    flags += ["--ppo.adaptive_kl_target", "0.1", "--ppo.target_kl", "1"]
    flags += ["--run.save_every", "1", "--evaluation.every", "0"]
    flags += ["--evaluation.test_problems", "0"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_train(whole, *flags, "--run.total_steps", "3") == 0
    assert run_train(parts, *flags, "--run.total_steps", "1") == 0
    assert run_train(parts, *flags, "--run.total_steps", "3", "--run.resume") == 0
    check_names(whole)
    assert metrics_of(whole) == metrics_of(parts)
    moved = {row["kl_coef"] for row in metrics_of(whole)}
    assert len(moved) == 3 and None not in moved
    assert rollouts_of(whole) == rollouts_of(parts)
    files = {path.name: path.read_text() for path in (whole / "dropped").iterdir()}
    assert files == {path.name: path.read_text() for path in (parts / "dropped").iterdir()}
    rows = read_metrics(whole / "metrics.jsonl")
    assert any(row["dynamic/extra_rollouts"] for row in rows)
    for row in rows:
        assert row["dynamic/extra_rollouts"] <= 3 * 4
        assert row["dynamic/spread_after"] >= row["dynamic/spread_before"]
        learnt = 1 - row["grpo/equal_share"]  # lengths are punished after the choice
        assert learnt >= row["dynamic/spread_after"] - 1e-6
    dropped = [json.loads(line) for text in files.values() for line in text.splitlines()]
    assert len(dropped) * 4 == sum(row["dynamic/extra_rollouts"] for row in rows)
    # the curriculum has seen those that were drawn in vain as well
    _, curriculum, record, _ = saved(whole, 3)
    judged = 3 * 16 + sum(row["dynamic/extra_rollouts"] for row in rows)
    assert curriculum.visits.sum() * 4 == judged == sum(record["verdicts"].values())
