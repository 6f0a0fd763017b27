"""Outcome rewards by verdict, on the last token, and the feedback of a batch."""

import dataclasses
import math

import numpy as np
import pytest

from stepcoder_jax.config import FGOConfig, RewardConfig
from stepcoder_jax.feedback.rewards import batch
from stepcoder_jax.feedback.rewards.stepcoder import outcome_reward
from stepcoder_jax.feedback.rewards.table import PAPER
from stepcoder_jax.records import Mode, Problem, Program, Report, TestResult, Verdict

PROBLEM = Problem("p", "", "", "", None, Mode.STDIN_MAIN, (), "introductory")
REWARD = RewardConfig()


def report(verdict, executed=()):
    return Report(verdict, (), frozenset(executed))


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict.PASS, 1.0),
        (Verdict.WRONG, -0.3),
        (Verdict.RUNTIME, -0.6),
        (Verdict.TIMEOUT, -0.6),
        (Verdict.MEMORY, -0.6),
        (Verdict.OUTPUT, -0.6),
        (Verdict.COMPILE, -1.0),
        (Verdict.INFRA, 0.0),
    ],
)
def test_reward_of_each_verdict(verdict, expected):
    assert outcome_reward(report(verdict), REWARD) == expected


def test_a_weak_pass_earns_nothing_and_takes_part_in_nothing():
    weak = dataclasses.replace(report(Verdict.PASS), weak=True)
    assert outcome_reward(weak, REWARD) == 0.0
    programs, reports, mask = rows()
    reports[1] = weak
    found, _ = batch.feedback(
        programs, reports, mask, reward=REWARD, fgo=FGOConfig(), seed=0, step=0
    )
    assert found.valid.tolist() == [True, False, False, True]


def test_an_unfaithful_failure_earns_nothing_and_is_counted():
    programs, reports, mask = rows()
    failed = TestResult(Verdict.WRONG, unfaithful=True)
    reports[1] = Report(Verdict.WRONG, (failed,), frozenset())
    assert outcome_reward(reports[1], REWARD) == 0.0
    found, _ = batch.feedback(
        programs, reports, mask, reward=REWARD, fgo=FGOConfig(), seed=0, step=0
    )
    assert found.valid.tolist() == [True, False, False, True]
    numbers = batch.metrics(reports, mask, found)
    assert (numbers["verdict/infra"], numbers["verdict/unfaithful"]) == (0.25, 0.25)


def test_not_run_is_no_verdict_of_a_program():
    with pytest.raises(ValueError, match="expected the verdict of a whole program"):
        outcome_reward(report(Verdict.NOT_RUN), REWARD)


def test_other_rewards_are_read():
    config = RewardConfig(passed=4.0, wrong=3.0, runtime=2.0, compile=1.0)
    verdicts = (Verdict.PASS, Verdict.WRONG, Verdict.MEMORY, Verdict.COMPILE)
    assert [outcome_reward(report(v), config) for v in verdicts] == [4, 3, 2, 1]


def on_one_row(verdict, mask):
    program = Program(PROBLEM, "a\n", 0, (None,) * int(mask.sum()))
    return batch.add_up(PAPER, [program], [report(verdict)], mask[None], REWARD)[0][0]


def test_the_last_true_of_the_mask_carries_it():
    mask = np.array([True, True, True, False, False])
    found = on_one_row(Verdict.WRONG, mask)
    assert found.dtype == np.float32
    # -0.3 survives: an integer array would make it 0.
    np.testing.assert_array_equal(found, np.array([0, 0, -0.3, 0, 0], np.float32))
    assert not on_one_row(Verdict.PASS, np.zeros(5, bool)).any()


SOURCE = "if a:\n    b\n"
SPANS = ((0, 5), (5, 12), None)  # `if a:`, the body, EOS


def rows():
    program = Program(PROBLEM, SOURCE, 0, SPANS)
    short = Program(PROBLEM, "a\n", 0, ((0, 2),))
    reports = [
        report(Verdict.WRONG, {(1, 0)}),
        report(Verdict.PASS, {(1, 0)}),
        report(Verdict.INFRA),
        report(Verdict.COMPILE),
    ]
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]], bool)
    return [program, short, program, program], reports, mask


def feedback(fgo=FGOConfig()):  # noqa: B008 - read only
    programs, reports, mask = rows()
    found, _ = batch.feedback(
        programs, reports, mask, reward=REWARD, fgo=fgo, seed=0, step=0
    )
    return found


def test_feedback_of_a_batch():
    found = feedback()
    assert found.executed.astype(int).tolist() == [
        [1, 0, 1, 0],
        [1, 0, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 0],
    ]
    expected = np.zeros((4, 4), np.float32)
    expected[0, 2], expected[1, 0], expected[3, 2] = -0.3, 1.0, -1.0
    np.testing.assert_array_equal(found.rewards, expected)
    assert found.rewards.dtype == np.float32 and found.executed.dtype == bool
    assert found.valid.tolist() == [True, True, False, True]


@pytest.mark.parametrize("mask", ["executed", "random", "inverse", "none"])
def test_executed_is_a_subset_of_the_mask(mask):
    assert not (feedback(FGOConfig(mask=mask)).executed & ~rows()[2]).any()


def test_executed_never_leaves_the_mask():
    programs, reports, _ = rows()
    mask = np.array([[True, False, False, False]])
    found, _ = batch.feedback(
        programs[2:3],
        reports[2:3],
        mask,
        reward=REWARD,
        fgo=FGOConfig(),
        seed=0,
        step=0,
    )
    assert found.executed.tolist() == mask.tolist()


def test_feedback_refuses_batches_of_different_lengths():
    programs, reports, mask = rows()
    with pytest.raises(ValueError, match="4 programs, got 3 and 4"):
        batch.feedback(
            programs, reports[:3], mask, reward=REWARD, fgo=FGOConfig(), seed=0, step=0
        )


def test_metrics_count_valid_rows_only():
    _, reports, mask = rows()
    numbers = batch.metrics(reports, mask, feedback())
    assert numbers["pass_rate"] == numbers["verdict/pass"] == pytest.approx(1 / 3)
    assert numbers["verdict/infra"] == 0.25
    assert numbers["reward"] == pytest.approx((-0.3 + 1.0 - 1.0) / 3)
    # Valid rows have 3 + 1 + 3 tokens, of which one is dropped, in the wrong program.
    assert numbers["fgo/masked"] == pytest.approx(1 / 7)
    assert numbers["fgo/masked_wrong"] == pytest.approx(1 / 3)
    assert math.isnan(numbers["fgo/masked_timeout"]) and numbers["verdict/timeout"] == 0
    assert numbers["batch/valid_rows"] == 3
    assert numbers["reward_spread"] == pytest.approx(2.0)


def test_metrics_of_a_batch_without_a_valid_row_have_the_same_keys():
    _, reports, mask = rows()
    nothing = feedback()._replace(valid=np.zeros(4, bool))
    numbers = batch.metrics(reports, mask, nothing)
    assert numbers.keys() == batch.metrics(reports, mask, feedback()).keys()
    assert numbers["batch/valid_rows"] == 0 and numbers["verdict/infra"] == 1
    assert math.isnan(numbers["reward"]) and math.isnan(numbers["pass_rate"])
    only = batch.metrics(
        [report(Verdict.INFRA)],
        mask[:1],
        batch.Feedback(np.zeros((1, 4), np.float32), mask[:1], np.array([False])),
    )
    assert only["verdict/infra"] == 1.0 and math.isnan(only["fgo/masked"])
    assert only["verdict/unfaithful"] == 0.0


def metrics_of_labels(reports, sources):
    programs = [
        Program(PROBLEM, source, 0, ((0, len(source.encode())),)) for source in sources
    ]
    mask = np.ones((len(sources), 1), bool)
    _, columns = batch.feedback(
        programs, reports, mask, reward=REWARD, fgo=FGOConfig(), seed=0, step=0
    )
    return batch.numbers_of(columns)


def test_programs_that_nobody_can_label_are_counted():
    deep, ran = f"x = {'-' * 600}1\n", report(Verdict.PASS, {(1, 0)})
    numbers = metrics_of_labels([ran] * 3, ["a = (\n", "a = 1\n", deep])
    told = {"fgo/uncertain": 2.0, "fgo/dropped_but_ran": 0.0}
    assert numbers == told | {"reward/stepcoder": 1.0}


def test_a_token_that_ran_and_is_dropped_is_counted(monkeypatch):
    def wrong(source, report):
        return np.zeros(len(source.encode()), bool)

    monkeypatch.setattr("stepcoder_jax.feedback.fgo.label_bytes", wrong)
    told = [report(Verdict.WRONG, {(1, 0)}), report(Verdict.WRONG)]
    numbers = metrics_of_labels(told, ["a = 1\n", "b = 2\n"])
    told = {"fgo/uncertain": 0.0, "fgo/dropped_but_ran": 0.5}
    assert numbers == told | {"reward/stepcoder": pytest.approx(-0.3)}
