"""Judged samples of a benchmark, added up: pass@k, shares of verdicts, kinds of bugs."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stepcoder_jax.records import InputError, Verdict, order_difficulties
from stepcoder_jax.results.estimates import Difference, Estimate, estimate, pass_at_k
from stepcoder_jax.results.taxonomy import Bug, Share, share_of

USUAL_KS = (1, 5, 10, 100)
ALL = "all"
CHANGE = ("change, points [95 %]", "p", "p exact")  # heads of three columns
Table = list[list[str]]


class Outcome(NamedTuple):
    """What became of one sample of one problem."""

    task: str  # the problem's id
    difficulty: str
    verdict: Verdict
    bug: Bug | None = None
    truncated: bool = False  # ended by the length limit
    weak: bool = False  # graded within reach of the program: in no pass@k
    unfaithful: bool = False  # failed for what the judge cannot carry to the test code
    metadata: Mapping[str, Any] = {}  # the problem's
    rounds: tuple[Verdict, ...] = ()  # of a chain of answers, from the first to this one


class Scores(NamedTuple):
    """What a set of outcomes adds up to; those that are weak are counted alone."""

    problems: int
    samples: int
    infra: int  # samples that our own machinery failed on
    weak: int
    unfaithful: int
    truncated: int
    pass_at_k: dict[str, dict[int, Estimate]]  # by difficulty, "all" last; {} with infra
    group_sizes: dict[str, int]  # problems of each difficulty
    shares: dict[str, dict[Share, int]]  # samples, by difficulty, "all" last
    bugs: dict[Bug, int]  # samples


def strong(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if not outcome.weak]


def counts(outcomes: Iterable[Outcome]) -> dict[str, tuple[int, int]]:
    """Samples and passed samples of each problem, in the order in which they come."""
    found: dict[str, tuple[int, int]] = {}
    for outcome in outcomes:
        samples, passed = found.get(outcome.task, (0, 0))
        found[outcome.task] = samples + 1, passed + (outcome.verdict is Verdict.PASS)
    return found


def require_judged(outcomes: Sequence[Outcome]) -> None:
    """Refuse a pass@k while samples were not judged: they neither passed nor failed."""
    failed = [outcome.task for outcome in outcomes if outcome.verdict is Verdict.INFRA]
    if failed:
        raise InputError(
            f"pass@k: none, for {len(failed)} samples were not judged (infra), as one of "
            f"{failed[0]}; judge them again"
        )


def choose_ks(samples: dict[str, int], wanted: Sequence[int]) -> tuple[int, ...]:
    """The k of the pass@k that these numbers of samples allow.

    Those `wanted`, or else the usual ones up to the fewest samples that a problem has;
    InputError for a wanted one that some problem has too few samples for.
    """
    task, fewest = min(samples.items(), key=lambda item: item[1])
    for k in wanted:
        if k < 1:
            raise InputError(f"--k: expected numbers from 1 on, got {k}")
        if k > fewest:
            raise InputError(
                f"--k: pass@{k} needs {k} samples of each problem, {task} has {fewest}; "
                "give smaller --k, or more samples"
            )
    chosen = wanted or [k for k in USUAL_KS if k <= fewest]
    return tuple(sorted(set(chosen)))


def problem_scores(outcomes: Iterable[Outcome], k: int) -> dict[str, float]:
    """pass@k of each problem."""
    return {task: pass_at_k(n, c, k) for task, (n, c) in counts(outcomes).items()}


def groups(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by difficulty, from easy to hard, and all of them last."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.difficulty, []).append(outcome)
    ordered = {name: found[name] for name in order_difficulties(found)}
    # one difficulty alone would say the same thing twice
    return (ordered if len(found) > 1 else {}) | {ALL: list(outcomes)}


def score(outcomes: Sequence[Outcome], ks: Sequence[int], seed: int = 0) -> Scores:
    """Add outcomes up; without a pass@k while any of them is INFRA."""
    valid = strong(outcomes)
    infra = sum(outcome.verdict is Verdict.INFRA for outcome in valid)
    rates: dict[str, dict[int, Estimate]] = {}
    shares: dict[str, dict[Share, int]] = {}
    sizes: dict[str, int] = {}
    for name, chosen in groups(valid).items():
        told = collections.Counter(share_of(outcome.verdict) for outcome in chosen)
        shares[name] = {share: told[share] for share in Share}
        sizes[name] = len(counts(chosen))
        if chosen and not infra:
            rates[name] = {
                k: estimate(list(problem_scores(chosen, k).values()), seed) for k in ks
            }
    named = collections.Counter(outcome.bug for outcome in valid)
    return Scores(
        problems=sizes[ALL],
        samples=len(valid),
        infra=infra,
        weak=len(outcomes) - len(valid),
        unfaithful=sum(outcome.unfaithful for outcome in valid),
        truncated=sum(outcome.truncated for outcome in valid),
        pass_at_k=rates,
        group_sizes=sizes,
        shares=shares,
        bugs={bug: named[bug] for bug in Bug if named[bug]},
    )


def percent(found: Estimate) -> str:
    """A share and its interval in percent; "-" for an interval that cannot be told."""
    return f"{100 * found.value:.1f} {interval_text(found.low, found.high)}"


def interval_text(low: float, high: float, sign: str = "") -> str:
    if math.isnan(low):
        return "[-]"
    return f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def p_text(p: float) -> str:
    """A p-value; "-" where there is none."""
    if math.isnan(p):
        return "-"
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def change_cells(change: Difference, exact: float) -> list[str]:
    """What stands below CHANGE."""
    interval = interval_text(change.low, change.high, "+")
    return [
        f"{100 * change.change:+.1f} {interval}",
        p_text(change.p),
        p_text(exact),
    ]


def pass_table(scores: Scores) -> Table:
    """pass@k by difficulty, in percent with intervals of 95 %."""
    ks = list(scores.pass_at_k[ALL]) if scores.pass_at_k else []
    table = [["", "problems", *(f"pass@{k}, % [95 %]" for k in ks)]]
    for name, found in scores.pass_at_k.items():
        size = str(scores.group_sizes[name])
        table.append([name, size, *(percent(found[k]) for k in ks)])
    return table


def share_table(scores: Scores) -> Table:
    """Shares of the samples that were judged, in percent (figure 4)."""
    table = [["samples, %", *Share]]
    for name, found in scores.shares.items():
        total = sum(found.values()) or 1
        row = [f"{100 * found[share] / total:.1f}" for share in Share]
        table.append([name, *row])
    return table


def bug_table(scores: Scores) -> Table:
    """Samples by kind of bug; kinds that none has are left out."""
    return [
        ["bug", "samples"],
        *([str(bug), str(count)] for bug, count in scores.bugs.items()),
    ]


def format_table(counts: Mapping[str, collections.Counter[Verdict]]) -> str:
    """Counts by difficulty and verdict; verdicts that nobody got have no column."""
    total: collections.Counter[Verdict] = sum(counts.values(), collections.Counter())
    columns = [verdict for verdict in Verdict if total[verdict]]
    rows = [["difficulty", *map(str, columns), "all"]]
    ordered = [(name, counts[name]) for name in order_difficulties(counts)]
    for name, row in [*ordered, ("all", total)]:
        rows.append([name, *(str(row[v]) for v in columns), str(row.total())])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(row[1:], widths[1:]))
        for row in rows
    )


def markdown(table: Table) -> str:
    """A table that is Markdown, with aligned columns, the first to the left."""
    widths = [max(3, *map(len, column)) for column in zip(*table)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths))
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)
    ]
    return "\n".join([line(table[0]), line(rule), *map(line, table[1:])])


def describe(scores: Scores) -> str:
    """Tables and what else is to be known of the outcomes, as Markdown."""
    parts = []
    if scores.infra:
        parts.append(
            f"pass@k: none, for {scores.infra} samples were not judged (infra); judge them "
            "again."
        )
    elif scores.problems:
        parts.append(markdown(pass_table(scores)))
    parts.append(markdown(share_table(scores)))
    if scores.bugs:
        parts.append(markdown(bug_table(scores)))
    said = (
        f"{scores.samples} samples of {scores.problems} problems, {scores.truncated} of "
        "them truncated by the length limit"
    )
    if scores.weak:
        said += f"; {scores.weak} more, graded within reach of the program, count nowhere"
    if scores.unfaithful:
        said += f"; {unfaithful_text(scores.unfaithful)}"
    return "\n\n".join([*parts, f"{said}."])


def unfaithful_text(count: int) -> str:
    """What is said where samples failed that perhaps should not have."""
    return (
        f"{count} failed as unfaithful: their tests use what the judge cannot carry from "
        "the program"
    )


def finite(value: float) -> float | None:
    """A number for JSON, which has no nan."""
    return None if math.isnan(value) else value


def as_json(scores: Scores) -> dict[str, Any]:
    """The same as numbers: shares in 0..1, null where an interval cannot be told."""
    return {
        "problems": scores.problems,
        "samples": scores.samples,
        "infra": scores.infra,
        "weak": scores.weak,
        "unfaithful": scores.unfaithful,
        "truncated": scores.truncated,
        "pass_at_k": {
            name: {
                "problems": scores.group_sizes[name],
                **{
                    f"pass@{k}": {field: finite(x) for field, x in value._asdict().items()}
                    for k, value in found.items()
                },
            }
            for name, found in scores.pass_at_k.items()
        },
        "shares": {
            name: {str(share): count for share, count in found.items()}
            for name, found in scores.shares.items()
        },
        "bugs": {str(bug): count for bug, count in scores.bugs.items()},
    }


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each path: as many of its last parts as tell it from the others."""
    parts = {path: Path(path).absolute().parts for path in paths}
    for count in range(1, max(map(len, parts.values())) + 1):
        names = {path: "/".join(found[-count:]) for path, found in parts.items()}
        if len(set(names.values())) == len(paths):
            return names
    return {path: path for path in paths}
