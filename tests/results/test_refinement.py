"""Chains of answers, added up: what is mended, spoilt, unchanged, without code."""

import math

import pytest

from stepcoder_jax.records import Verdict
from stepcoder_jax.results.chains import Chain, End, Link
from stepcoder_jax.results.estimates import estimate_ratio
from stepcoder_jax.results.outcomes import Outcome
from stepcoder_jax.results.refinement import add_up, as_json, describe

VERDICTS = {
    "p": Verdict.PASS,
    "w": Verdict.WRONG,
    "c": Verdict.COMPILE,
    "i": Verdict.INFRA,
}


def chain(task, letters, unchanged=(), end=End.ROUNDS, weak=False, holds=()):
    """A letter for each answer; "c" is one without code."""
    links = [
        Link(
            Outcome(task, "easy", VERDICTS[x], weak=weak),
            has_code=x != "c",
            is_unchanged=place in unchanged,
            similar=place / 2 if x != "c" else 0.0,
            holds_expected=place in holds,
            variant="direct" if place else "",
            without_code=x == "c",
        )
        for place, x in enumerate(letters)
    ]
    return Chain(tuple(links), end)


CHAINS = [
    chain("a", "p"),
    chain("b", "wp"),
    chain("c", "wwp", unchanged=[1], holds=[0, 2]),
    chain("d", "wc"),
    chain("e", "pw"),
    chain("f", "w", end=End.LENGTH),
]


def test_shares_by_hand():
    found = add_up(CHAINS, 2, (1,))
    rates = [x.scores.pass_at_k["all"][1].value for x in found.after]
    assert rates == pytest.approx([2 / 6, 2 / 6, 3 / 6])
    # four were wrong at first, two right; one of these is spoilt at once
    assert [x.mended.value for x in found.after] == pytest.approx([0, 1 / 4, 2 / 4])
    assert [x.spoilt.value for x in found.after] == pytest.approx([0, 1 / 2, 1 / 2])
    assert found.answers == 5 and [x.answers for x in found.after] == [6, 4, 1]
    assert found.ends == {End.ROUNDS: 5, End.LENGTH: 1}
    assert found.without_code.value == pytest.approx(1 / 5)
    assert found.unchanged.value == pytest.approx(1 / 4)
    assert [x.without_code.value for x in found.after] == pytest.approx([0, 1 / 4, 0])
    assert [x.unchanged.value for x in found.after] == pytest.approx([0, 1 / 3, 0])
    assert [x.similar.value for x in found.after] == pytest.approx([0, 1 / 2, 1])
    assert found.similar.value == pytest.approx((3 / 2 + 1) / 4)
    assert [x.holding.value for x in found.after] == pytest.approx([1 / 6, 0, 1])
    assert [x.variants for x in found.after] == [{"": 6}, {"direct": 4}, {"direct": 1}]
    mended = found.after[2].mended
    assert 0 <= mended.low < mended.value < mended.high <= 1


def test_what_it_says():
    text = describe(add_up(CHAINS, 2, (1,)))
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:5]] == [
        *("first answer", "after round 1", "after round 2"),
    ]
    assert "5 later answers: 20.0 [" in text and "25.0 [" in text
    assert "Why chains ended: rounds are over 5, prompt too long 1." in text
    assert "Taken: direct 5." in text and "| set " not in text
    tree = as_json(add_up(CHAINS, 2, (1,)))
    assert tree["after"][2]["pass@1"]["value"] == pytest.approx(0.5)
    assert tree["after"][0]["mended"] == {"value": 0.0, "low": None, "high": None}
    assert tree["ends"] == {"rounds are over": 5, "prompt too long": 1}


def test_sets_of_problems_and_their_mean():
    chains = [chain(f"one/{i}", "wp" if i else "ww") for i in range(4)]
    chains += [chain("two/9", "ww"), chain("two/8", "p"), chain("three/1", "p")]
    found = add_up(chains, 1, (1,))
    values = {name: share.value for name, share in found.by_set.items()}
    assert values["one"] == 0.75 and values["two"] == 0 and math.isnan(values["three"])
    assert found.after[1].mended.value == pytest.approx(3 / 5)  # micro
    (line,) = [x for x in describe(found).splitlines() if "mean of the sets" in x]
    assert line.split("|")[2].strip() == "37.5"
    assert as_json(found)["mended_by_set"]["three"]["value"] is None


def test_our_own_failures_and_weak_ones_count_in_no_share():
    more = [*CHAINS, chain("g", "wi", end=End.INFRA), chain("h", "wp", weak=True)]
    # the judge failed on the visible tests alone
    more.append(chain("i", "w", end=End.INFRA))
    found, known = add_up(more, 2, (1,)), add_up(CHAINS, 2, (1,))
    assert [x.mended for x in found.after] == [x.mended for x in known.after]
    assert found.answers == known.answers and found.by_set == known.by_set
    first, second, _ = (each.scores for each in found.after)
    assert first.pass_at_k and not second.pass_at_k
    assert second.infra == 1 and first.weak == 1
    text = describe(found)
    assert "| after round 1 |" in text and "not judged (infra) 2." in text
    assert "Equal budget: none, for 2 chains were not judged (infra)." in text


def test_nothing_to_tell():
    found = add_up([chain("a", "p"), chain("b", "p")], 1, (1,))
    _, after = found.after
    assert math.isnan(after.mended.value) and math.isnan(found.unchanged.value)
    assert after.spoilt.value == 0 and "0 later answers: - % without" in describe(found)
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
