"""Chains against as many independent samples, by hand."""

import itertools
import math

import pytest

from stepcoder_jax.records import Verdict
from stepcoder_jax.results import budget
from stepcoder_jax.results.chains import Chain, End, Link
from stepcoder_jax.results.estimates import paired_difference
from stepcoder_jax.results.outcomes import Outcome

# P passes all tests, p all but the visible ones, v the visible ones alone, w none
RIGHT, SEEN = "Pp", "Pv"


def chain(task, letters, answers=1, **about):
    links = [
        Link(
            Outcome(task, "easy", Verdict.PASS if x in RIGHT else Verdict.WRONG, **about),
            passes_visible=x in SEEN,
            answers=answers if place else 1,
        )
        for place, x in enumerate(letters)
    ]
    return Chain(tuple(links))


def chains_of(task, *scripts, **about):
    return [chain(task, letters, **about) for letters in scripts]


A = chains_of("a", "wP", "P", "v", "www")
B = chains_of("b", "ww", "wP", "wwP", "wwww")
C = chains_of("c", "p", "v", "wPw", "w")


def by_hand(letters, k, rule):
    """Over all choices of k in all orders: whether one is right, or the chosen one."""
    found = []
    for some in itertools.permutations(letters, k):
        chosen = next((x for x in some if x in SEEN), some[0])
        found.append(any(x in RIGHT for x in some) if rule == "any" else chosen in RIGHT)
    return sum(found) / len(found)


def test_the_table_by_hand():
    found = budget.compare([*A, *B, *C], 3)
    assert [(x.rounds, x.answers, x.rule) for x in found.rows] == [
        (place, 1 + place, rule) for place in (1, 2, 3) for rule in ("any", "chosen")
    ]
    assert found.why == ""
    firsts = {name: [x[0] for x in some] for name, some in FIRSTS.items()}
    # of 4 chains each: right after round 1, 2, 3, and right at some time
    last = {"a": [2, 2, 2], "b": [1, 2, 2], "c": [2, 1, 1]}
    once = {"a": [2, 2, 2], "b": [1, 2, 2], "c": [2, 2, 2]}
    for row in found.rows:
        of = once if row.rule == "any" else last
        chain = [of[name][row.rounds - 1] / 4 for name in "abc"]
        samples = [by_hand(firsts[name], row.answers, row.rule) for name in "abc"]
        assert row.chain == pytest.approx(sum(chain) / 3)
        assert row.samples == pytest.approx(sum(samples) / 3)
        expected = paired_difference(samples, chain)
        assert row.difference.change == pytest.approx(expected.change)
        assert row.difference.low == pytest.approx(expected.low)
    # a: 2 1 1 2, b: 2 2 2 2, c: 1 1 2 1
    assert found.rows[0].drawn == pytest.approx(19 / 12)


FIRSTS = {"a": ["wP", "P", "v", "www"], "b": ["ww"] * 4, "c": ["p", "v", "w", "w"]}


def test_both_variants_are_set_against_twice_as_many():
    some = chains_of("a", *["wP"] * 7, answers=2) + chains_of("b", *["w"] * 8)
    found = budget.compare(some, 3, variants=2)
    assert [x.answers for x in found.rows[::2]] == [3, 5, 7]
    assert found.rows[0].drawn == pytest.approx((3 + 1) / 2)


def test_what_cannot_be_told():
    found = budget.compare([*A, *B[:2]], 3)
    assert [x.answers for x in found.rows] == [2, 2]
    assert found.why.startswith("against 3 and 4 samples: none, for the problems have 2;")
    text = budget.describe(found)
    assert "give --samples-per-problem 4." in text and "first + 1, chosen" in text
    for some in ([chain("a", "wP"), chain("b", "w")], []):
        found = budget.compare(some, 1)
        assert found.rows == [] and "against 2 samples: none" in budget.describe(found)
    failed = Chain((Link(Outcome("d", "easy", Verdict.WRONG)),), End.INFRA)
    assert budget.compare([*A, failed], 1).rows == []
    assert "1 chains were not judged" in budget.describe(budget.compare([*A, failed], 1))


def test_weak_chains_count_nowhere():
    weak = chains_of("w", *["P"] * 4, weak=True)
    assert budget.compare([*A, *weak], 3) == budget.compare(A, 3)


def test_numbers():
    rows = budget.as_json(budget.compare(A, 1))["rows"]
    assert rows[0]["answers"] == 2 and rows[0]["rule"] == "any"
    # one problem: no interval
    assert rows[0]["low"] is None and rows[0]["change"] is not None
    assert not any(isinstance(x, float) and math.isnan(x) for x in rows[0].values())
