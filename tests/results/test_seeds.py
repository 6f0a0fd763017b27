"""Means of curves and comparisons over seeds: values by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder_jax.records import InputError
from stepcoder_jax.results.seeds import (
    curve_mean,
    holm,
    paired_seeds,
    sign_flip,
    t_interval,
)


def test_students_interval_by_hand():
    # mean 3, s = sqrt(10 / 4), t(.975, 4) = 2.776445
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert t_interval([1, 2, 3, 4, 5]) == pytest.approx((3, 3 - half, 3 + half), abs=1e-5)
    # two values: t(.975, 1) = 12.7062, s / sqrt(2) = 1
    assert t_interval([0, 2]) == pytest.approx((1, 1 - 12.7062, 1 + 12.7062), abs=1e-4)


@pytest.mark.parametrize("values", [[7], [0.1, 0.1, 0.1]])
def test_values_that_know_no_spread_have_no_interval(values):
    mean, low, high = t_interval(values)
    assert mean == pytest.approx(values[0]) and math.isnan(low) and math.isnan(high)


def test_no_value_has_no_mean():
    assert all(map(math.isnan, t_interval([])))
    assert math.isnan(sign_flip([]))


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1], 1.0),  # +1 and -1 are as far
        ([1, 1, 1], 2 / 8),
        ([3, 2, -1], 4 / 8),  # sums 4, 6, 0, 2 and their negatives
        ([0.1] * 8, 2 / 256),
        ([0.0, 0.0], 1.0),
        # 0.1 + 0.2 and 0.3 differ by rounding alone: sums 0, 0.2, 0.4, 0.6
        ([0.1, 0.2, -0.3], 8 / 8),
    ],
)
def test_sign_flips_by_hand(differences, p):
    assert sign_flip(differences) == pytest.approx(p, abs=1e-15)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=7))
def test_sign_flips_are_counted_over_all_patterns(differences):
    seen = abs(sum(differences))
    sums = [
        abs(sum(sign * x for sign, x in zip(signs, differences)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    assert sign_flip(differences) == sum(total >= seen for total in sums) / len(sums)


def test_too_many_sign_patterns_are_refused():
    assert sign_flip([1.0] * 13) == 2 / 2**13  # more than one block of patterns
    with pytest.raises(InputError, match=r"at most 20 differences .* got 21"):
        sign_flip([1.0] * 21)


def test_holm_by_hand():
    # .01 x 4; .02 x 3; .03 x 2 = .06 as the one before; .4
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    # .01 x 3, though one of the three is unknown
    assert holm([math.nan, 0.01, 0.04]) == pytest.approx(
        [math.nan, 0.03, 0.08], nan_ok=True
    )
    assert holm([]) == []


def test_a_paired_comparison_takes_the_spread_of_the_seeds_out():
    before, after = [0.1, 0.5, 0.9], [0.2, 0.7, 0.9]
    # changes .1, .2, 0: mean .1, s .1, t(.975, 2) = 4.302653
    half = 4.302653 * 0.1 / math.sqrt(3)
    found = paired_seeds(before, after)
    assert found == pytest.approx((0.1, 0.1 - half, 0.1 + half, 0.5), abs=1e-6)


def test_the_mean_of_a_curve_by_hand():
    # trapezoids 10 x .1, 10 x .3, over 20
    assert curve_mean([0, 10, 20], [0, 0.2, 0.4], 20) == pytest.approx(0.2)
    # uneven: 10 x .1 + 30 x .3, over 40
    assert curve_mean([0, 10, 40], [0, 0.2, 0.4], 40) == pytest.approx(0.25)
    # the line to the last point, (10, .2) to (30, .6), is cut at 20, where it is .4
    assert curve_mean([0, 10, 30], [0, 0.2, 0.6], 20) == pytest.approx(0.2)
    # points beyond the end count for nothing but the line to the first of them
    assert curve_mean([0, 10, 30, 40], [0, 0.2, 0.6, 9], 20) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "places", [[], [5, 20], [0, 10], [0, 20, 20], [0, 30, 10, 40], [-1, 30]]
)
def test_a_curve_that_does_not_span_the_axis_is_refused(places):
    with pytest.raises(InputError, match="expected ascending places that span 0 to 20"):
        curve_mean(places, [0.5] * len(places), 20)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.floats(0.01, 1))
def test_the_mean_of_a_curve_is_that_of_its_line(values, share):
    places = np.arange(len(values)) * 100.0
    end = share * places[-1]
    fine = np.linspace(0, end, 20001)
    mean = np.interp(fine, places, values).mean()
    assert curve_mean(places, values, end) == pytest.approx(mean, abs=1e-3)
