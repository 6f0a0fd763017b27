"""What runs with several seeds allow one to say: means of curves, paired comparisons.

The unit of chance is the seed: one number per run, and runs of two arms with the same seed
are a pair. All intervals are of 95 %.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from stepcoder_jax.records import InputError
from stepcoder_jax.results.estimates import Difference, Estimate

MOST_FLIPPED = 20  # seeds: 2^20 sign patterns
_ROUNDING = 1e-9  # of sums that are equal but for the order of their terms
_ROWS = 1 << 12  # sign patterns at a time


def t_interval(values: Sequence[float]) -> Estimate:
    """The mean and Student's interval, mean +- t(.975, n - 1) s / sqrt(n).

    s is the unbiased standard deviation. The interval is nan for fewer than two values, and
    for equal ones, which know no spread.
    """
    from scipy.special import stdtrit

    found = np.asarray(values, float)
    if not found.size:
        return Estimate(math.nan, math.nan, math.nan)
    mean = float(found.mean())
    if found.size < 2 or np.ptp(found) <= _ROUNDING:
        return Estimate(mean, math.nan, math.nan)
    half = stdtrit(found.size - 1, 0.975) * found.std(ddof=1) / math.sqrt(found.size)
    return Estimate(mean, mean - float(half), mean + float(half))


def sign_flip(differences: Sequence[float]) -> float:
    """The exact two-sided p-value of "each difference had the same chance of either sign".

    The share of all 2^n patterns of signs whose sum is as far from 0 as the one seen
    (Fisher 1935, section 21), itself included: at least 2 / 2^n. nan for no difference;
    InputError for more than MOST_FLIPPED.
    """
    found = np.asarray(differences, float)
    if found.size > MOST_FLIPPED:
        raise InputError(
            f"sign_flip: expected at most {MOST_FLIPPED} differences (all 2^n patterns of "
            f"signs are tried), got {found.size}"
        )
    if not found.size:
        return math.nan
    seen, far = abs(found.sum()), 0
    scale = max(1.0, float(np.abs(found).sum()))
    patterns = itertools.product((1.0, -1.0), repeat=found.size)
    while block := list(itertools.islice(patterns, _ROWS)):
        sums = np.abs(np.array(block) @ found)
        far += int(np.count_nonzero(sums >= seen - _ROUNDING * scale))
    return far / 2**found.size


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family, adjusted so that it errs once in 20 at .05 (Holm 1979).

    In ascending order p_(i) becomes max over j <= i of min(1, (m - j + 1) p_(j)), with j
    from 1 and m the size of the family. One that is nan, for want of runs, stays nan and
    still counts in m: the family was fixed before.
    """
    adjusted, least = [math.nan] * len(p_values), 0.0
    known = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def paired_seeds(before: Sequence[float], after: Sequence[float]) -> Difference:
    """after - before over the same seeds, in the same order: `t_interval`, `sign_flip`."""
    changes = np.asarray(after, float) - np.asarray(before, float)
    mean, low, high = t_interval(changes.tolist())
    return Difference(mean, low, high, sign_flip(changes.tolist()))


def curve_mean(places: Sequence[float], values: Sequence[float], end: float) -> float:
    """The mean height of a curve from 0 to `end`, by trapezoid: its integral over `end`.

    `places` ascend: budgets spent (generated tokens, rollouts) at which `values` were
    measured. Between two of them the curve is a straight line. The first must be 0, what
    was measured before learning. The last must be at or beyond `end`: a run stops after
    the iteration that reaches its budget, so the line to that point is cut at `end`.
    InputError where a curve does not span 0 to `end`: it is not drawn on.
    """
    at, height = np.asarray(places, float), np.asarray(values, float)
    if end <= 0 or not at.size or at[0] != 0 or at[-1] < end or np.any(np.diff(at) <= 0):
        spans = f"{at[0]:g} to {at[-1]:g}" if at.size else "nothing"
        raise InputError(
            f"curve_mean: expected ascending places that span 0 to {end:g}, got {spans}"
        )
    inside = at < end
    at, height = (
        np.append(at[inside], end),
        np.append(height[inside], np.interp(end, at, height)),
    )
    return float(np.sum(np.diff(at) * (height[1:] + height[:-1])) / 2 / end)
