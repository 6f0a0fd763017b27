"""One picture of the ablation: curves, comparisons, and what was learnt at which part."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ablation_runner.record import TOKENS
from ablation_runner.study import Study
from ablation_runner.table import PRIMARY, Runs, compare, operations_right
from stepcoder_jax.results.drawing.curves import PALETTE

_GRID = 101


def draw(study: Study, runs: Runs, out: Path) -> None:
    """Curves of the claimed arms, the exploratory ones, differences, accuracy by part."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 2)
    of = f"arms: greedy pass, {study.primary}"
    draw_curves(upper[0], runs, study.claimed, f"Claimed {of}")
    draw_curves(upper[1], runs, study.exploratory, f"Exploratory {of}")
    draw_differences(lower[0], study, runs)
    draw_positions(lower[1], study, runs)
    for axes in figure.axes:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, facecolor="white")


def draw_curves(axes: Any, runs: Runs, arms: tuple[str, ...], title: str) -> None:
    """The mean over seeds of each arm, bold, over a thin line of each run."""
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    tints = iter((*PALETTE, *PALETTE))
    styles = iter(["-"] * len(PALETTE) + ["--"] * len(PALETTE))
    for arm in arms:
        records = [x for x in runs.done.get(arm, {}).values() if x["budget"] == TOKENS]
        if not records:
            continue
        tint, style = next(tints), next(styles)
        grid = np.linspace(0, runs.ends.tokens, _GRID)
        lines = []
        for record in records:
            curve = record["curve"]
            lines.append(np.interp(grid, curve[TOKENS], curve[PRIMARY]))
            axes.plot(grid / 1e6, 100 * lines[-1], color=tint, linewidth=0.6, alpha=0.3)
        mean = 100 * np.mean(lines, axis=0)
        label = f"{arm.replace('_', ' ')} ({len(records)})"
        axes.plot(grid / 1e6, mean, style, color=tint, linewidth=2, label=label)
    axes.set_xlabel("generated tokens, millions", fontsize=9)
    axes.set_ylim(-2, 102)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7.5, frameon=False, loc="upper left")


def draw_differences(axes: Any, study: Study, runs: Runs) -> None:
    """Each comparison with its interval."""
    title = "Differences of the mean over tokens, points [95 %]"
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    names = []
    for place, (one, other) in enumerate(study.comparisons):
        pairs, found = compare(runs, one, other, TOKENS)
        names.append(f"{one} -\n{other} ({pairs})".replace("_", " "))
        if math.isnan(found.change):
            continue
        axes.plot(100 * found.change, place, "o", color=PALETTE[0])
        if not math.isnan(found.low):
            ends = (100 * found.low, 100 * found.high)
            axes.plot(ends, (place, place), color=PALETTE[0], linewidth=2)
    axes.axvline(0, color="#475569", linewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_positions(axes: Any, study: Study, runs: Runs) -> None:
    """Operations right by part, of the greedy programs of the last model."""
    title = "Operation right at each of nine parts, at the end"
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    for arm, tint in zip(study.claimed, PALETTE):
        records = list(runs.done.get(arm, {}).values())
        shares = [100 * share for share in operations_right(records)]
        if not all(map(math.isnan, shares)):
            axes.plot(shares, "o-", color=tint, linewidth=1.5, label=arm.replace("_", " "))
    axes.set_xlabel("part of the program", fontsize=9)
    axes.set_ylim(-2, 102)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7.5, frameon=False)
