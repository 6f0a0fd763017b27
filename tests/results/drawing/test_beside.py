"""Curves of other runs: read strictly, told at as many tokens, drawn beside."""

import json
import math

import pytest

from stepcoder_jax.config import ConfigError
from stepcoder_jax.results.drawing import beside, curves

RUNS = [
    {"seed": 0, "tokens": [0, 1000, 3000], "values": [0.0, 0.2, 0.4]},
    {"seed": 1, "tokens": [0, 2000], "values": [0.1, 0.3]},
]
GOOD = {"name": "vanilla PPO", "metric": "validation/pass@1", "runs": RUNS}


def write(folder, found):
    path = folder / "beside.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return path


def test_means_at_as_many_tokens(tmp_path):
    found = beside.read(write(tmp_path, GOOD))
    assert found.at(0) == pytest.approx(0.05)
    assert found.at(1000) == pytest.approx((0.2 + 0.2) / 2)
    assert found.at(2000) == pytest.approx((0.3 + 0.3) / 2)
    assert math.isnan(found.at(2001))  # one of them had ended
    assert found.tell(1000, 0.5) == (
        "validation/pass@1 0.500 after 1 thousand tokens; vanilla PPO had 0.200 (2 seeds)"
    )
    assert found.tell(2500, 0.5).endswith("; vanilla PPO ended before (2 seeds)")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("{", "cannot be read (no JSON)"),
        ([], "expected an object of metric, name, runs, got []"),
        (GOOD | {"seed": 0}, "expected an object of metric, name, runs"),
        (GOOD | {"runs": []}, "expected at least one of `runs`, got []"),
        (GOOD | {"runs": [{"seed": 0}]}, "expected runs[0] with seed, tokens, values"),
        (GOOD | {"runs": [RUNS[0] | {"seed": "a"}]}, "a whole number as seed of runs[0]"),
        (GOOD | {"runs": [RUNS[0] | {"values": ["a"]}]}, "expected numbers in runs[0]"),
        (GOOD | {"runs": [RUNS[0] | {"values": [0.1]}]}, "as many finite tokens as values"),
        (
            GOOD | {"runs": [RUNS[0], RUNS[1] | {"values": [0.1, math.nan]}]},
            "as many finite tokens as values in runs[1]",
        ),
        (
            GOOD | {"runs": [RUNS[1] | {"tokens": [0, 0]}]},
            "tokens that rise from 0 or more",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, found, said):
    path = write(tmp_path, found)
    with pytest.raises(ConfigError) as error:
        beside.read(path)
    message = str(error.value)
    assert message.startswith(f"evaluation.beside: {path}") and "\n" not in message
    assert said in message, message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read .No such file"):
        beside.read(tmp_path / "none.json")


def test_own_points_are_those_that_were_measured():
    rows = [
        {"step": 0, beside.TOKENS: 10, "m": None},
        {"step": 1, beside.TOKENS: 25, "m": 0.5},
        {"step": 2, beside.TOKENS: None, "m": 0.6},
    ]
    assert beside.own(rows, {"m": 0.1}, "m") == ([0, 25], [0.1, 0.5])
    assert beside.own(rows, {}, "m") == ([25], [0.5])


def test_the_picture_has_one_panel_more(tmp_path):
    rows = [
        {"step": i, "reward": 0.1, beside.TOKENS: 500 * i, "validation/pass@1": i / 9}
        for i in range(9)
    ]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    others = beside.read(write(tmp_path, GOOD))
    sizes = []
    for shown in (None, others):
        out = curves.draw(metrics, tmp_path / "curves.png", "a run", others=shown)
        sizes.append(int.from_bytes(out.read_bytes()[16:20]))  # the width
    assert sizes[1] == pytest.approx(1.5 * sizes[0], abs=2)  # three columns, not two
