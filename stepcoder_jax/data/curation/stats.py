"""Numbers that tell what a problem set is like. Pure functions."""

from __future__ import annotations

import ast
import collections
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stepcoder_jax.data.curation.screening import body
from stepcoder_jax.feedback.cuts import conditionals
from stepcoder_jax.feedback.stages import num_stages
from stepcoder_jax.records import Problem, Report, order_difficulties
from stepcoder_jax.syntax import has_no_code, parse

Measure = Callable[[str], int]


def describe(
    problems: Sequence[Problem], units: Mapping[str, Measure]
) -> dict[str, dict[str, Any]]:
    """Numbers by difficulty, and for "all".

    `units` measure lengths of statements and solutions: {"characters": len, ...}. Stages
    are those of the curriculum (stages.num_stages); a solution that is missing or does not
    parse has none, and counts as `no_curriculum`, as those with one stage do.
    """
    groups: dict[str, list[Problem]] = collections.defaultdict(list)
    for problem in problems:
        groups[problem.difficulty].append(problem)
    ordered = {name: groups[name] for name in order_difficulties(groups)}
    whole = {**ordered, "all": list(problems)}
    return {name: _describe(group, units) for name, group in whole.items()}


def _describe(problems: Sequence[Problem], units: Mapping[str, Measure]) -> dict[str, Any]:
    counts = [count_conditionals(problem) for problem in problems]
    stages = [num_stages(count) for count in counts if count is not None]
    found: dict[str, Any] = {
        "problems": len(problems),
        "modes": dict(sorted(collections.Counter(str(p.mode) for p in problems).items())),
        "tests": spread(len(problem.tests) for problem in problems),
    }
    for unit, measure in units.items():
        found[f"statement_{unit}"] = spread(measure(p.statement) for p in problems)
        found[f"solution_{unit}"] = spread(measure(p.solution) for p in problems)
    found["solution_lines"] = spread(
        sum(bool(line.strip()) for line in p.solution.splitlines()) for p in problems
    )
    found["conditionals"] = spread(count for count in counts if count is not None)
    found["stages"] = dict(sorted(collections.Counter(stages).items()))
    single = len(counts) - sum(stage > 1 for stage in stages)
    found["no_curriculum"] = single / len(counts) if counts else 0.0
    return found


def spread(numbers: Iterable[float]) -> dict[str, float]:
    """Mean, median and largest; of no numbers, nothing."""
    values = list(numbers)
    if not values:
        return {}
    return {
        "mean": round(statistics.fmean(values), 2),
        "median": statistics.median(values),
        "max": max(values),
    }


def count_conditionals(problem: Problem) -> int | None:
    """E of a problem (cuts.conditionals); None without a solution that parses."""
    if not body(problem).strip():
        return None
    try:
        return len(conditionals(problem.solution))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def coverage(source: str, report: Report) -> float | None:
    """Share of a program's statements that its tests executed; None without statements.

    Statements that leave no trace (docstrings, `pass`, `global`) do not count.
    """
    tree = parse(source)
    if tree is None:
        return None
    places = {
        (node.lineno, node.col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and not has_no_code(node)
    }
    return len(places & report.executed) / len(places) if places else None


def describe_coverage(
    problems: Sequence[Problem], reports: Sequence[Report]
) -> dict[str, dict[str, Any]]:
    """By difficulty: `coverage` of the solutions that pass, and the share of full ones."""
    shares: dict[str, list[float]] = collections.defaultdict(list)
    for problem, report in zip(problems, reports, strict=True):
        share = coverage(problem.solution, report) if report.passed else None
        if share is not None:
            shares[problem.difficulty].append(share)
    shares = {name: shares[name] for name in order_difficulties(shares)}
    whole = {**shares, "all": [share for group in shares.values() for share in group]}
    return {
        name: {
            "solutions": len(group),
            "mean": round(statistics.fmean(group), 4),
            "median": round(statistics.median(group), 4),
            "full": round(sum(share == 1 for share in group) / len(group), 4),
        }
        for name, group in whole.items()
        if group
    }


def to_table(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """`describe`'s numbers, coverage among them, a column for each difficulty."""
    columns = list(numbers)
    rows = [["", *columns]]
    for field in numbers["all"]:
        rows.append([field, *(_cell(numbers[name].get(field)) for name in columns)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def _cell(value: Any) -> str:
    if not value and value != 0:
        return "-"
    if isinstance(value, Mapping) and "full" in value:
        return f"{100 * value['mean']:.1f} %, {100 * value['full']:.0f} % full"
    if isinstance(value, Mapping) and "mean" in value:
        return f"{value['mean']:.1f} / {value['median']:g} / {value['max']:g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}:{count}" for name, count in value.items())
    return f"{100 * value:.1f} %" if isinstance(value, float) else str(value)
