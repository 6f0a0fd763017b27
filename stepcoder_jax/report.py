"""A run made visible: programs in colour, and the curves as a picture."""

from __future__ import annotations

import fnmatch
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from stepcoder_jax.logger import read_metrics
from stepcoder_jax.records import Program, Report, Verdict

RESET = "\x1b[0m"
# What the model was given, what its code ran, what it never ran.
GIVEN, RAN, IDLE = "\x1b[2m", "\x1b[32m", "\x1b[9;90m"
LEGEND = (
    f"{GIVEN}given{RESET}  {RAN}written, executed{RESET}  "
    f"{IDLE}written, never executed{RESET} (FGO drops it from the policy loss)"
)
WORDS = re.compile(r"\S(?:[^\n]*\S)?")
PLAIN_LEGEND = "| given   + executed   - never executed (FGO drops it)   ~ partly"

# Panels of the picture: title -> patterns of metric names, drawn where present.
PANELS: dict[str, tuple[str, ...]] = {
    "Rollouts: pass rate and reward": ("pass_rate", "reward"),
    "Validation pass@1 (greedy)": ("validation/pass*",),
    "Curriculum": ("cccs/stage0_share", "cccs/mean_stage"),
    "Groups whose rewards are all equal (GRPO)": ("grpo/equal_share",),
    "KL to the reference": ("kl", "*/kl", "*kl_executed", "*kl_unexecuted"),
    "Completion tokens masked by FGO": ("fgo/masked", "fgo/masked_*"),
    "Seconds per iteration": tuple(
        f"seconds/{part}" for part in ("sample", "judge", "feedback", "update")
    ),
}
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


def wants_colour(stream: TextIO) -> bool:
    """Say whether to colour: a terminal, and NO_COLOR unset (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def verdict_line(report: Report, reward: float) -> str:
    """Return the verdict, the tests passed and the reward in one line."""
    passed = sum(test.verdict is Verdict.PASS for test in report.tests)
    told = next((f", {test.error}" for test in report.tests if test.error), "")
    message = f" ({report.message})" if report.message else told
    return (
        f"verdict: {report.verdict}{message}   "
        f"tests: {passed}/{len(report.tests)}   reward: {reward:+.2f}"
    )


# Control characters by their pictures; those that turn the direction of text, or end a line
# elsewhere than we do, by U+FFFD.
_HIDDEN = [0x7F, *range(0x80, 0xA0), 0x061C, *range(0x200B, 0x2010), 0xFEFF]
_HIDDEN += [*range(0x2028, 0x202F), *range(0x2066, 0x206A)]
CONTROLS = dict.fromkeys(_HIDDEN, 0xFFFD) | {code: 0x2400 + code for code in range(0x20)}
CONTROLS |= {ord("\n"): ord("\n"), ord("\t"): ord("\t")}


def show_controls(text: str) -> str:
    """Return the text with control characters made visible: a program written by a model
    must not drive the terminal, nor show other code than it has.
    """
    return text.translate(CONTROLS)


def colour(program: Program, kept: np.ndarray, ansi: bool) -> str:
    """Return the program's source with given, executed and unexecuted code told apart.

    `kept` is bool per byte of the source (`fgo.byte_mask`). With `ansi` by colour, else by
    a mark before each line.
    """
    data = program.source.encode()
    style = np.where(np.arange(len(data)) < program.generated_from, 0, np.where(kept, 1, 2))
    if not ansi:
        return marked(data, style)
    parts = []
    for run in np.split(np.arange(len(data)), np.flatnonzero(np.diff(style)) + 1):
        if run.size:
            code = (GIVEN, RAN, IDLE)[style[run[0]]]
            text = show_controls(data[run[0] : run[-1] + 1].decode(errors="replace"))
            # Word to word within a line: no style on indentations, none left open.
            parts.append(WORDS.sub(rf"{code}\g<0>{RESET}", text))
    return "".join(parts)


def marked(data: bytes, style: np.ndarray) -> str:
    """Return the source with one mark before each line, by what its non-space bytes are."""
    lines, start = [], 0
    for line in data.split(b"\n"):
        kinds = {
            int(kind)
            for byte, kind in zip(line, style[start : start + len(line)])
            if not chr(byte).isspace()
        }
        mark = " " if not kinds else "~" if {1, 2} <= kinds else "|+-"[max(kinds)]
        lines.append(f"{mark} {show_controls(line.decode(errors='replace'))}".rstrip())
        start += len(line) + 1
    return "\n".join(lines)


def show(
    program: Program, report: Report, kept: np.ndarray, reward: float, ansi: bool
) -> str:
    """Return one rollout for a terminal: the program, its verdict line and the legend."""
    verdict = show_controls(verdict_line(report, reward))
    return "\n".join(
        [
            colour(program, kept, ansi).rstrip("\n"),
            verdict,
            LEGEND if ansi else PLAIN_LEGEND,
        ]
    )


def find_series(
    rows: Sequence[Mapping[str, Any]], patterns: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return name -> (steps, values) of the metrics that match, in the patterns' order."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    series = {}
    for pattern in patterns:
        for name in fnmatch.filter(names, pattern):
            points = [(row["step"], row[name]) for row in rows if is_number(row.get(name))]
            if points and name not in series:
                steps, values = np.array(points, float).T
                series[name] = (steps, values)
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


def draw_lines(axes: Any, series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw each series: points where they are few, else a moving mean over the raw line.

    The legend tells where each line ends.
    """
    for (name, (steps, values)), tint in zip(series.items(), PALETTE):
        is_sparse = len(values) <= 24
        line = values if is_sparse else smooth(values, max(3, len(values) // 20))
        if is_sparse:
            axes.plot(steps, values, "o", color=tint, markersize=4.5)
        else:
            axes.plot(steps, values, color=tint, linewidth=0.8, alpha=0.25)
        axes.plot(
            steps, line, color=tint, linewidth=1.9, label=f"{short(name)}  {line[-1]:.3g}"
        )


def short(name: str) -> str:
    """Return a metric's name for a legend."""
    return name.rsplit("/", 1)[-1].replace("_", " ")


def draw_stack(axes: Any, series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw seconds per part as a stack; the first iteration compiles and is left out."""
    steps = sorted({step for part_steps, _ in series.values() for step in part_steps})[1:]
    layers = []
    for part_steps, values in series.values():
        known = dict(zip(part_steps, values))
        layers.append([known.get(step, 0.0) for step in steps])
    if not steps:
        return
    labels = [f"{short(name)}  {layer[-1]:.2g}" for name, layer in zip(series, layers)]
    axes.stackplot(steps, layers, labels=labels, colors=PALETTE, alpha=0.8, linewidth=0)
    # One slow iteration (an evaluation, a checkpoint) must not flatten the rest.
    axes.set_ylim(0, 1.25 * float(np.quantile(np.sum(layers, axis=0), 0.95)) or 1.0)


def curves(
    metrics_path: str | Path,
    out_png: str | Path,
    title: str,
    panels: Mapping[str, Sequence[str]] = PANELS,
) -> Path:
    """Draw a run's curves from its `metrics.jsonl` into a PNG; return the PNG's path.

    `panels` maps titles to patterns of metric names; a panel without data is left out.
    Raises ValueError when no metric matches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(Path(metrics_path))
    found = {name: find_series(rows, patterns) for name, patterns in panels.items()}
    found = {name: series for name, series in found.items() if series}
    if not found:
        raise ValueError(f"{metrics_path}: no metric to draw in its {len(rows)} rows")
    columns = min(3, len(found))
    height = math.ceil(len(found) / columns)
    figure = Figure(
        figsize=(4.6 * columns, 3.1 * height + 0.5), dpi=130, layout="constrained"
    )
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    for place, (name, series) in enumerate(found.items()):
        axes = figure.add_subplot(height, columns, place + 1)
        is_stack = all(metric.startswith("seconds/") for metric in series)
        (draw_stack if is_stack else draw_lines)(axes, series)
        dress(axes, name, place // columns == height - 1)
    out = Path(out_png)
    figure.savefig(out, facecolor="white")
    return out


def dress(axes: Any, title: str, is_lowest: bool) -> None:
    """Give a panel its title, grid, legend and margins."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.08, y=0.12)
    if is_lowest:
        axes.set_xlabel("iteration", fontsize=9)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7.5, frameon=False, ncols=2, loc="best")
