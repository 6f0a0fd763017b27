"""Reports to rewards on tokens, and all the feedback of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stepcoder_jax.config import FGOConfig, RewardConfig
from stepcoder_jax.feedback import fgo as masks
from stepcoder_jax.pytrees import Feedback
from stepcoder_jax.records import Program, Report, Verdict

# The verdicts that a program can have; INFRA is not the program's.
OUTCOMES = (
    Verdict.PASS,
    Verdict.WRONG,
    Verdict.RUNTIME,
    Verdict.TIMEOUT,
    Verdict.MEMORY,
    Verdict.OUTPUT,
    Verdict.COMPILE,
)


def outcome_reward(report: Report, config: RewardConfig) -> float:
    """Return the program's reward.

    r = +1 all tests pass, -0.3 a wrong answer, -0.6 a runtime error, -1 no compilation
    (arXiv:2402.01391, eq. 3); the first test that did not pass settles which. Exceeded
    time, memory or output counts as a runtime error, which the paper leaves open. A report
    of INFRA, or a weak or unfaithful one, is worth 0.
    """
    if not report.is_valid:
        return 0.0
    if report.verdict not in OUTCOMES:
        raise ValueError(f"expected the verdict of a whole program, got {report.verdict!r}")
    rewards = {
        Verdict.PASS: config.passed,
        Verdict.WRONG: config.wrong,
        Verdict.COMPILE: config.compile,
    }
    return rewards.get(report.verdict, config.runtime)


def token_rewards(report: Report, mask: np.ndarray, config: RewardConfig) -> np.ndarray:
    """Return f32[T]: the outcome reward on the last True of `mask` (bool[T]), else 0."""
    rewards = np.zeros(mask.shape, np.float32)
    places = np.flatnonzero(mask)
    if places.size:
        rewards[places[-1]] = outcome_reward(report, config)
    return rewards


def feedback(
    programs: Sequence[Program],
    reports: Sequence[Report],
    mask: np.ndarray,
    *,
    reward: RewardConfig,
    fgo: FGOConfig,
    seed: int,
    step: int,
) -> tuple[Feedback, dict[str, float]]:
    """Return what running the programs said about each token of the batch, and metrics.

    `mask` is bool[B, T] of the rollout; `executed` is a subset of it. (seed, step, row)
    settle the draws of `fgo.mask="random"`. The metrics check FGO, before its controls:
    `fgo/uncertain` counts programs that keep all tokens because their labels are uncertain;
    `fgo/dropped_but_ran` is the share of dropped tokens that ran by the judge's record. It
    must be 0.
    """
    mask = np.asarray(mask)
    if not len(programs) == len(reports) == mask.shape[0]:
        raise ValueError(
            f"expected as many reports and mask rows as the {len(programs)} programs, got "
            f"{len(reports)} and {mask.shape[0]}"
        )
    rewards = np.zeros(mask.shape, np.float32)
    executed = np.zeros(mask.shape, bool)
    labels = [masks.label(*pair, fgo) for pair in zip(programs, reports)]
    dropped = sum(int((~label.kept).sum()) for label in labels)
    numbers = {
        "fgo/uncertain": float(sum(label.is_uncertain for label in labels)),
        "fgo/dropped_but_ran": sum(label.dropped_but_ran for label in labels)
        / max(1, dropped),
    }
    for row, (program, report) in enumerate(zip(programs, reports)):
        rewards[row] = token_rewards(report, mask[row], reward)
        kept = masks.control(labels[row], program, report, fgo, (seed, step, row))
        executed[row, : len(kept)] = kept
    valid = np.array([report.is_valid for report in reports], bool)
    return Feedback(rewards, executed & mask, valid), numbers


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
