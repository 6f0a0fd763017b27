"""The picture of a run: what is drawn, where, and that nothing lies over the data."""

import json

import numpy as np
import pytest

from stepcoder_jax.results.drawing import curves
from stepcoder_jax.results.drawing.curves import RL_PANELS, SFT_PANELS, Panel


def test_find_series_follows_patterns_and_skips_gaps():
    rows = [
        {"step": 0, "fgo/masked": 0.1, "fgo/masked_pass": 0.0, "kl": None},
        {"step": 1, "fgo/masked": 0.2, "kl": 0.5, "name": "text"},
    ]
    found = curves.find_series(rows, ("kl", "fgo/masked*", "name"))
    assert list(found) == ["kl", "fgo/masked", "fgo/masked_pass"]
    assert [array.tolist() for array in found["kl"]] == [[1.0], [0.5]]
    assert [array.tolist() for array in found["fgo/masked"]] == [[0, 1], [0.1, 0.2]]


def test_smooth_is_a_centred_mean():
    values = np.array([0.0, 3.0, 6.0, 0.0])
    np.testing.assert_allclose(curves.smooth(values, 3), [1.5, 3.0, 3.0, 3.0])
    np.testing.assert_allclose(curves.smooth(np.full(30, 0.4), 7), 0.4)
    np.testing.assert_allclose(curves.smooth(values, 1), values)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_curves_draw_what_is_there(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        {
            "step": step,
            "pass_rate": step / 40,
            "reward": -0.3,
            "seconds/sample": 1.0,
            "seconds/update": 2.0,
            **({"validation/pass@1": 0.3} if step % 10 == 0 else {}),
        }
        for step in range(40)
    ]
    write_rows(tmp_path / "metrics.jsonl", rows)
    out = curves.draw(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "a run")
    data = out.read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 10_000
    small = curves.draw(
        tmp_path / "metrics.jsonl",
        tmp_path / "one.png",
        "one",
        [Panel("Reward", ("reward",))],
    )
    assert int.from_bytes(small.read_bytes()[16:20]) < int.from_bytes(data[16:20])


def test_curves_of_one_iteration_and_of_none(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "metrics.jsonl"
    write_rows(path, [{"step": 0, "pass_rate": 0.5, "seconds/sample": 1.0}])
    assert curves.draw(path, tmp_path / "a.png", "short").exists()
    write_rows(path, [{"step": 0}])
    with pytest.raises(ValueError, match=r"metrics.jsonl: no metric to draw in its 1 rows"):
        curves.draw(path, tmp_path / "b.png", "empty")


def test_places_count_the_updates_that_the_model_had_seen():
    rows = [
        {"step": 0, "pass_rate": 0.25, "validation/pass@1": None},
        {"step": 1, "pass_rate": 0.5, "validation/pass@1": 0.75},
    ]
    start = {"validation/pass@1": 0.125, "validation/pass@1_hard": None}
    found = curves.find_series(rows, ("pass_rate", "validation/pass*"), start)
    assert [array.tolist() for array in found["pass_rate"]] == [[0, 1], [0.25, 0.5]]
    validation = [array.tolist() for array in found["validation/pass@1"]]
    assert validation == [[0, 2], [0.125, 0.75]]


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """Draw rows and return matplotlib's figure, as it was saved."""
    pytest.importorskip("matplotlib")
    from matplotlib import figure as library

    kept = []
    save = library.Figure.savefig
    monkeypatch.setattr(
        library.Figure,
        "savefig",
        lambda self, *args, **named: (save(self, *args, **named), kept.append(self))[0],
    )

    def draw(rows, start=None, panels=RL_PANELS, unit="iteration"):
        write_rows(tmp_path / "metrics.jsonl", rows)
        if start:
            (tmp_path / "start.json").write_text(json.dumps(start))
        out = tmp_path / "curves.png"
        curves.draw(tmp_path / "metrics.jsonl", out, "a run", panels, unit)
        return kept[-1]

    return draw


def row_of(step, length=5):
    """A row with every metric of RL; shares at both ends of what they can be."""
    share = step / (length - 1)
    names = ("pass_rate", "cccs/stage0_share", "cccs/done_share", "grpo/equal_share")
    names += ("clip_fraction", "fgo/masked", "fgo/masked_pass", "validation/pass@1")
    names += ("value_rmse/pass", "cccs/given_share", "cccs/pass_rate_stage0")
    others = ("cccs/mean_stage", "kl", "entropy", "value_loss", "reward", "value", "return")
    seconds = dict.fromkeys(curves.SECONDS, 1.0)
    positive, free = dict.fromkeys(others[:4], share), dict.fromkeys(others[4:], -share)
    return {"step": step} | dict.fromkeys(names, share) | positive | free | seconds


def test_panels_of_a_run_of_rl(figure):
    drawn = figure([row_of(step) for step in range(5)], {"validation/pass@1": 0.0})
    axes = {one.get_title(loc="left"): one for one in drawn.axes}
    assert set(axes) == {panel.title for panel in RL_PANELS}
    assert {"Entropy", "Clipping", "Values"} <= set(axes)
    notes = {name: " ".join(t.get_text() for t in one.texts) for name, one in axes.items()}
    assert "code that was given is included" in notes["Rollouts: pass rate"]
    assert "before learning" in notes["Validation pass@1"]
    shares = [panel.title for panel in RL_PANELS if panel.bounds == (0, 1)]
    assert {"Validation pass@1", "Rollouts: pass rate", "Clipping"} <= set(shares)
    for panel in RL_PANELS:
        one = axes[panel.title]
        low, high = one.get_ylim()
        assert panel.bounds[0] <= low < high <= panel.bounds[1], panel.title
        ticks = [tick for tick in one.get_xticks() if 0 <= tick <= 5]
        assert ticks and all(float(tick).is_integer() for tick in ticks)
    assert len(axes["Rollouts: pass rate"].lines) == 2 * 2  # of all, and posed whole
    (points, _) = axes["Validation pass@1"].lines
    assert points.get_xdata().tolist() == [0, 1, 2, 3, 4, 5]
    labelled = [one for one in drawn.axes if one.get_xlabel() == "iteration"]
    assert len(labelled) == 3  # the lowest of each column


def test_legends_lie_beside_the_data(figure):
    drawn = figure([row_of(step) for step in range(5)])
    drawn.draw_without_rendering()
    boxes = [one.get_window_extent() for one in drawn.axes]
    for one in drawn.axes:
        legend = one.get_legend().get_window_extent()
        assert not any(legend.overlaps(box) for box in boxes), one.get_title(loc="left")
        assert legend.x1 <= drawn.bbox.x1


def test_a_value_that_cannot_be_is_shown(figure):
    rows = [{"step": step, "kl": step - 2.0} for step in range(5)]
    (axes,) = figure(rows).axes
    assert axes.get_ylim()[0] < -2
    rows = [{"step": step, "kl": step - 1e-9} for step in range(5)]
    (axes,) = figure(rows).axes
    assert axes.get_ylim()[0] == 0


def test_panels_of_a_run_of_sft(figure):
    rows = [
        {"step": step, "loss": 1.0, "learning_rate": 1e-3, "tokens_per_second": 9.0}
        for step in range(4)
    ]
    rows[-1]["validation/loss"] = 0.5
    drawn = figure(rows, {"validation/loss": 2.0}, SFT_PANELS, "update")
    axes = {one.get_title(loc="left"): one for one in drawn.axes}
    assert list(axes) == ["Loss", "Learning rate", "Tokens per second"]
    points = axes["Loss"].lines[2]
    names = [text.get_text() for text in axes["Loss"].get_legend().get_texts()]
    assert names == ["loss  1", "validation loss  0.5"]
    assert points.get_xdata().tolist() == [0, 4] and points.get_ydata().tolist() == [2, 0.5]
    assert {one.get_xlabel() for one in drawn.axes} == {"update"}
