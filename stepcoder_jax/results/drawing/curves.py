"""A run's curves as a picture, from its metrics.jsonl."""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.results.drawing.beside import Beside, own
from stepcoder_jax.results.logger import START, read_metrics

Series = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> (places, values)


SHARE, POSITIVE = (0.0, 1.0), (0.0, math.inf)


class Panel(NamedTuple):
    """One part of the picture: the metrics whose names match, where they are present."""

    title: str
    metrics: tuple[str, ...]  # patterns
    note: str = ""  # what must be known to read it
    bounds: tuple[float, float] = (-math.inf, math.inf)  # of what it can show
    is_stack: bool = False  # parts of a sum


SECONDS = tuple(f"seconds/{part}" for part in ("sample", "judge", "feedback", "update"))
RL_PANELS = (
    Panel(
        "Validation pass@1",
        ("validation/pass*",),
        "greedy, whole programs; 0: before learning",
        bounds=SHARE,
    ),
    Panel(
        "Rollouts: pass rate",
        ("pass_rate", "cccs/pass_rate_*"),
        "sampled; code that was given is included, so this is no pass@1 (stage0: whole)",
        bounds=SHARE,
    ),
    Panel("Rollouts: mean reward", ("reward",), "sampled; given code is included"),
    Panel("Curriculum: whole programs, and code given", ("cccs/*_share",), bounds=SHARE),
    Panel("Curriculum: mean stage", ("cccs/mean_stage",), "0: whole", bounds=POSITIVE),
    Panel("Groups of equal rewards (GRPO)", ("grpo/equal_share",), bounds=SHARE),
    Panel(
        "KL to the reference",
        ("kl", "*/kl", "*kl_executed", "*kl_unexecuted"),
        "nats per token",
        bounds=POSITIVE,
    ),
    Panel("Entropy", ("entropy",), "nats per token", bounds=POSITIVE),
    Panel("Clipping", ("clip_fraction",), "share of kept tokens", bounds=SHARE),
    Panel("Values", ("value", "return"), "means over tokens"),
    Panel("Values: RMSE by verdict", ("value_rmse/*",), bounds=POSITIVE),
    Panel("Value loss", ("value_loss",), bounds=POSITIVE),
    Panel(
        "Masked by FGO",
        ("fgo/masked", "fgo/masked_*"),
        "share of completion tokens, by verdict",
        bounds=SHARE,
    ),
    Panel("Seconds per iteration", SECONDS, is_stack=True),
)
SFT_PANELS = (
    Panel(
        "Loss",
        ("loss", "validation/loss"),
        "nats per completion token; 0: before learning",
        bounds=POSITIVE,
    ),
    RL_PANELS[0],
    Panel("Learning rate", ("learning_rate",), bounds=POSITIVE),
    Panel("Tokens per second", ("tokens_per_second",), bounds=POSITIVE),
)
PALETTE = (
    "#2563eb",
    "#f97316",
    "#16a34a",
    "#9333ea",
    "#dc2626",
    "#0891b2",
    "#a16207",
    "#64748b",
)


def find_series(
    rows: Sequence[Mapping[str, Any]],
    patterns: Sequence[str],
    start: Mapping[str, Any] | None = None,
) -> Series:
    """Return name -> (places, values) of the metrics that match, in the patterns' order.

    A place is how many updates the model had seen that was measured: what row `step` says
    of rollouts is of the model before its update, of validation of the one after it.
    `start` has the metrics of the model before learning.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    series: Series = {}
    for pattern in patterns:
        for name in fnmatch.filter(names, pattern):
            later = int(name.startswith("validation/"))
            found = [(row["step"] + later, row.get(name)) for row in rows]
            points = [(0, (start or {}).get(name)), *found]
            points = [point for point in points if is_number(point[1])]
            if points and name not in series:
                places, values = np.array(points, float).T
                series[name] = (places, values)
    return series


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Return the centred moving mean; at the ends the window is what there is."""
    kernel = np.ones(width)
    total = np.convolve(values, kernel, mode="full")
    count = np.convolve(np.ones_like(values), kernel, mode="full")
    offset = (width - 1) // 2
    return (total / count)[offset : offset + len(values)]


def draw_lines(axes: Any, series: Series) -> None:
    """Draw each series: points where they are few, else a moving mean over the raw line.

    The legend tells where each line ends. Points on the panel's edge are drawn whole.
    """
    names = short_names(series)
    for name, (steps, values), tint in zip(names, series.values(), PALETTE):
        is_sparse = len(values) <= 24
        line = values if is_sparse else smooth(values, max(3, len(values) // 20))
        if is_sparse:
            axes.plot(steps, values, "o", color=tint, markersize=4.5, clip_on=False)
        else:
            axes.plot(steps, values, color=tint, linewidth=0.8, alpha=0.25)
        axes.plot(
            steps,
            line,
            color=tint,
            linewidth=1.9,
            label=f"{name}  {line[-1]:.3g}",
            clip_on=False,
        )


def draw_beside(
    axes: Any, others: Beside, tokens: Sequence[float], values: Sequence[float]
) -> None:
    """Draw this run's points over a thin line for each of the others."""
    theirs = {"color": PALETTE[1], "linewidth": 1.2, "clip_on": False}
    for place, run in enumerate(others.runs):
        label = f"{others.name}, {others.seeds}" if place == 0 else None
        axes.plot(run.tokens / 1000, run.values, label=label, **theirs)
    ours = {"color": PALETTE[0], "linewidth": 1.9, "markersize": 4.5, "clip_on": False}
    axes.plot(np.divide(tokens, 1000), values, "o-", label="this run", **ours)


def short_names(names: Iterable[str]) -> list[str]:
    """Return metrics' names for a legend: their last parts, where these tell them apart."""
    whole = list(names)
    lasts = [name.rpartition("/")[2] for name in whole]
    return [
        (last if lasts.count(last) == 1 else name).replace("/", " ").replace("_", " ")
        for name, last in zip(whole, lasts)
    ]


def draw_stack(axes: Any, series: Series) -> None:
    """Draw seconds per part as a stack; the first iteration compiles and is left out."""
    steps = sorted({step for part_steps, _ in series.values() for step in part_steps})[1:]
    layers = []
    for part_steps, values in series.values():
        known = dict(zip(part_steps, values))
        layers.append([known.get(step, 0.0) for step in steps])
    if not steps:
        return
    names = short_names(series)
    labels = [f"{name}  {layer[-1]:.2g}" for name, layer in zip(names, layers)]
    axes.stackplot(steps, layers, labels=labels, colors=PALETTE, alpha=0.8, linewidth=0)
    # One slow iteration (an evaluation, a checkpoint) must not flatten the rest.
    axes.set_ylim(0, 1.25 * float(np.quantile(np.sum(layers, axis=0), 0.95)) or 1.0)


def read_start(folder: Path) -> dict[str, Any]:
    """The metrics before learning, where the run measured them."""
    path = folder / START
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def draw(
    metrics_path: str | Path,
    out_png: str | Path,
    title: str,
    panels: Sequence[Panel] = RL_PANELS,
    unit: str = "iteration",
    others: Beside | None = None,
) -> Path:
    """Draw a run's curves from its `metrics.jsonl` into a PNG; return the PNG's path.

    A panel without data is left out; `others` have the second one. Raises ValueError when
    no metric matches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, start = read_metrics(Path(metrics_path)), read_start(Path(metrics_path).parent)
    series = [(panel, find_series(rows, panel.metrics, start)) for panel in panels]
    found = [(panel, lines) for panel, lines in series if lines]
    if not found:
        raise ValueError(f"{metrics_path}: no metric to draw in its {len(rows)} rows")
    count = len(found) + (others is not None)
    columns = 2 if count == 4 else min(3, count)
    height = math.ceil(count / columns)
    figure = Figure(
        figsize=(5.4 * columns, 2.7 * height + 0.5), dpi=110, layout="constrained"
    )
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    for i, (panel, lines) in enumerate(found):
        place = i + (others is not None and i > 0)  # theirs is the second panel
        axes = figure.add_subplot(height, columns, place + 1)
        (draw_stack if panel.is_stack else draw_lines)(axes, lines)
        dress(axes, panel, unit if place + columns >= count else "")
    if others is not None:
        axes = figure.add_subplot(height, columns, min(2, count))
        draw_beside(axes, others, *own(rows, start, others.metric))
        note = f"{others.metric.rpartition('/')[2].replace('_', ' ')}, greedy"
        panel = Panel(f"Beside {others.name}", (), note, bounds=SHARE)
        dress(axes, panel, "generated tokens, thousands")
    out = Path(out_png)
    figure.savefig(out, facecolor="white")
    return out


def dress(axes: Any, panel: Panel, label: str) -> None:
    """Give a panel its title and note, grid, margins, and its legend beside the data."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(panel.title, fontsize=10, fontweight="bold", loc="left", pad=16)
    axes.text(0, 1.03, panel.note, fontsize=7.5, color="#475569", transform=axes.transAxes)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    if not panel.is_stack:
        axes.margins(x=0.04, y=0.12)
    trim_margins(axes, panel.bounds)
    axes.set_xlabel(label, fontsize=9)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            fontsize=7.5,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.03),
            borderaxespad=0.3,
        )


def trim_margins(axes: Any, bounds: tuple[float, float]) -> None:
    """End the vertical axis where values end; what lies beyond all the same is shown."""
    low, high = axes.get_ylim()
    least, most = axes.dataLim.intervaly
    if least > most:  # nothing is drawn
        return
    rounding = 1e-3 * (most - least)
    if bounds[0] <= least + rounding:
        low = max(bounds[0], low)
    if most - rounding <= bounds[1]:
        high = min(bounds[1], high)
    axes.set_ylim(low, high)
