"""The closing words of a run: scores before and after, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from stepcoder_jax.config import Config
from stepcoder_jax.records import Verdict, order_difficulties
from stepcoder_jax.results.estimates import normal_difference, wilson_interval


class Graded(NamedTuple):
    """One problem of an evaluation with the verdict of its one greedy program."""

    problem: str
    difficulty: str
    verdict: Verdict


def share_text(flags: Sequence[bool]) -> str:
    if not flags:
        return "-"
    low, high = wilson_interval(sum(flags), len(flags))
    return f"{100 * sum(flags) / len(flags):5.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def change_text(change: float, half: float) -> str:
    return (
        f"{100 * change:+5.1f} [{100 * (change - half):+.1f}, {100 * (change + half):+.1f}]"
    )


def has_compiled(row: Graded) -> bool:
    return row.verdict is not Verdict.COMPILE


def has_passed(row: Graded) -> bool:
    return row.verdict is Verdict.PASS


def score_rows(before: Sequence[Graded], after: Sequence[Graded]) -> list[tuple[str, ...]]:
    """Return the table of an evaluation before and after, over the problems in both.

    Rows of INFRA on either side are left out: they say nothing of the model.
    """
    later = {row.problem: row for row in after if row.verdict is not Verdict.INFRA}
    pairs = [
        (row, later[row.problem])
        for row in before
        if row.problem in later and row.verdict is not Verdict.INFRA
    ]
    groups = [*order_difficulties(old.difficulty for old, _ in pairs), "all"]
    table: list[tuple[str, ...]] = []
    for group in groups:
        chosen = [pair for pair in pairs if group in (pair[0].difficulty, "all")]
        table.append(score_row(f"pass@1, {group}", chosen, has_passed))
    table.append(score_row("compiles", pairs, has_compiled))
    both = [[has_passed(row) for row in side if has_compiled(row)] for side in zip(*pairs)]
    if both:
        old, new = both
        change = "-"
        if old and new:
            shares = np.mean(old), np.mean(new)
            spread = sum(p * (1 - p) / len(side) for p, side in zip(shares, both))
            change = change_text(float(shares[1] - shares[0]), 1.96 * math.sqrt(spread))
        label = "right among those that compile"
        table.append(
            (label, f"{len(old)}, {len(new)}", share_text(old), share_text(new), change)
        )
    return table


def score_row(
    label: str, pairs: Sequence[tuple[Graded, Graded]], test: Callable[[Graded], bool]
) -> tuple[str, ...]:
    """Return one row: problems, share before, share after, paired change."""
    old, new = [test(a) for a, _ in pairs], [test(b) for _, b in pairs]
    change = change_text(*normal_difference(old, new)) if pairs else "-"
    return label, str(len(pairs)), share_text(old), share_text(new), change


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as text with aligned columns, the first to the left."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in table
    ]


def advice(
    before: Sequence[Graded],
    after: Sequence[Graded],
    visits: np.ndarray,
    stage0_share: float,
    causes: Sequence[str],
    config: Config,
) -> list[str]:
    """Return what to try next, from what this run showed; each line names a field.

    Where there was nothing to learn, `causes` (of `diagnosis.summarise`) come first, and
    the rest, which takes for granted that something was learnt, is left out.
    """
    if causes:
        return list(causes)
    tips = []
    if before and after:
        paired = {row.problem: row for row in after}
        both = [(row, paired[row.problem]) for row in before if row.problem in paired]
        old, new = [has_passed(a) for a, _ in both], [has_passed(b) for _, b in both]
        change, half = normal_difference(old, new)
        if not abs(change) > half:
            tips.append(
                "The change is within its error: run longer (run.total_steps) or judge by "
                "more problems (evaluation.test_problems)."
            )
        compiled, now = ([has_compiled(row) for row in side] for side in (before, after))
        if np.mean(compiled) - np.mean(now) > 0.02:
            has_kl = not config.takes_returns
            more = f" or raise {config.algorithm}.kl_coef" * has_kl
            tips.append(
                f"Fewer programs compile than before: lower ppo.actor.learning_rate{more}."
            )
    does_move = config.cccs.enabled and config.cccs.prefix in ("cccs", "adaptive")
    if does_move and visits.size and np.median(visits) < 3:
        tips.append(
            f"A problem was drawn {np.median(visits):.0f} times (median), too few to leave "
            "its first stage: lower data.pool_size or run longer (run.total_steps)."
        )
    if stage0_share < 0.3:
        tips.append(
            f"Only {100 * stage0_share:.0f} % of the rollouts wrote whole programs: "
            f"{'lower cccs.threshold or ' * does_move}raise cccs.full_fraction."
        )
    return tips or ["Nothing stands out: another seed (run.seed) tells luck from progress."]


def summary(
    before: Sequence[Graded],
    after: Sequence[Graded],
    *,
    visits: np.ndarray,
    stage0_share: float,
    causes: Sequence[str],
    config: Config,
    folder: str,
    minutes: float,
) -> str:
    """Return the closing text of a run: scores, visits, where it is, what to try next.

    Changes are paired over the same problems, in points. `stage0_share` is that of the
    last iterations' rollouts, `visits` i32[N] counts the draws of each pool problem;
    `causes` say why there was nothing to learn; `config` has the knobs that can be turned.
    """
    lines = [f"Done in {minutes:.1f} minutes.", ""]
    if before and after:
        head = ("greedy, % [95 %]", "problems", "before", "after", "change, points")
        lines += [*align([head, *score_rows(before, after)]), ""]
    if visits.size:
        lines.append(
            f"Visits per problem: median {np.median(visits):.0f}, {visits.min()} to "
            f"{visits.max()}; {100 * np.mean(visits == 0):.0f} % of {visits.size} never "
            f"drawn. Rollouts at stage 0: {100 * stage0_share:.0f} %."
        )
    lines += [
        f"The run is in {folder}: metrics.jsonl, rollouts/, checkpoints; look at its "
        f"programs with `stepcoder sample {folder}`, at all of it with "
        f"`stepcoder report {folder} --out report.html`.",
        "Next:",
        *(
            f"  - {tip}"
            for tip in advice(before, after, visits, stage0_share, causes, config)
        ),
    ]
    return "\n".join(lines)
