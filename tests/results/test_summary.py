"""The closing summary: paired changes, intervals, advice."""

import numpy as np
import pytest

from stepcoder_jax.config import CCCSConfig, Config
from stepcoder_jax.records import Verdict
from stepcoder_jax.results import summary
from stepcoder_jax.results.summary import Graded

P, W, C, I = Verdict.PASS, Verdict.WRONG, Verdict.COMPILE, Verdict.INFRA  # noqa: E741


def graded(verdicts, difficulty="introductory"):
    return [Graded(f"{difficulty}/{i}", difficulty, v) for i, v in enumerate(verdicts)]


def test_shares_are_written_within_0_and_100():
    assert "-0.0" not in summary.share_text([False] * 5)
    assert "100.0 [56.6, 100.0]" in summary.share_text([True] * 5)


def test_table_pairs_problems_and_leaves_infra_out():
    before = graded([P, W, C, W, I, W]) + graded([W, W], "competition")
    after = graded([P, P, P, W, P, I]) + graded([W, P], "competition")
    rows = {row[0]: row[1:] for row in summary.score_rows(before, after[::-1])}
    assert list(rows) == [
        "pass@1, introductory",
        "pass@1, competition",
        "pass@1, all",
        "compiles",
        "right among those that compile",
    ]
    problems, old, new, change = rows["pass@1, introductory"]
    assert problems == "4" and old.startswith(" 25.0 [") and new.startswith(" 75.0 [")
    assert change.startswith("+50.0 [")
    assert rows["pass@1, all"][0] == "6"
    assert rows["compiles"][1].startswith(" 83.3") and rows["compiles"][2].startswith(
        "100.0"
    )
    # One of the five that compiled was right before, four of six are after.
    assert rows["right among those that compile"][0] == "5, 6"
    assert rows["right among those that compile"][1].startswith(" 20.0")
    assert rows["right among those that compile"][3].startswith("+46.7")


def closing(before, after, visits, stage0_share=0.5, causes=(), config=None):
    return summary.summary(
        before,
        after,
        visits=np.array(visits),
        stage0_share=stage0_share,
        causes=causes,
        config=config or Config(),
        folder="runs/a",
        minutes=9.5,
    )


def test_summary_tells_scores_visits_place_and_next_steps():
    text = closing(graded([W] * 40), graded([P] * 20 + [W] * 20), [3, 4, 5, 0])
    assert "Done in 9.5 minutes" in text and "runs/a" in text
    assert "Visits per problem: median 4, 0 to 5; 25 % of 4 never drawn." in text
    assert "Rollouts at stage 0: 50 %" in text
    assert "Nothing stands out" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("before", "after", "visits", "share", "field"),
    [
        ([W, P] * 20, [P, W] * 20, [5, 5], 0.5, "run.total_steps"),
        ([W] * 40, [C] * 10 + [P] * 30, [5, 5], 0.5, "ppo.kl_coef"),
        ([W] * 40, [P] * 40, [1, 1], 0.5, "data.pool_size"),
        ([W] * 40, [P] * 40, [5, 5], 0.1, "cccs.threshold"),
    ],
)
def test_advice_names_the_field(before, after, visits, share, field):
    text = closing(graded(before), graded(after), visits, share)
    assert field in text and "Nothing stands out" not in text


def test_advice_names_the_section_of_the_algorithm():
    sides = graded([W] * 40), graded([C] * 10 + [P] * 30)
    text = closing(*sides, [5, 5], config=Config(algorithm="grpo"))
    assert "raise grpo.kl_coef" in text and "ppo.kl_coef" not in text


@pytest.mark.parametrize(
    "cccs",
    [CCCSConfig(prefix="random"), CCCSConfig(prefix="half"), CCCSConfig(enabled=False)],
)
def test_advice_names_no_knob_that_a_fixed_prefix_does_not_read(cccs):
    sides = graded([W] * 40), graded([P] * 40)
    text = closing(*sides, [1, 1], 0.1, config=Config(cccs=cccs))
    assert "raise cccs.full_fraction" in text
    assert "cccs.threshold" not in text and "first stage" not in text


def test_a_run_without_evaluation_has_a_summary_too():
    text = closing([], [], [])
    assert "before" not in text and "runs/a" in text


def test_causes_of_learning_nothing_take_the_place_of_other_advice():
    text = closing(graded([W] * 40), graded([W] * 40), [1, 1], 0.1, ["Judge broken."])
    assert "Judge broken." in text
    assert "run.total_steps" not in text and "cccs.threshold" not in text
