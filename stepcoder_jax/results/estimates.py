"""What verdicts allow one to say: unbiased pass@k, intervals, paired differences.

The unit of chance is the problem: another benchmark of the same kind would have had other
problems. All intervals are of 95 %, and shares are in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stepcoder_jax.records import InputError

RESAMPLES = 10_000
_DRAWS = 1 << 20  # problems drawn at a time
_ROUNDING = 1e-12


class Estimate(NamedTuple):
    """A mean over problems and its interval; nan where the problems cannot tell one."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The mean of paired differences, its interval, and the p-value of "no difference"."""

    change: float
    low: float
    high: float
    p: float


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """The unbiased estimate that one of k samples passes (arXiv:2107.03374, eq. 1).

    1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n - c + 1..n} (1 - k / i), for n samples of
    which c passed; the product loses nothing where the binomials would overflow.
    InputError for a k that n samples cannot tell.
    """
    if not 1 <= k <= num_samples:
        raise InputError(f"pass@{k}: expected k from 1 to the {num_samples} samples")
    failed = num_samples - num_passed
    if failed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(failed + 1, num_samples + 1))


def bootstrap_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of RESAMPLES draws of len(values) problems with replacement, f64[RESAMPLES]."""
    values = np.asarray(values, float)
    generator = np.random.default_rng(seed)
    rows = max(1, _DRAWS // len(values))
    means = [
        values[generator.integers(len(values), size=(min(rows, left), len(values)))].mean(1)
        for left in range(RESAMPLES, 0, -rows)
    ]
    return np.concatenate(means)


def is_telling(values: np.ndarray) -> bool:
    """Whether resampling can show a spread: the problems are not all alike."""
    return bool(np.ptp(values) > _ROUNDING)


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean over problems and its percentile bootstrap interval (Efron 1979).

    `values` has one number per problem, at least one. Where all are equal, as when all
    passed, the bootstrap knows no spread and the interval is nan: it is not zero wide.
    """
    scores = np.asarray(values, float)
    if not is_telling(scores):
        return Estimate(float(scores.mean()), math.nan, math.nan)
    low, high = np.quantile(bootstrap_means(scores, seed), (0.025, 0.975))
    return Estimate(float(scores.mean()), float(low), float(high))


def estimate_ratio(
    counts: Sequence[float], totals: Sequence[float], seed: int = 0
) -> Estimate:
    """sum(counts) / sum(totals) over problems, and its percentile bootstrap interval.

    Both have one number per problem, of which some total is above 0. A resample draws
    problems, so that samples of one problem stay together; one without any total tells
    nothing. The interval is nan where all problems with a total have one share.
    """
    upper, lower = np.asarray(counts, float), np.asarray(totals, float)
    value = float(upper.sum() / lower.sum())
    known = lower > 0
    if not is_telling(upper[known] / lower[known]):
        return Estimate(value, math.nan, math.nan)
    above, below = bootstrap_means(upper, seed), bootstrap_means(lower, seed)
    shares = above[below > 0] / below[below > 0]
    low, high = np.quantile(shares, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def paired_difference(
    before: Sequence[float], after: Sequence[float], seed: int = 0
) -> Difference:
    """The mean of after - before over the same problems, in the same order.

    Interval: percentile bootstrap over problems. p, two-sided: the share of resamples of
    the centred differences whose mean is as far from 0 as the one seen, (1 + count) /
    (1 + RESAMPLES) (Davison and Hinkley 1997, section 4.4). Where all differences are
    equal the interval is nan, and so is p unless they are 0, when it is 1.
    """
    changes = np.asarray(after, float) - np.asarray(before, float)
    change = float(changes.mean())
    if not is_telling(changes):
        return Difference(
            change, math.nan, math.nan, math.nan if abs(change) > _ROUNDING else 1.0
        )
    means = bootstrap_means(changes, seed)
    low, high = np.quantile(means, (0.025, 0.975))
    far = np.count_nonzero(np.abs(means - change) >= abs(change) - _ROUNDING)
    return Difference(change, float(low), float(high), (1 + far) / (1 + RESAMPLES))


def normal_difference(
    before: Sequence[float], after: Sequence[float]
) -> tuple[float, float]:
    """The mean of after - before over the same problems, and its half-width.

    half = 1.96 std(after - before, unbiased) / sqrt(n): the normal approximation, which a
    summary prints at once. It is nan for fewer than two problems. `paired_difference`
    resamples, and has a p-value.
    """
    changes = np.array(after, float) - np.array(before, float)
    if changes.size < 2:
        return float(changes.sum()), math.nan
    half = 1.96 * changes.std(ddof=1) / math.sqrt(changes.size)
    return float(changes.mean()), float(half)


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """The interval of the share count / total (Wilson 1927); 0 to 1 where total is 0."""
    if total == 0:
        return 0.0, 1.0
    z = 1.96
    share = count / total
    middle = share + z * z / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # rounding may leave the unit interval by 1e-17, which prints as -0.0
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided p-value of McNemar's exact test (McNemar 1947).

    `gained` problems are passed after alone, `lost` before alone; of those that changed,
    each had the same chance of either: p = min(1, 2 P(Bin(gained + lost, 1/2) <=
    min(gained, lost))).
    """
    changed = gained + lost
    tail = sum(math.comb(changed, i) for i in range(min(gained, lost) + 1))
    # whole numbers, since 2.0**changed overflows from 1024 on
    return min(1.0, 2 * tail / 2**changed)
