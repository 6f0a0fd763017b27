"""pass@k, intervals and paired differences: golden values, identities, properties."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder_jax.records import InputError
from stepcoder_jax.results import estimates
from stepcoder_jax.results.estimates import (
    estimate,
    mcnemar,
    normal_difference,
    paired_difference,
    pass_at_k,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [
        (1, 1, 1, 1.0),
        (1, 0, 1, 0.0),
        (5, 2, 1, 2 / 5),
        (5, 2, 2, 1 - 3 / 10),  # C(3, 2) / C(5, 2)
        (10, 3, 5, 1 - 21 / 252),  # C(7, 5) / C(10, 5)
        (5, 2, 4, 1.0),  # of any four samples one passed
        (5, 0, 5, 0.0),
    ],
)
def test_pass_at_k_by_hand(n, c, k, value):
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize(("n", "k"), [(6, 1), (6, 2), (6, 3), (6, 6)])
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(n, k):
    for c in range(n + 1):
        passed = [i < c for i in range(n)]
        picks = [any(pick) for pick in itertools.combinations(passed, k)]
        assert pass_at_k(n, c, k) == pytest.approx(np.mean(picks), abs=1e-12)


@given(st.integers(1, 400), st.data())
def test_pass_at_k_is_that_of_the_binomials(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-9)
    assert pass_at_k(n, c, 1) == pytest.approx(c / n, abs=1e-9)
    if k < n:
        assert pass_at_k(n, c, k + 1) >= pass_at_k(n, c, k) - 1e-12
    if c < n:
        assert pass_at_k(n, c + 1, k) >= pass_at_k(n, c, k) - 1e-12


@pytest.mark.parametrize(("n", "k"), [(5, 6), (5, 0), (0, 1)])
def test_a_k_that_the_samples_cannot_tell(n, k):
    with pytest.raises(InputError, match=f"pass@{k}: expected k from 1 to the {n} samples"):
        pass_at_k(n, 0, k)


def test_the_interval_is_that_of_the_binomial_where_scores_are_0_and_1():
    """Resampled means of 40 of 100 are Bin(100, 0.4) / 100: sd 0.049, 95 % 0.30 to 0.50."""
    found = estimate([1.0] * 40 + [0.0] * 60)
    assert found.value == 0.4
    assert found.low == pytest.approx(0.30, abs=0.011)
    assert found.high == pytest.approx(0.50, abs=0.011)


def test_the_seed_decides_and_nothing_else(monkeypatch):
    values = np.random.default_rng(0).random(30)
    first = estimates.bootstrap_means(values, 1)
    assert first.shape == (estimates.RESAMPLES,)
    assert (first == estimates.bootstrap_means(values, 1)).all()
    assert (first != estimates.bootstrap_means(values, 2)).any()
    assert first.mean() == pytest.approx(values.mean(), abs=0.01)
    assert first.std() == pytest.approx(values.std() / math.sqrt(30), rel=0.05)
    monkeypatch.setattr(estimates, "_DRAWS", 100)  # 3 resamples at a time, 1 at the end
    assert (first == estimates.bootstrap_means(values, 1)).all()


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=6))
def test_intervals_are_in_the_range_of_the_scores(values):
    value, low, high = estimate(values)
    assert value == pytest.approx(np.mean(values))
    if len(set(values)) == 1:
        assert math.isnan(low) and math.isnan(high)
    else:
        assert min(values) <= low <= high <= max(values)


def test_paired_differences_by_enumeration():
    """Changes 1, 1, 0: all 27 resamples in place of random ones.

    Mean 2/3. Of the centred means -2/3, -1/3, 0, 1/3 (1, 6, 12, 8 of 27) one is as far
    from 0 as 2/3.
    """
    found = paired_difference([0, 0, 1], [1, 1, 1])
    assert found.change == pytest.approx(2 / 3)
    assert (found.low, found.high) == (0.0, 1.0)
    assert found.p == pytest.approx(1 / 27, abs=0.006)


def test_pairing_counts():
    """The same shares, 50 and 60 of 100, but 10 changed problems or 90 of them."""
    before = [1.0] * 50 + [0.0] * 50
    steady = paired_difference(before, [1.0] * 60 + [0.0] * 40)
    wild = paired_difference(before, [0.0] * 40 + [1.0] * 60)
    assert steady.change == wild.change == pytest.approx(0.1)
    assert steady.low > 0.03 and steady.p < 0.01
    assert wild.low < -0.05 and wild.p > 0.2


def test_nothing_changed_or_all_alike():
    same = paired_difference([1, 0, 1], [1, 0, 1])
    assert same.change == 0 and same.p == 1 and math.isnan(same.low)
    alike = paired_difference([0, 0], [1, 1])
    assert alike.change == 1 and math.isnan(alike.p) and math.isnan(alike.high)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=12))
def test_turning_the_pair_turns_the_sign(pairs):
    before, after = zip(*pairs)
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert there.change == -back.change
    if not math.isnan(there.low):
        assert there.low == pytest.approx(-back.high)
        assert there.p == back.p and 0 < there.p <= 1


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (4, 4, 1.0),
        (6, 15, 0.0784),  # 2 x 82160 / 2^21
    ],
)
def test_mcnemar_by_hand(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p, abs=5e-5)


def test_mcnemar_of_many_problems():
    assert mcnemar(1000, 1000) == 1.0
    assert 0 < mcnemar(1000, 1200) < 1e-4


def test_wilson_by_hand():
    # 5 of 10: centre 0.5, reach (1.96 sqrt(0.025 + 0.9604 / 100)) / 1.38416 = 0.2634.
    low, high = wilson_interval(5, 10)
    assert (low, high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(0, 20)
    assert low == pytest.approx(0.0, abs=1e-12) and 0.1 < high < 0.2


def test_normal_difference_by_hand():
    # Changes 1, 0, 0, 1: mean 0.5, unbiased variance 1/3, half 1.96 sqrt(1/3 / 4).
    change, half = normal_difference([0, 0, 1, 0], [1, 0, 1, 1])
    assert change == 0.5 and half == pytest.approx(1.96 * math.sqrt(1 / 12))
    assert normal_difference([1, 0], [1, 0]) == (0.0, 0.0)
    assert math.isnan(normal_difference([0], [1])[1])


def test_wilson_intervals_stay_between_0_and_1():
    for total in range(1, 60):
        assert 0 <= wilson_interval(0, total)[0] < 1e-9
        assert 1 - 1e-9 < wilson_interval(total, total)[1] <= 1
