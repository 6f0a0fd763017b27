"""`stepcoder report RUN [RUN ...] --out FILE.html`: runs in one file for a browser.

RUN is a folder of `stepcoder train` or `sft`, finished or not. What cannot be read of one
is said in a line, here and in the report, and the rest is shown.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from stepcoder_jax.config import Config
from stepcoder_jax.records import InputError
from stepcoder_jax.report import figures, page, reading
from stepcoder_jax.report.packing import MOST_TEXT, Packer
from stepcoder_jax.report.reading import RunRecord
from stepcoder_jax.results.outcomes import names_of

RunsArg = Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN")]


@dataclasses.dataclass
class ReportOptions:
    """Write one HTML file that shows runs: curves with intervals over runs of one config,
    verdicts, the curriculum, the critic, and a browser of rollouts, with the keyboard or
    the mouse. It needs no network.

    stepcoder report runs/a --out a.html
    stepcoder report runs/seed0 runs/seed1 runs/seed2 runs/other --out all.html
    """

    runs: RunsArg
    """Folders of `stepcoder train` or `stepcoder sft`."""
    out: str = ""
    """The HTML file."""
    rollouts: int = 20_000
    """How many rollouts are kept at most, evenly over iterations; 0: none."""
    force: bool = False
    """Overwrite the file."""


def report(options: ReportOptions) -> int:
    """`stepcoder report`; returns the exit code."""
    out = check(options)
    notes: list[str] = []
    runs = [
        reading.read_run(Path(path), name, notes)
        for path, name in names_of(options.runs).items()
    ]
    if not any(run.metrics or run.rollouts for run in runs):
        raise InputError(f"RUN: nothing to show: {'; '.join(notes)}")
    reading.compare_benchmarks(runs, notes)
    kept = reading.choose_files(runs, options.rollouts, notes)
    packer = Packer()
    for number, run in enumerate(kept):
        for step, row in reading.iter_rollouts(run, notes):
            packer.add(number, step, row)
    index = packer.finish()
    head = {
        "notes": notes,
        "runs": [describe_run(run) for run in runs],
        "arms": figures.describe_arms(runs),
        "charts": figures.draw_charts(runs),
        "rollouts": packer.count,
        "statements": statements_of(runs, set(packer.problems)),
    }
    write(out, page.render(head, index, packer.chunks))
    for note in notes:
        print(note, file=sys.stderr)
    megabytes = out.stat().st_size / 1e6
    print(f"wrote {out} ({megabytes:.1f} MB, {packer.count} rollouts of {len(runs)} runs)")
    return 0


def check(options: ReportOptions) -> Path:
    """Where the report goes; InputError before anything is read."""
    if not options.runs:
        raise InputError("RUN: expected one or more folders of runs")
    if len({os.path.realpath(path) for path in options.runs}) < len(options.runs):
        raise InputError("RUN: the same folder is given twice")
    if options.rollouts < 0:
        raise InputError(f"--rollouts: expected 0 or more, got {options.rollouts}")
    if not options.out:
        raise InputError("--out: expected a file, as in --out report.html")
    out = Path(options.out)
    if out.is_dir():
        raise InputError(f"--out: {out} is a folder; give a file in it, as in {out}/a.html")
    if out.exists() and not options.force:
        raise InputError(
            f"--out: {out} exists; give another name, or --force to overwrite it"
        )
    if not out.absolute().parent.is_dir():
        raise InputError(
            f"--out: {out}: cannot be written (there is no folder {out.parent})"
        )
    return out


def describe_run(run: RunRecord) -> dict[str, Any]:
    """A run's line in the report's table of runs."""
    last = run.metrics[-1] if run.metrics else {}
    asked = ("algorithm", "data.path", "run.seed", "cccs.enabled", "fgo.mask")
    return {
        "name": run.name,
        "iterations": len(run.metrics),
        "last": last.get("step"),
        "tokens": last.get("tokens/generated"),
        **{name: run.config.get(name) for name in asked},
    }


def statements_of(runs: Sequence[RunRecord], wanted: set[str]) -> dict[str, str]:
    """The statements of the problems, as far as the runs' problems can still be read."""
    from stepcoder_jax.runs.disk import sources

    found: dict[str, str] = {}
    for run in runs:
        if wanted <= found.keys() or not run.config:
            continue
        try:
            config = Config.from_dict(run.tree, str(run.path))
            config.validate()
            problems = sources.load_pool(config.data, "train")
        except InputError:  # the files of another machine, or gone: shown without
            continue
        found |= {x.id: x.statement[:MOST_TEXT] for x in problems if x.id in wanted}
    return found


def write(out: Path, parts: Iterable[str]) -> None:
    """All of the file, or nothing of it."""
    part = out.with_name(out.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        os.replace(part, out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"--out: {out}: cannot be written ({error.strerror})") from None
