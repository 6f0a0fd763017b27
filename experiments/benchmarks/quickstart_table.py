"""The quickstart's table and picture, from finished runs.

python experiments/benchmarks/quickstart_table.py OUT.png RUN [RUN ...]

Prints a Markdown row per run folder: greedy pass@1 on test before and after, its parts, the
minutes after which 30 % of the hardest validation problems passed, and what an iteration's
seconds went to; draws the validation curves of all runs into OUT.png. A run is named by its
folder, ARM_SEED; arms share a colour.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stepcoder_jax.records import InputError
from stepcoder_jax.results.drawing.beside import Beside, own, read
from stepcoder_jax.results.drawing.curves import read_start, smooth
from stepcoder_jax.results.estimates import normal_difference
from stepcoder_jax.results.logger import read_metrics
from stepcoder_jax.runs.disk.run_folder import RunFolder

PARTS = ("sample", "judge", "feedback", "update")
WIDTH = 5  # iterations of the moving mean
HEADER = (
    "| run | before | after | change, points | competition | minutes to 30 % | minutes | "
    "compiles | right of those | "
    "stage 0 | KL | s/it | " + " | ".join(PARTS) + " |"
)


def passed(rows: list[list[str]], level: str = "") -> list[bool]:
    """Which problems (of one difficulty) passed."""
    return [
        verdict == "pass" for _, difficulty, verdict in rows if level in ("", difficulty)
    ]


def row(folder: Path) -> str:
    """The Markdown row of one run."""
    before = json.loads((folder / "before.json").read_text())
    after = json.loads((folder / "after.json").read_text())
    change, half = normal_difference(passed(before), passed(after))
    compiled = [item for item in after if item[2] != "compile"]
    metrics = read_metrics(folder / "metrics.jsonl")
    last = metrics[-5:]

    def mean(name: str, rows: list[dict[str, Any]]) -> float:
        return float(np.mean([r[name] for r in rows]))

    def median(name: str) -> float:
        return float(np.median([r[f"seconds/{name}"] for r in metrics[2:]]))

    hard = [100 * np.mean(passed(rows, "competition")) for rows in (before, after)]
    cells = [
        folder.name,
        f"{100 * np.mean(passed(before)):.1f}",
        f"{100 * np.mean(passed(after)):.1f}",
        f"{100 * change:+.1f} ± {100 * half:.1f}",
        f"{hard[0]:.1f} → {hard[1]:.1f}",
        f"{minutes_to(metrics, 0.3):.1f}",
        f"{minutes_of(metrics)[-1]:.1f}",
        f"{100 * len(compiled) / len(after):.1f}",
        f"{100 * np.mean(passed(compiled)):.1f}",
        f"{100 * mean('cccs/stage0_share', last):.0f} %",
        f"{mean('kl', last):.3f}",
        f"{median('iteration'):.1f}",
        *(f"{median(part):.2f}" for part in PARTS),
    ]
    return "| " + " | ".join(cells) + " |"


def minutes_of(metrics: list[dict[str, Any]]) -> np.ndarray:
    """Minutes from the first iteration's start to the end of each, validation included."""
    return np.cumsum([row["seconds/iteration"] for row in metrics]) / 60


def minutes_to(metrics: list[dict[str, Any]], share: float) -> float:
    """Those after which the hardest validation problems first passed so often; else nan."""
    name = "validation/pass@1_competition"
    for minute, row in zip(minutes_of(metrics), metrics, strict=True):
        if (row.get(name) or 0) >= share:
            return float(minute)
    return math.nan


def draw(folders: list[Path], others: Beside | None, out: Path) -> None:
    """Greedy validation and rollouts that pass, over generated tokens, a line per run.

    Of K = 9 alone, beside other runs, where the config names some (`evaluation.beside`).
    """
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(arm_of(folder) for folder in folders))
    colours = dict(zip(arms, ("#2563eb", "#16a34a", "#9333ea", "#64748b"), strict=False))
    figure = Figure(figsize=(9, 3.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    metric = others.metric if others else "validation/pass@1"
    for i, run in enumerate(others.runs if others else ()):
        label = f"{others.name} ({len(others.runs)})" if others and not i else None
        left.plot(run.tokens / 1e3, 100 * run.values, color="#f97316", label=label, lw=1.2)
    for place, folder in enumerate(folders):
        arm = arm_of(folder)
        metrics = read_metrics(folder / "metrics.jsonl")
        is_first = arm not in map(arm_of, folders[:place])
        label = arm.replace("_", " ") if is_first else None
        tokens, values = own(metrics, read_start(folder), metric)
        style = {"color": colours[arm], "label": label, "lw": 1.4}
        left.plot(np.divide(tokens, 1e3), np.multiply(100, values), "o-", **style)
        rate = smooth(np.array([r["pass_rate"] for r in metrics], float), WIDTH)
        seen = [r["tokens/generated"] / 1e3 for r in metrics]
        right.plot(seen, 100 * rate, color=colours[arm], label=label, lw=1.2)
    name = metric.removeprefix("validation/").replace("_", " ")
    left.set_title(f"Validation, {name} (greedy), %", loc="left", fontsize=10)
    right.set_title(
        f"Rollouts that pass (mean of {WIDTH} iterations), %", loc="left", fontsize=10
    )
    for axes in (left, right):
        axes.set_xlabel("generated tokens, thousands")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(out, facecolor="white")


def arm_of(folder: Path) -> str:
    """ARM of a folder ARM_SEED, else the whole name."""
    return folder.name.rpartition("_")[0] or folder.name


def others_of(folder: Path) -> Beside | None:
    """The curves that a run was shown beside."""
    named = RunFolder(folder).read_config().evaluation.beside
    return read(named) if named else None


def main(argv: list[str]) -> int:
    """Print the table, draw the picture."""
    if len(argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    folders = [RunFolder(name).path for name in argv[1:]]
    unfinished = [str(path) for path in folders if not (path / "after.json").is_file()]
    if unfinished:
        print(
            f"RUN: no after.json in {unfinished[0]}; wait until it is done", file=sys.stderr
        )
        return 2
    try:
        others = others_of(folders[0])
    except InputError as error:
        print(f"RUN: {error}", file=sys.stderr)
        return 2
    print(HEADER)
    print("|" + " --- |" * HEADER.count(" | ") + " --- |")
    for folder in folders:
        print(row(folder))
    draw(folders, others, Path(argv[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
