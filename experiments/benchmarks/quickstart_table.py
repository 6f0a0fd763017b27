"""The quickstart's table and picture, from finished runs.

python experiments/benchmarks/quickstart_table.py OUT.png RUN [RUN ...]

Prints a Markdown row per run folder: greedy pass@1 on test before and after, its parts, and
what an iteration's seconds went to; draws the validation curves of all runs into OUT.png.
A run is named by its folder, ARM_SEED; arms share a colour.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stepcoder_jax.results.estimates import normal_difference
from stepcoder_jax.results.logger import read_metrics
from stepcoder_jax.runs.disk.run_folder import RunFolder

PARTS = ("sample", "judge", "feedback", "experience", "update")
HEADER = (
    "| run | before | after | change, points | competition | compiles | right of those | "
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
        f"{hard[0]:.0f} → {hard[1]:.0f}",
        f"{100 * len(compiled) / len(after):.1f}",
        f"{100 * np.mean(passed(compiled)):.1f}",
        f"{100 * mean('cccs/stage0_share', last):.0f} %",
        f"{mean('kl', last):.3f}",
        f"{median('iteration'):.1f}",
        *(f"{median(part):.2f}" for part in PARTS),
    ]
    return "| " + " | ".join(cells) + " |"


def draw(folders: list[Path], out: Path) -> None:
    """Validation pass@1 over iterations and rollout pass rate, one line per run."""
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(folder.name.rpartition("_")[0] for folder in folders))
    colours = dict(zip(arms, ("#2563eb", "#f97316", "#16a34a", "#9333ea"), strict=False))
    figure = Figure(figsize=(9, 3.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    for folder in folders:
        arm = folder.name.rpartition("_")[0]
        metrics = read_metrics(folder / "metrics.jsonl")
        label = arm if folder.name.endswith("_0") else None
        scored = [
            (r["step"] + 1, r["validation/pass@1"])
            for r in metrics
            if r.get("validation/pass@1") is not None
        ]
        left.plot(*zip(*scored, strict=True), "o-", color=colours[arm], label=label, lw=1.4)
        rate = np.convolve([r["pass_rate"] for r in metrics], np.ones(5) / 5, "valid")
        right.plot(np.arange(len(rate)) + 5, rate, color=colours[arm], label=label, lw=1.2)
    left.set_title("Validation pass@1 (greedy)", loc="left", fontsize=10)
    right.set_title("Rollouts that pass (mean of 5 iterations)", loc="left", fontsize=10)
    for axes in (left, right):
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(out, facecolor="white")


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
    print(HEADER)
    print("|" + " --- |" * HEADER.count(" | ") + " --- |")
    for folder in folders:
        print(row(folder))
    draw(folders, Path(argv[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
