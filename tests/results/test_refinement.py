"""Chains of answers, added up: what is mended, spoilt, unchanged, without code."""

import math

import pytest

from stepcoder_jax.records import Verdict
from stepcoder_jax.results.estimates import estimate_ratio
from stepcoder_jax.results.outcomes import Outcome
from stepcoder_jax.results.refinement import Chain, Link, add_up, as_json, describe

VERDICTS = {
    "p": Verdict.PASS,
    "w": Verdict.WRONG,
    "c": Verdict.COMPILE,
    "i": Verdict.INFRA,
}


def chain(task, letters, unchanged=(), cut=False, weak=False):
    """A letter for each answer; "c" is one without code."""
    links = [
        Link(Outcome(task, "easy", VERDICTS[x], weak=weak), x != "c", place in unchanged)
        for place, x in enumerate(letters)
    ]
    return Chain(tuple(links), cut)


CHAINS = [
    chain("a", "p"),
    chain("b", "wp"),
    chain("c", "wwp", unchanged=[1]),
    chain("d", "wc"),
    chain("e", "pw"),
    chain("f", "w", cut=True),
]


def test_shares_by_hand():
    found = add_up(CHAINS, 2, (1,))
    rates = [scores.pass_at_k["all"][1].value for scores in found.scores]
    assert rates == pytest.approx([2 / 6, 2 / 6, 3 / 6])
    # four were wrong at first, two right; one of these is spoilt at once
    assert [x.value for x in found.mended] == pytest.approx([0, 1 / 4, 2 / 4])
    assert [x.value for x in found.spoilt] == pytest.approx([0, 1 / 2, 1 / 2])
    assert (found.answers, found.cut) == (5, 1)
    assert found.without_code.value == pytest.approx(1 / 5)
    assert found.unchanged.value == pytest.approx(1 / 4)
    mended = found.mended[2]
    assert 0 <= mended.low < mended.value < mended.high <= 1


def test_what_it_says():
    text = describe(add_up(CHAINS, 2, (1,)))
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:5]] == [
        *("first answer", "after round 1", "after round 2"),
    ]
    assert "5 later answers: 20.0 [" in text and "25.0 [" in text
    assert "1 chains were cut by the length of the prompt." in text
    tree = as_json(add_up(CHAINS, 2, (1,)))
    assert tree["after"][2]["pass@1"]["value"] == pytest.approx(0.5)
    assert tree["after"][0]["mended"] == {"value": 0.0, "low": None, "high": None}


def test_our_own_failures_and_weak_ones_count_in_no_share():
    more = [*CHAINS, chain("g", "wi"), chain("h", "wp", weak=True)]
    found, known = add_up(more, 2, (1,)), add_up(CHAINS, 2, (1,))
    assert found.mended == known.mended and found.answers == known.answers
    assert found.scores[0].pass_at_k and not found.scores[1].pass_at_k
    assert found.scores[1].infra == 1 and found.scores[0].weak == 1
    assert "| after round 1 |" in describe(found)


def test_nothing_to_tell():
    found = add_up([chain("a", "p"), chain("b", "p")], 1, (1,))
    assert math.isnan(found.mended[1].value) and math.isnan(found.unchanged.value)
    assert found.spoilt[1].value == 0 and "0 later answers: - % without" in describe(found)
    assert as_json(found)["unchanged"] == {"value": None, "low": None, "high": None}


def test_samples_of_one_problem_stay_together():
    """The interval of a ratio: 1 of 2 in each of 40 problems has none, 20 of 40 one."""
    even = estimate_ratio([1] * 40, [2] * 40)
    assert even.value == 0.5 and math.isnan(even.low)
    apart = estimate_ratio([2] * 20 + [0] * 20, [2] * 40)
    # standard error sqrt(.25 / 40) = .079
    assert apart.value == 0.5
    assert apart.low == pytest.approx(0.5 - 1.96 * 0.079, abs=0.02)
    assert apart.high == pytest.approx(0.5 + 1.96 * 0.079, abs=0.02)
    unequal = estimate_ratio([1, 0, 0], [1, 0, 3])
    assert unequal.value == 0.25 and 0 <= unequal.low < unequal.high <= 1
