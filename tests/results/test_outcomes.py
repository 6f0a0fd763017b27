"""Judged samples, added up."""

import json

import pytest

from stepcoder_jax.records import InputError, Verdict
from stepcoder_jax.results import outcomes
from stepcoder_jax.results.estimates import estimate
from stepcoder_jax.results.outcomes import Outcome
from stepcoder_jax.results.taxonomy import Bug, Share

P, W, R, C = Verdict.PASS, Verdict.WRONG, Verdict.RUNTIME, Verdict.COMPILE
I = Verdict.INFRA  # noqa: E741


def make(task, *verdicts, difficulty="easy", **fields):
    return [Outcome(task, difficulty, verdict, **fields) for verdict in verdicts]


ROWS = [
    *make("a", P, W, W, P),
    *make("b", P, P, P, P),
    *make("c", W, R, C, Verdict.TIMEOUT, difficulty="hard", bug=Bug.BOUNDARY),
]


def test_counts_and_scores_by_problem():
    assert outcomes.counts(ROWS) == {"a": (4, 2), "b": (4, 4), "c": (4, 0)}
    # of the 6 pairs of a's samples, one has two failures
    assert outcomes.problem_scores(ROWS, 2) == {"a": pytest.approx(5 / 6), "b": 1, "c": 0}


def test_scores_by_difficulty():
    scores = outcomes.score(ROWS, (1, 2))
    assert list(scores.pass_at_k) == ["easy", "hard", "all"]
    assert scores.pass_at_k["easy"][1].value == 0.75
    assert scores.pass_at_k["all"][1] == estimate([0.5, 1, 0])
    assert scores.pass_at_k["all"][2].value == pytest.approx((5 / 6 + 1) / 3)
    assert scores.group_sizes == {"easy": 2, "hard": 1, "all": 3}
    assert scores.shares["all"] == {
        Share.COMPILE: 1,
        Share.RUNTIME: 2,
        Share.FAILURE: 3,
        Share.PASS: 6,
    }
    assert scores.bugs == {Bug.BOUNDARY: 4}
    assert (scores.problems, scores.samples, scores.infra) == (3, 12, 0)


def test_one_difficulty_is_told_once():
    assert list(outcomes.score(make("a", P), (1,)).pass_at_k) == ["all"]


def test_infra_leaves_no_pass_at_k():
    scores = outcomes.score([*ROWS, *make("d", I, P)], (1,))
    assert scores.infra == 1 and scores.pass_at_k == {}
    text = outcomes.describe(scores)
    assert text.startswith("pass@k: none, for 1 samples were not judged (infra)")
    assert "pass@1" not in text
    with pytest.raises(InputError, match=r"1 samples were not judged .* one of d"):
        outcomes.require_judged([*ROWS, *make("d", I, P)])
    outcomes.require_judged(ROWS)


def test_weak_outcomes_count_nowhere():
    rows = [*ROWS, *make("d", P, P, weak=True, truncated=True), *make("e", I, weak=True)]
    with_weak, without = outcomes.score(rows, (1,)), outcomes.score(ROWS, (1,))
    assert with_weak == without._replace(weak=3)
    assert "3 more, graded within reach" in outcomes.describe(with_weak)


def test_unfaithful_outcomes_count_as_failed_and_are_told():
    rows = [*ROWS, *make("d", Verdict.WRONG, unfaithful=True)]
    scores = outcomes.score(rows, (1,))
    assert scores == outcomes.score([*ROWS, *make("d", Verdict.WRONG)], (1,))._replace(
        unfaithful=1
    )
    assert "1 failed as unfaithful" in outcomes.describe(scores)
    assert outcomes.as_json(scores)["unfaithful"] == 1


def test_nothing_but_weak_outcomes_is_told_too():
    scores = outcomes.score(make("d", P, weak=True), ())
    assert "0 samples of 0 problems" in outcomes.describe(scores)


def test_ks():
    assert outcomes.choose_ks({"a": 12, "b": 10}, ()) == (1, 5, 10)
    assert outcomes.choose_ks({"a": 1}, ()) == (1,)
    assert outcomes.choose_ks({"a": 4, "b": 3}, (3, 2, 3)) == (2, 3)
    with pytest.raises(InputError, match=r"pass@4 needs 4 samples .* b has 3"):
        outcomes.choose_ks({"a": 4, "b": 3}, (1, 4))
    with pytest.raises(InputError, match="expected numbers from 1 on, got 0"):
        outcomes.choose_ks({"a": 4}, (0,))


def test_tables():
    rows = [*ROWS, *make("d", W, W, W, W, truncated=True)]
    lines = outcomes.describe(outcomes.score(rows, (1,))).splitlines()
    assert lines[0].split(" | ")[0].startswith("|")
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        "",
        "problems",
        "pass@1, % [95 %]",
    ]
    assert set(lines[1]) <= set("|-: ")
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells == ["hard", "1", "0.0 [-]"]
    assert lines[4].split("|")[3].strip().startswith("37.5 [")
    assert len({len(line) for line in lines[:5]}) == 1
    assert [c.strip() for c in lines[10].split("|")[1:-1]] == [
        "all",
        "6.2",
        "12.5",
        "43.8",
        "37.5",
    ]
    assert "| B.3 incorrect boundary condition check |       4 |" in lines
    assert lines[-1] == (
        "16 samples of 4 problems, 4 of them truncated by the length limit."
    )


def test_json_has_no_nan():
    text = json.dumps(outcomes.as_json(outcomes.score(ROWS, (1, 4))), allow_nan=False)
    found = json.loads(text)
    hard = found["pass_at_k"]["hard"]
    assert hard["problems"] == 1
    assert hard["pass@4"] == {"value": 0.0, "low": None, "high": None}
    assert found["pass_at_k"]["all"]["pass@1"]["value"] == 0.5
    assert found["shares"]["easy"]["pass"] == 6 and found["truncated"] == 0
    assert found["bugs"] == {"B.3 incorrect boundary condition check": 4}
