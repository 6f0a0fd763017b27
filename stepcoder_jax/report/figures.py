"""Curves of runs for the report: a line per arm, its mean and interval over runs.

Runs are of one arm where their configs differ in the seed and in what changes no result.
"""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.report.reading import RunRecord
from stepcoder_jax.results.drawing.curves import SECONDS
from stepcoder_jax.results.seeds import t_interval

MOST_POINTS = 240  # of a line
# Sections, and fields, of a config that tell no arm from another.
_NOT_OF_THE_ARM = ("run.", "mesh.", "execution.workers", "execution.cache_size")
_VERDICTS = ("pass", "wrong", "runtime", "timeout", "memory", "output", "compile", "infra")


class Chart(NamedTuple):
    """One chart: each metric a line, of every arm or of the one that is chosen."""

    title: str
    metrics: tuple[str, ...]
    note: str = ""  # what must be known to read it
    is_stack: bool = False  # parts of a sum
    least: float | None = None  # where the axis begins, if values do not go below
    most: float | None = None
    floor: float | None = None  # values below are drawn at the edge, so that others show
    prefix: str = ""  # of the metrics' names, which the legend leaves out

    @property
    def of_one_arm(self) -> bool:
        return len(self.metrics) > 1

    def label(self, metric: str) -> str:
        """A metric's name in the legend; "all" is that of all verdicts together."""
        return metric.removeprefix(self.prefix).lstrip("_") or "all"


def _of_verdicts(name: str) -> tuple[str, ...]:
    return tuple(f"{name}{verdict}" for verdict in _VERDICTS)


CHARTS = (
    Chart("Validation pass@1", ("validation/pass@1",), "greedy, whole programs", least=0),
    Chart("Pass rate", ("pass_rate",), "of rollouts, given code included", least=0),
    Chart("Pass rate of whole programs", ("cccs/pass_rate_stage0",), "stage 0", least=0),
    Chart("Reward", ("reward",), "mean over rollouts"),
    Chart("Mean stage", ("cccs/mean_stage",), "0: nothing is given", least=0),
    Chart("KL to the reference", ("kl",), "nats per token"),
    Chart("Entropy", ("entropy",), "nats per token", least=0),
    Chart(
        "Explained variance",
        ("explained_variance",),
        "over all rows; below -1 at the edge",
        floor=-1,
    ),
    Chart("Completion length", ("completion_length",), "tokens", least=0),
    Chart("Loss", ("loss",), "nats per completion token", least=0),
    Chart("Validation loss", ("validation/loss",), "nats per completion token", least=0),
    Chart(
        "Verdicts",
        _of_verdicts("verdict/"),
        "share of rollouts",
        is_stack=True,
        least=0,
        most=1,
        prefix="verdict/",
    ),
    Chart(
        "Masked by FGO",
        ("fgo/masked", *_of_verdicts("fgo/masked_")),
        "share of completion tokens, by verdict",
        least=0,
        prefix="fgo/masked",
    ),
    Chart(
        "KL, by what ran",
        ("kl_executed", "kl_unexecuted"),
        "nats per token of executed and of other code",
        prefix="kl_",
    ),
    Chart(
        "Critic: bias by verdict",
        _of_verdicts("value_bias/"),
        "value minus return",
        prefix="value_bias/",
    ),
    Chart(
        "Critic: RMSE by verdict",
        _of_verdicts("value_rmse/"),
        "of values",
        least=0,
        prefix="value_rmse/",
    ),
    Chart(
        "Seconds per iteration",
        SECONDS,
        "the first one compiles and is left out",
        is_stack=True,
        least=0,
        prefix="seconds/",
    ),
)


def arms_of(runs: Sequence[RunRecord]) -> list[list[int]]:
    """The numbers of the runs of each arm; a run without a config is an arm of its own."""
    arms: dict[str, list[int]] = collections.defaultdict(list)
    for number, run in enumerate(runs):
        fields = {
            name: value
            for name, value in run.config.items()
            if not name.startswith(_NOT_OF_THE_ARM)
        }
        key = json.dumps(fields, sort_keys=True) if fields else f"run {number}"
        arms[key].append(number)
    return list(arms.values())


def describe_arms(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Each arm's name, its runs, and the fields of the config that not all arms share."""
    arms = arms_of(runs)
    firsts = [runs[arm[0]].config for arm in arms]
    names = sorted({name for config in firsts for name in config})
    unlike = [
        name
        for name in names
        if not name.startswith(_NOT_OF_THE_ARM)
        and any(config.get(name) != firsts[0].get(name) for config in firsts)
    ]
    return [
        {
            "name": _name([runs[number].name for number in arm]),
            "runs": arm,
            "unlike": {name: config.get(name) for name in unlike},
        }
        for arm, config in zip(arms, firsts)
    ]


def _name(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def draw_charts(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The charts that have a line, each as the page draws it."""
    arms = arms_of(runs)
    drawn = []
    for chart in CHARTS:
        lines = [
            {"arm": arm, "metric": metric, "label": chart.label(metric), **line}
            for metric in chart.metrics
            for arm, numbers in enumerate(arms)
            if (line := _line([runs[i] for i in numbers], metric, chart)) is not None
        ]
        if lines:
            drawn.append(
                {
                    **{"title": chart.title, "note": chart.note, "stack": chart.is_stack},
                    **{"least": chart.least, "most": chart.most, "lines": lines},
                    "floor": chart.floor,
                    "of_one_arm": chart.of_one_arm,
                }
            )
    return drawn


def _line(runs: Sequence[RunRecord], metric: str, chart: Chart) -> dict[str, Any] | None:
    """The mean over the runs of an arm where all have a point, and each run's own line."""
    found = [run.series([metric]).get(metric) for run in runs]
    skipped = int(chart.is_stack and metric in SECONDS)
    series = [(x[skipped:], y[skipped:]) for x, y in filter(None, found)]
    series = [(x, y) for x, y in series if x.size]
    if not series or (chart.is_stack and not any(y.any() for _, y in series)):
        return None
    span = max(x[-1] for x, _ in series) - min(x[0] for x, _ in series)
    width = max(1, math.ceil((span + 1) / MOST_POINTS))
    curves = [_thin(x, y, width) for x, y in series]
    places = sorted(set.intersection(*(set(curve) for curve in curves)))
    points = [t_interval([curve[place] for curve in curves]) for place in places]
    line: dict[str, Any] = {"x": places, "y": [_short(point.value) for point in points]}
    if len(curves) > 1:
        line["low"] = [_short(point.low) for point in points]
        line["high"] = [_short(point.high) for point in points]
        line["runs"] = [
            [list(curve), [_short(y) for y in curve.values()]] for curve in curves
        ]
    return line


def _thin(places: np.ndarray, values: np.ndarray, width: int) -> dict[int, float]:
    """The means of `width` places each, by their first place."""
    bins: dict[int, list[float]] = collections.defaultdict(list)
    for place, value in zip(places, values):
        bins[int(place) // width * width].append(float(value))
    return {place: sum(found) / len(found) for place, found in bins.items()}


def _short(value: float) -> float | None:
    """Four digits; None for nan and inf, which JSON has not."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
