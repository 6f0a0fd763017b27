"""All the feedback of a batch: rewards and masks on its tokens, and the numbers of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stepcoder_jax.config import FGOConfig, RewardConfig
from stepcoder_jax.feedback import fgo as masks
from stepcoder_jax.feedback.rewards.stepcoder import OUTCOMES
from stepcoder_jax.feedback.rewards.table import PAPER
from stepcoder_jax.feedback.rewards.terms import Extras, Term, values_on
from stepcoder_jax.pytrees import Feedback
from stepcoder_jax.records import Program, Report

# A number of each row, f64[B], nan where it has none: hosts that each know some rows put
# their columns together before they are added up.
Columns = dict[str, np.ndarray]
UNCERTAIN, DROPPED, BUT_RAN = "fgo/uncertain", "fgo/dropped", "fgo/dropped_but_ran"


def feedback(
    programs: Sequence[Program],
    reports: Sequence[Report],
    mask: np.ndarray,
    *,
    reward: RewardConfig,
    fgo: FGOConfig,
    seed: int,
    step: int,
    terms: Sequence[Term] = PAPER,
    truncated: Sequence[bool] | np.ndarray | None = None,
    rows: Sequence[int] | None = None,
) -> tuple[Feedback, Columns]:
    """Return what running the programs said about each token, and columns for `numbers_of`.

    The programs are those of the batch's `rows`, None: all B of it. `mask` is bool[B, T] of
    the rollout, `truncated` bool[B] too (None: no row is); rewards are those of `add_up`,
    and `executed` is a subset of the mask. (seed, step, row) settle the draws of
    `fgo.mask="random"`. The columns check FGO, before its controls.
    """
    mask = np.asarray(mask)
    if not len(programs) == len(reports) == mask.shape[0]:
        raise ValueError(
            f"expected as many reports and mask rows as the {len(programs)} programs, got "
            f"{len(reports)} and {mask.shape[0]}"
        )
    rewards, told = add_up(terms, programs, reports, mask, reward, truncated, rows)
    executed = np.zeros(mask.shape, bool)
    labels = [masks.label(*pair, fgo) for pair in zip(programs, reports)]
    columns = {
        UNCERTAIN: np.array([label.is_uncertain for label in labels], float),
        DROPPED: np.array([(~label.kept).sum() for label in labels], float),
        BUT_RAN: np.array([label.dropped_but_ran for label in labels], float),
    }
    numbers = range(len(programs)) if rows is None else rows
    for row, (program, report) in enumerate(zip(programs, reports)):
        draw = seed, step, numbers[row]
        kept = masks.control(labels[row], program, report, fgo, draw)
        executed[row, : len(kept)] = kept
    valid = np.array([report.is_valid for report in reports], bool)
    return Feedback(rewards, executed & mask, valid), told | columns


def add_up(
    terms: Sequence[Term],
    programs: Sequence[Program],
    reports: Sequence[Report],
    mask: np.ndarray,
    reward: RewardConfig,
    truncated: Sequence[bool] | np.ndarray | None = None,
    rows: Sequence[int] | None = None,
) -> tuple[np.ndarray, Columns]:
    """Return the sum of the terms, f32[B, T], and what each gave.

    `reward/NAME` is a term's sum over each valid row, weight included: added up they are
    its reward. A row that is not valid, or has no token, has no reward.
    """
    rewards = np.zeros(mask.shape)
    told = {f"reward/{term.name}": np.full(len(programs), math.nan) for term in terms}
    numbers = range(len(programs)) if rows is None else rows
    for row, (program, report) in enumerate(zip(programs, reports)):
        places = np.flatnonzero(mask[row])
        if not report.is_valid:
            continue
        cut = truncated is not None and bool(truncated[row])
        extras = Extras(reward, places.size, mask.shape[1], cut)
        for term in terms:
            given = told[f"reward/{term.name}"]
            given[row] = 0.0
            if places.size:
                values = values_on(term, program, report, extras, numbers[row])
                rewards[row, places] += values
                given[row] = values.sum()
    return rewards.astype(np.float32), told


def numbers_of(columns: Columns) -> dict[str, float]:
    """Return the metrics of a whole batch's columns: of most the mean, nan of none.

    `fgo/uncertain` counts programs that keep all tokens because their labels are uncertain;
    `fgo/dropped_but_ran` is the share of dropped tokens that ran by the judge's record. It
    must be 0.
    """
    numbers = {
        UNCERTAIN: float(columns[UNCERTAIN].sum()),
        BUT_RAN: float(columns[BUT_RAN].sum() / max(1, columns[DROPPED].sum())),
    }
    others = columns.keys() - {UNCERTAIN, BUT_RAN, DROPPED}
    return {name: mean_of(columns[name]) for name in columns if name in others} | numbers


def mean_of(column: np.ndarray) -> float:
    """Return the mean over the rows that have a number; nan where none does."""
    known = column[~np.isnan(column)].tolist()
    return sum(known) / len(known) if known else math.nan


def metrics(
    reports: Sequence[Report], mask: np.ndarray, feedback: Feedback
) -> dict[str, float]:
    """Return the numbers of a batch: verdict shares, reward, masked share by verdict.

    Shares are over valid rows; those of infra and unfaithful are over all rows. `masked` is
    the share of completion tokens that FGO drops. The keys are always the same; a value is
    nan where no row counts.
    """
    mask, executed = np.asarray(mask), np.asarray(feedback.executed)
    valid = np.asarray(feedback.valid)
    unfaithful = sum(report.unfaithful for report in reports)
    dropped, total = (mask & ~executed).sum(axis=1), mask.sum(axis=1)
    outcome = np.asarray(feedback.rewards).sum(axis=1)

    def masked(rows: np.ndarray) -> float:
        count = total[rows].sum()
        return float(dropped[rows].sum() / count) if count else math.nan

    numbers = {
        "batch/valid_rows": int(valid.sum()),
        "verdict/infra": float(((~valid).sum() - unfaithful) / max(1, valid.size)),
        "verdict/unfaithful": unfaithful / max(1, valid.size),
        "reward": float(outcome[valid].mean()) if valid.any() else math.nan,
        "reward_spread": float(np.ptp(outcome[valid])) if valid.any() else math.nan,
        "fgo/masked": masked(valid),
    }
    for verdict in OUTCOMES:
        rows = valid & np.array([report.verdict is verdict for report in reports], bool)
        share = float(rows.sum() / valid.sum()) if valid.any() else math.nan
        numbers |= {f"verdict/{verdict}": share, f"fgo/masked_{verdict}": masked(rows)}
    return numbers | {"pass_rate": numbers["verdict/pass"]}
