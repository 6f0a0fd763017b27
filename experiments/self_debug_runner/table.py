"""Records to tables: all figures of self-debugging, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ablation_runner.study import Study
from ablation_runner.table import absent, count_text, points, with_interval

from self_debug_runner.chain import EXPLAINED, TEST
from self_debug_runner.measures import (
    EVALUATIONS,
    Record,
    Runs,
    collect,
    compare_all,
    equal_budget,
    mended,
    numbers,
    over_seeds,
    pair_runs,
)
from stepcoder_jax.results.outcomes import Table, markdown
from stepcoder_jax.results.seeds import t_interval

QUESTIONED = ("teacher", "rl_tests", "rl_codebleu", "rl_paper", "rl_scalar")


def over_runs(records: Sequence[Record], measure: Callable[[Record], float]) -> str:
    """The mean over seeds with Student's interval, in points."""
    known = [x for x in map(measure, records) if not math.isnan(x)]
    return with_interval(t_interval(known)) if known else "-"


def present(study: Study, runs: Runs) -> list[tuple[str, list[Record]]]:
    """The arms that have runs, in their order."""
    arms = (*study.claimed, *study.exploratory)
    return [(arm, list(runs.done[arm].values())) for arm in arms if arm in runs.done]


def arm_table(study: Study, runs: Runs) -> Table:
    """The primary measure by arm, and what else an arm's answers are."""
    head = ["arm", "runs", "first pass@1", "mended, round 1 [95 %]", "round 2", "round 3"]
    table = [[*head, "spoilt", "copies", "without code", "updates"]]
    for arm, records in present(study, runs):
        cells = [over_runs(records, lambda x: numbers(x, TEST, 0, "pass@1"))]
        cells += [over_runs(records, lambda x, i=i: mended(x, TEST, i)) for i in (1, 2, 3)]
        for name in ("spoilt", "unchanged", "without_code"):
            cells.append(over_runs(records, lambda x, name=name: numbers(x, TEST, 1, name)))
        updates = "/".join(sorted({str(x["updates"]) for x in records}))
        table.append([arm, count_text(study, runs, arm), *cells, updates])
    return table


def comparison_table(study: Study, runs: Runs) -> Table:
    """The comparisons over seeds."""
    table = [["difference", "seeds", "points [95 %]", "p", "Holm"]]
    for found in compare_all(runs, study.comparisons):
        known = sum(not math.isnan(x.change) for x in found.by_seed.values())
        promised = min(len(study.seeds(arm)) for arm in found.arms)
        table.append(
            [
                found.name,
                str(known) if known >= promised else f"{known} of {promised}",
                with_interval(found.over, "+"),
                *(
                    "-" if math.isnan(x) else f"{x:.3f}"
                    for x in (found.over.p, found.adjusted)
                ),
            ]
        )
    return table


def seed_table(study: Study, runs: Runs) -> Table:
    """The comparisons of each seed, paired over problems."""
    compared = [x for x in compare_all(runs, study.comparisons) if x.by_seed]
    seeds = sorted({seed for found in compared for seed in found.by_seed})
    table = [["paired over problems, points [95 %]", *(f"seed {x}" for x in seeds)]]
    for found in compared:
        known = [found.by_seed.get(seed) for seed in seeds]
        table.append(
            [found.name, *("-" if x is None else with_interval(x, "+") for x in known)]
        )
    return table


def control_table(study: Study, runs: Runs) -> Table:
    """What a model was told, and what it mended in one round."""
    table = [["mended, told", "the test", *EVALUATIONS[1:-1], "the test, direct"]]
    for arm, records in present(study, runs):
        cells = [
            over_runs(records, lambda x, told=told: mended(x, told)) for told in EVALUATIONS
        ]
        table.append([arm, *cells])
    return table


def budget_table(study: Study, runs: Runs) -> Table:
    """Chains less as many samples, over seeds."""
    most = max(
        (
            x["evaluations"][TEST]["rounds"]
            for _, some in present(study, runs)
            for x in some
        ),
        default=0,
    )
    columns = [
        (rounds, rule) for rounds in range(1, most + 1) for rule in ("any", "chosen")
    ]
    table = [["chain - samples", *(f"first + {x}, {rule}" for x, rule in columns)]]
    for arm, records in present(study, runs):
        cells = []
        for rounds, rule in columns:
            by_seed = {x["seed"]: equal_budget(x, rounds, rule) for x in records}
            cells.append(with_interval(over_seeds(by_seed), "+"))
        table.append([arm, *cells])
    return table


def reward_table(runs: Runs) -> Table:
    """The question that the paper left open: which reward, and does it pay for copies?"""
    head = ["reward", "mended - teacher's [95 %]", "copies", "similar", "first pass@1"]
    table = [[*head, "copies in learning, first to last fifth"]]
    teachers = runs.done.get("teacher", {})
    for arm in QUESTIONED:
        by_seed = runs.done.get(arm, {})
        if not by_seed:
            continue
        records = list(by_seed.values())
        pairs = {
            seed: pair_runs(teachers[seed], x)
            for seed, x in by_seed.items()
            if seed in teachers
        }
        table.append(
            [
                arm,
                with_interval(over_seeds(pairs), "+") if arm != "teacher" else "",
                over_runs(records, lambda x: numbers(x, TEST, 1, "unchanged")),
                over_runs(records, lambda x: numbers(x, TEST, 1, "similar")),
                over_runs(records, lambda x: numbers(x, TEST, 0, "pass@1")),
                copies_in_learning(records),
            ]
        )
    return table


def copies_in_learning(records: Sequence[Record]) -> str:
    """Of sampled answers, those that are the wrong program, at both ends of learning."""
    ends: list[tuple[float, float]] = []
    for record in records:
        curve = [x for x in record["learning"].get("split/copied", []) if x is not None]
        if curve:
            fifth = max(1, len(curve) // 5)
            ends.append((sum(curve[:fifth]) / fifth, sum(curve[-fifth:]) / fifth))
    if not ends:
        return "-"
    return " to ".join(points(sum(side) / len(side)) for side in zip(*ends, strict=True))


def truth_table(runs: Runs) -> Table:
    """Spearman's correlation of S_ex with the truth, per encoder."""
    table = [["encoder", "explanations", "seeds", "Spearman [95 % over seeds]", "true, %"]]
    table[0].append("each seed [95 % over programs]")
    found: dict[tuple[str, str], list[Record]] = {}
    for _, record in sorted(runs.inputs.get(EXPLAINED, {}).items()):
        for encoder, kinds in record["encoders"].items():
            for kind, said in kinds.items():
                if said["explanations"]:
                    found.setdefault((encoder, kind), []).append(said)
    for (encoder, kind), rows in found.items():
        known = [x["spearman"] for x in rows if x["spearman"]["value"] is not None]
        over = t_interval([x["value"] for x in known])
        table.append(
            [
                *(encoder, kind, str(len(known))),
                decimals(*over),
                points(sum(x["true"] for x in rows) / len(rows)),
                "; ".join(decimals(x["value"], x["low"], x["high"]) for x in known) or "-",
            ]
        )
    return table


def decimals(value: float, low: float, high: float) -> str:
    """A correlation and its interval; "-" where all explanations are true, or none."""
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def yield_table(runs: Runs) -> Table:
    """What `refine` made for the arms (the paper's Table 1)."""
    table = [["records", "seeds", "problems", "wrong programs", "mended, %", "answers"]]
    for name, by_seed in runs.inputs.items():
        rows = [x["yield"] for x in by_seed.values()]
        wrong = sum(x["wrong"] for x in rows)
        table.append(
            [
                *(name, str(len(rows)), str(sum(x["problems"] for x in rows)), str(wrong)),
                points(sum(x["mended"] for x in rows) / wrong) if wrong else "-",
                str(sum(x["answers"] for x in by_seed.values())),
            ]
        )
    return table


def describe(study: Study, records: Sequence[Record]) -> str:
    """All tables."""
    runs = collect(records)
    commits = sorted({x["commit"] for x in records})
    machines = sorted(
        {f"{x['machine']['cpu']}, {x['machine']['cores']} cores a run" for x in records}
    )
    sections = [
        ("Arms", arm_table(study, runs)),
        ("Comparisons, named beforehand", comparison_table(study, runs)),
        ("Each seed", seed_table(study, runs)),
        ("What was told", control_table(study, runs)),
        ("Equal budget", budget_table(study, runs)),
        ("Which reward", reward_table(runs)),
        ("Does the reward of explanations pay their truth?", truth_table(runs)),
        ("What was learnt from", yield_table(runs)),
    ]
    parts = [
        "# Self-debugging",
        "Shares in %, differences in points, means over seeds with Student's interval. "
        "mended: of first answers that were wrong, those right after the round. Commit "
        f"{', '.join(commits)}; {'; '.join(machines)}.",
    ]
    for title, table in sections:
        if len(table) > 1:
            parts += [f"## {title}", markdown(table)]
    lines = absent(study, runs)
    if lines:
        parts += ["## Missing and failed", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"
