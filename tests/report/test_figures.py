"""Arms of runs, and their means and intervals."""

import json

import numpy as np
import pytest
from benchmarks.report_speed import make_run

from stepcoder_jax.report import figures, reading
from stepcoder_jax.results.seeds import t_interval


@pytest.fixture
def runs(tmp_path):
    """Three seeds of one config, and a run of another."""
    found = [
        reading.read_run(make_run(tmp_path / f"s{seed}", 6, 1, seed), f"s{seed}", [])
        for seed in range(4)
    ]
    found[3].tree["ppo"]["kl_coef"] = 0.9
    return found


def test_seeds_of_a_config_are_an_arm(runs):
    assert figures.arms_of(runs) == [[0, 1, 2], [3]]
    first, second = figures.describe_arms(runs)
    assert first["name"] == "s0 and 2 more" and second["name"] == "s3"
    assert second["unlike"] == {"ppo.kl_coef": 0.9} and set(first["unlike"]) == {
        "ppo.kl_coef"
    }
    nameless = [run._replace(tree={}) for run in runs[:2]]
    assert figures.arms_of(nameless) == [[0], [1]]


def chart_of(charts, title):
    return next(chart for chart in charts if chart["title"] == title)


def test_the_mean_and_its_interval_are_over_runs(runs):
    charts = figures.draw_charts(runs)
    assert all(json.dumps(chart, allow_nan=False) for chart in charts)
    three, one = chart_of(charts, "Pass rate")["lines"]
    values = [run.metrics[2]["pass_rate"] for run in runs[:3]]
    wanted = t_interval(values)
    assert three["x"] == list(range(6)) and len(three["runs"]) == 3
    got = three["y"][2], three["low"][2], three["high"][2]
    np.testing.assert_allclose(got, wanted, rtol=2e-3)
    assert "low" not in one and one["y"][2] == pytest.approx(
        runs[3].metrics[2]["pass_rate"], rel=1e-3
    )


def test_a_mean_is_of_all_runs_of_an_arm_alone(runs):
    """A run that ended before the others makes no jump in their mean."""
    runs[0] = runs[0]._replace(metrics=runs[0].metrics[:3])
    line = chart_of(figures.draw_charts(runs), "Pass rate")["lines"][0]
    assert line["x"] == [0, 1, 2] and line["runs"][1][0] == list(range(6))


def test_parts_have_the_words_of_the_legend(runs):
    charts = figures.draw_charts(runs[:1])
    labels = {
        chart["title"]: [line["label"] for line in chart["lines"]] for chart in charts
    }
    assert labels["Verdicts"] == ["pass", "wrong"]
    assert labels["Masked by FGO"] == ["all", "pass", "wrong"]
    assert labels["Seconds per iteration"] == ["sample", "judge", "update"]
    assert chart_of(charts, "Explained variance")["floor"] == -1
    assert "Loss" not in labels  # no such metric, no chart
    seconds = chart_of(charts, "Seconds per iteration")["lines"][0]
    assert seconds["x"] == [1, 2, 3, 4, 5]  # the first iteration compiles


def test_long_lines_are_thinned(runs):
    rows = [{"step": step, "kl": float(step)} for step in range(1000)]
    (chart,) = figures.draw_charts([runs[0]._replace(metrics=rows, start={})])
    line = chart["lines"][0]
    assert len(line["x"]) == 200 and line["x"][1] == 5 and line["y"][1] == 7.0
