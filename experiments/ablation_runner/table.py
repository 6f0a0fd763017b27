"""Records to tables: the primary measure by arm, the comparisons, what else was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ablation_runner.record import DONE, PASS, TOKENS, UPDATES
from ablation_runner.study import DIFFICULTIES, Study
from stepcoder_jax.records import InputError
from stepcoder_jax.results.estimates import Difference, Estimate
from stepcoder_jax.results.outcomes import Table, markdown
from stepcoder_jax.results.seeds import curve_mean, holm, paired_seeds, t_interval

PRIMARY = "primary"  # the curve of the primary measure, among those of a record
ROLLOUTS = "rollouts"
_COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
RESOLVED = 0.10  # half-width
Record = Mapping[str, Any]


class Ends(NamedTuple):
    """Where the axes end that curves are averaged over."""

    tokens: float
    rollouts: float


class Runs(NamedTuple):
    """The records of a folder, by arm and seed."""

    done: dict[str, dict[int, Record]]
    failed: dict[str, dict[int, Record]]
    ends: Ends


def collect(
    records: Sequence[Record], measured: tuple[str, ...] = DIFFICULTIES[-1:]
) -> Runs:
    """Sort records, with a curve that is the mean over the difficulties `measured`.

    InputError where runs that are to be compared had other budgets.
    """
    done: dict[str, dict[int, Record]] = {}
    failed: dict[str, dict[int, Record]] = {}
    for record in records:
        into = done if record["status"] == DONE else failed
        if "curve" in record:
            curve = record["curve"]
            values = np.mean([curve[each] for each in measured], axis=0).tolist()
            record = {**record, "curve": {**curve, PRIMARY: values}}
        into.setdefault(record["arm"], {})[record["seed"]] = record
    paid = [x for runs in done.values() for x in runs.values() if x["budget"] == TOKENS]
    budgets = sorted({x["config"]["run.total_tokens"] for x in paid})
    if len(budgets) > 1:
        raise InputError(
            f"--results: runs with budgets of {budgets} tokens are not to be compared; "
            "give each budget its own folder"
        )
    rollouts = min((x["curve"][ROLLOUTS][-1] for x in paid), default=math.inf)
    return Runs(done, failed, Ends(budgets[0] if budgets else math.inf, rollouts))


def beside(study: Study, runs: Runs) -> dict[str, Any]:
    """The curves of the plain arm, as `evaluation.beside` reads them; {} without runs."""
    (arm, name), hardest = study.plain, DIFFICULTIES[-1]
    curves = [
        {"seed": seed, "tokens": one["curve"][TOKENS], "values": one["curve"][hardest]}
        for seed, one in sorted(runs.done.get(arm, {}).items())
    ]
    return {"name": name, "metric": PASS + hardest, "runs": curves} if curves else {}


def measure(record: Record, axis: str, ends: Ends) -> float:
    """The mean of the primary curve; of supervised text over its own updates."""
    curve = record["curve"]
    if record["budget"] == UPDATES:
        return curve_mean(curve[UPDATES], curve[PRIMARY], curve[UPDATES][-1])
    end = ends.tokens if axis == TOKENS else ends.rollouts
    return curve_mean(curve[axis], curve[PRIMARY], end)


def points(value: float | None, sign: str = "") -> str:
    """A share in points."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:{sign}.1f}"


def with_interval(found: Estimate | Difference, sign: str = "") -> str:
    """A mean and its interval in points."""
    low, high = points(found.low, sign), points(found.high, sign)
    middle = points(found[0], sign)
    return middle if low == "-" else f"{middle} [{low}, {high}]"


def count_text(study: Study, runs: Runs, arm: str) -> str:
    """How many runs a mean is of, and of how many that were promised."""
    have, promised = len(runs.done.get(arm, {})), len(study.seeds(arm))
    failed = len(runs.failed.get(arm, {}))
    text = str(have) if have >= promised else f"{have} of {promised}"
    return f"{text}, {failed} failed" if failed else text


def mean_over(records: Sequence[Record], *path: str | int) -> float:
    """The mean over runs of what stands at a path in each record; nan where it does not."""
    found = []
    for record in records:
        value: Any = record
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                value = None
        if value is not None:
            found.append(value)
    return float(np.mean(found)) if found else math.nan


def arm_table(study: Study, runs: Runs) -> Table:
    """The primary measure of each arm, and its end."""
    easy, middle, hard = study.sizes
    table = [
        [
            *("arm", "runs", "mean over tokens [95 %]", "mean over rollouts [95 %]"),
            *(f"end, {easy}", middle, hard, f"test, {hard}", "rollouts", "minutes"),
        ]
    ]
    for arm in (*study.claimed, *study.exploratory):
        records = list(runs.done.get(arm, {}).values())
        if not records and arm not in runs.failed:
            continue
        is_other = any(record["budget"] == UPDATES for record in records)
        means = [
            t_interval([measure(x, axis, runs.ends) for x in records])
            for axis in (TOKENS, ROLLOUTS)
        ]
        seconds = mean_over(records, "seconds")
        rollouts = mean_over(records, "rollouts")
        table.append(
            [
                arm + " (other budget)" * is_other,
                count_text(study, runs, arm),
                *(with_interval(mean) for mean in means[: 1 if is_other else 2]),
                *(["-"] * is_other),
                *(points(mean_over(records, "curve", size, -1)) for size in DIFFICULTIES),
                points(
                    mean_over(
                        records, "measured", "test", f"test/pass@1_{DIFFICULTIES[-1]}"
                    )
                ),
                "-" if math.isnan(rollouts) else f"{rollouts:.0f}",
                "-" if math.isnan(seconds) else f"{seconds / 60:.1f}",
            ]
        )
    return table


def comparison_table(study: Study, runs: Runs, axis: str) -> Table:
    """The comparisons that were named beforehand, over the seeds that both arms have."""
    found = [compare(runs, one, other, axis) for one, other in study.comparisons]
    adjusted = holm([difference.p for _, difference in found])
    table = [["difference", "pairs", f"mean over {axis} [95 %]", "p", "Holm", "resolved"]]
    for (one, other), (pairs, difference), p in zip(
        study.comparisons, found, adjusted, strict=True
    ):
        promised = len(study.seeds(one))
        table.append(
            [
                f"{one} - {other}",
                str(pairs) if pairs >= promised else f"{pairs} of {promised}",
                with_interval(difference, "+"),
                *("-" if math.isnan(x) else f"{x:.3f}" for x in (difference.p, p)),
                resolved(difference),
            ]
        )
    return table


def compare(runs: Runs, one: str, other: str, axis: str) -> tuple[int, Difference]:
    """How many seeds both arms have, and one - other over them."""
    first, second = runs.done.get(one, {}), runs.done.get(other, {})
    seeds = sorted(first.keys() & second.keys())
    values = [
        [measure(side[seed], axis, runs.ends) for seed in seeds] for side in (second, first)
    ]
    return len(seeds), paired_seeds(*values)


def resolved(difference: Difference) -> str:
    """Whether the interval reaches at most 10 points to either side, or how far it does."""
    half = (difference.high - difference.low) / 2
    if math.isnan(half):
        return "no interval"
    return f"to {points(half)}" if half > RESOLVED else f"yes, to {points(half)}"


def seen_table(study: Study, runs: Runs) -> Table:
    """What explains the measure: masks, stages, forgetting; means over runs, in points."""
    table = [
        [
            *("arm", "masked", "of wrong", "of runtime errors", "whole prompts, end"),
            *("stages left, end", "pass rate whole, end"),
            f"forgotten, {study.sizes[0]}",
        ]
    ]
    for arm, by_seed in runs.done.items():
        records = [x for x in by_seed.values() if x["budget"] == TOKENS]
        if not records:
            continue
        last = ("stretches", -1)
        stages = mean_over(records, *last, "cccs/mean_stage")
        table.append(
            [
                arm,
                *(
                    points(mean_over(records, "masked", name))
                    for name in ("masked", "masked_wrong", "masked_runtime")
                ),
                points(mean_over(records, *last, "cccs/stage0_share")),
                "-" if math.isnan(stages) else f"{stages:.2f}",
                points(mean_over(records, *last, "stage0_pass_rate")),
                points(mean_over(records, "forgetting", DIFFICULTIES[0])),
            ]
        )
    return table


def operations_right(records: Sequence[Record]) -> list[float]:
    """By part, of greedy programs of K = 9: of the last model, of text of the best one."""
    models = [x["measured"].get("last", x["measured"].get("best", {})) for x in records]
    return [mean_over(models, "positions", "operation", i) for i in range(9)]


def position_table(runs: Runs) -> Table:
    """Operations right at each part, in points."""
    found = {arm: operations_right(list(x.values())) for arm, x in runs.done.items()}
    rows = [
        [arm, *map(points, values)]
        for arm, values in found.items()
        if not all(map(math.isnan, values))
    ]
    return [["operation right, part", *map(str, range(9))], *rows]


def absent(study: Study, runs: Runs) -> list[str]:
    """A line for each arm with runs that are missing, and for each run that failed."""
    lines = []
    for arm in (*study.claimed, *study.exploratory):
        have = runs.done.get(arm, {}).keys() | runs.failed.get(arm, {}).keys()
        missing = [seed for seed in study.seeds(arm) if seed not in have]
        if missing:
            lines.append(f"- {arm}: seeds {', '.join(map(str, missing))} are missing.")
    for arm, by_seed in runs.failed.items():
        for seed, record in sorted(by_seed.items()):
            lines.append(
                f"- {arm}-{seed} FAILED with exit code {record['exit_code']} and counts in "
                f"no mean (`run --again` runs it again): {record['last_line']}"
            )
    return lines


def describe(study: Study, records: Sequence[Record]) -> str:
    """All tables as Markdown."""
    runs = collect(records, study.measured)
    tokens, rollouts = runs.ends
    number = _COUNTS[len(study.comparisons)]
    commits = sorted({record["commit"] for record in records})
    machines = sorted(
        {
            f"{x['machine']['cpu']}, {x['machine']['cores']} of "
            f"{x['machine']['cores_in_all']} cores, {x['machine']['memory_gib']:.0f} GiB"
            for x in records
        }
    )
    lines = absent(study, runs)
    parts = [
        f"# {study.title}",
        "Greedy pass rates in %, differences in points. Means over curves of "
        f"{study.primary}, over {tokens:,.0f} generated tokens and {rollouts:,.0f} "
        f"rollouts. Commit {', '.join(commits)}; {'; '.join(machines)}.",
        markdown(arm_table(study, runs)),
        f"## {number} comparisons, named beforehand",
        "Paired over seeds: Student's interval; p of all sign flips; Holm over the "
        f"{number.lower()}.",
        markdown(comparison_table(study, runs, TOKENS)),
        markdown(comparison_table(study, runs, ROLLOUTS)),
        "## What else was seen",
        markdown(seen_table(study, runs)),
    ]
    positions = position_table(runs)
    if len(positions) > 1:
        parts.append(markdown(positions))
    if lines:
        parts += ["## Missing and failed", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def tuning_table(study: Study, records: Sequence[Record]) -> Table:
    """The primary measure by arm and rate, and which rate is the best of each arm."""
    runs = collect(records, study.measured)
    table = [["arm", "rate", "runs", "mean", "best", "in the file"]]
    for arm, rates in study.tried.items():
        means = {}
        for rate in rates:
            known = runs.done.get(f"{arm}@{rate:g}", {}).values()
            means[rate] = (
                len(known),
                float(np.mean([measure(x, TOKENS, runs.ends) for x in known]))
                if known
                else math.nan,
            )
        values = [mean for _, mean in means.values() if not math.isnan(mean)]
        best = max(values, default=math.nan)
        for rate, (count, mean) in means.items():
            table.append(
                [
                    *(arm, f"{rate:g}", str(count), points(mean)),
                    "best" if mean == best else "",
                    "chosen" if rate == study.chosen[arm] else "",
                ]
            )
    return table
