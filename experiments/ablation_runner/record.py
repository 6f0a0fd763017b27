"""A run's folder as one record: what it was made from, on what, and what came out."""

from __future__ import annotations

import collections
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablation_runner import digest
from ablation_runner.digest import Parts
from ablation_runner.jobs import Ended, last_line
from ablation_runner.steps import Places
from ablation_runner.study import Job, Study
from stepcoder_jax.config import Config
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.records import InputError, Problem
from stepcoder_jax.results.drawing.curves import read_start
from stepcoder_jax.results.logger import METRICS, ROLLOUTS, read_metrics
from stepcoder_jax.runs.disk import sources

DONE, FAILED = "done", "failed"
BESIDE = "beside.json"  # of a folder of results: curves for other runs to be shown beside
OTHERS = (digest.FILE, BESIDE)  # of such a folder, and no record
PASS = "validation/pass@1_"
TOKENS, UPDATES = "tokens", "updates"  # what a run's budget is counted in
Rows = Sequence[Mapping[str, Any]]
# Of a stretch between two validations, the mean over its iterations.
TOLD = (
    *("pass_rate", "reward", "verdict/compile", "kl", "entropy", "fgo/masked"),
    *("cccs/stage0_share", "cccs/mean_stage", "cccs/done_share", "cccs/visits"),
)


def machine(cores: int) -> dict[str, Any]:
    """What the run was made on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("jax", "jaxlib", "numpy", "stepcoder_jax")
    return {
        "cpu": cpu_model(),
        "cores": cores,  # of this run
        "cores_in_all": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def cpu_model() -> str:
    """The CPU as the kernel names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def commit_of(root: Path) -> str:
    """The commit of the sources, with a + where files differ from it; "" outside of git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


def make(
    study: Study, places: Places, job: Job, parts: Parts, ended: Ended
) -> dict[str, Any]:
    """The record of a run that has ended, well or not."""
    config = study.get_config(job.arm)
    config.run.seed = job.seed
    return close_run(
        study.root,
        ended,
        about(study.root, job, parts, config, ended),
        places.log(job),
        lambda: describe(study, places, job, config),
    )


def about(
    root: Path, job: Job, parts: Parts, config: Config, ended: Ended
) -> dict[str, Any]:
    """What a run was made from, and on what."""
    fields = digest.fields_of(config)
    return {
        "arm": job.arm,
        "seed": job.seed,
        "status": FAILED if ended.code else DONE,
        "commit": commit_of(root),
        "digest": digest.describe(parts, fields),
        "machine": machine(ended.cores),
        "peak_memory_mib": round(ended.peak_mib),
        "seconds_of_the_last_session": round(ended.seconds, 1),
        "config": fields,
    }


def close_run(
    root: Path,
    ended: Ended,
    made: dict[str, Any],
    log: Path,
    describe_all: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """`made` with what came out of the run, or with how it failed."""
    if ended.code:
        # paths of this machine say nothing on another
        said = last_line(log).replace(f"{root}/", "")
        return made | {"exit_code": ended.code, "last_line": said}
    try:
        return made | describe_all()
    except (InputError, OSError) as error:
        said = f"its folder cannot be read: {error}".replace(f"{root}/", "")
        return made | {"status": FAILED, "exit_code": 0, "last_line": said}


def describe(study: Study, places: Places, job: Job, config: Config) -> dict[str, Any]:
    """What came out of a run that ended well."""
    measured = json.loads(places.measured(job).read_text())
    folder = places.folder(job)
    if not (folder / METRICS).is_file():  # raft, where no sample passed
        score = measured["best"]
        flat = {size: [score[PASS + size]] * 2 for size in sizes_in(score)}
        return {
            "budget": UPDATES,
            "nothing_to_learn": True,
            "curve": {"updates": [0, 1], **flat},
            **close(flat, measured),
        }
    rows, start = read_metrics(folder / METRICS), read_start(folder)
    seconds = sum(
        row.get("seconds/iteration") or row.get("seconds/update") or 0 for row in rows
    )
    is_text = job.arm.partition("@")[0] in study.of_text
    curve = curve_of(rows, start, config, is_text)
    passes = {size: curve[size] for size in sizes_in(start)}
    found: dict[str, Any] = {
        "budget": UPDATES if is_text else TOKENS,
        "seconds": round(seconds, 1),
        "curve": curve,
        **close(passes, measured),
    }
    if is_text:
        return found
    return found | {
        "iterations": len(rows),
        "tokens": rows[-1]["tokens/generated"],
        "rollouts": len(rows) * config.batch_size,
        "masked": masked_by_verdict(rows),
        "stretches": list(stretches(folder, rows, config)),
    }


def sizes_in(metrics: Mapping[str, Any]) -> list[str]:
    """The difficulties that validation has scores of."""
    return [name.removeprefix(PASS) for name in metrics if name.startswith(PASS)]


def curve_of(
    rows: Rows, start: Mapping[str, Any], config: Config, is_text: bool
) -> dict[str, list[float]]:
    """Greedy validation scores, before learning and after each row that measured them.

    By updates for supervised text, else by iterations, generated tokens and rollouts.
    """
    sizes = sizes_in(start)
    points = [
        row for row in rows if all(row.get(PASS + size) is not None for size in sizes)
    ]
    curve: dict[str, list[float]] = {
        size: [start[PASS + size], *(row[PASS + size] for row in points)] for size in sizes
    }
    steps = [0, *(row["step"] + 1 for row in points)]
    if is_text:
        return {UPDATES: steps, **curve}
    return {
        "iterations": steps,
        TOKENS: [0, *(row["tokens/generated"] for row in points)],
        "rollouts": [step * config.batch_size for step in steps],
        **curve,
    }


def close(
    passes: Mapping[str, Sequence[float]], measured: Mapping[str, Any]
) -> dict[str, Any]:
    """What a run ends with; forgotten is the best validation score less the last."""
    return {
        "forgetting": {size: max(values) - values[-1] for size, values in passes.items()},
        "measured": measured,
    }


def masked_by_verdict(rows: Rows) -> dict[str, float | None]:
    """Share of the completion tokens that FGO drops: the mean over iterations."""
    names = [name for name in rows[0] if name.startswith("fgo/masked")]
    return {name.removeprefix("fgo/"): mean_of(rows, name) for name in names}


def mean_of(rows: Rows, name: str) -> float | None:
    """The mean of what was measured; None where nothing was."""
    known = [row[name] for row in rows if row.get(name) is not None]
    return float(np.mean(known)) if known else None


def stretches(folder: Path, rows: Rows, config: Config) -> Iterator[dict[str, Any]]:
    """What happened between two validations: means, and what rollouts had right where."""
    problems = {x.id: x for x in sources.load_pool(config.data, "train")}
    first = 0
    for last, row in enumerate(rows):
        if row.get("validation/pass@1") is None and last + 1 < len(rows):
            continue
        chosen = rows[first : last + 1]
        drawn = [
            rollout for one in chosen for rollout in read_rollouts(folder, one["step"])
        ]
        whole = [x["verdict"] == "pass" for x in drawn if x["stage"] == 0 and x["valid"]]
        yield {
            "iterations": last + 1,
            TOKENS: row["tokens/generated"],
            **{name: mean_of(chosen, name) for name in TOLD},
            "stage0_rollouts": len(whole),
            "stage0_pass_rate": float(np.mean(whole)) if whole else None,
            **positions(drawn, problems, config),
        }
        first = last + 1


def read_rollouts(folder: Path, step: int) -> list[dict[str, Any]]:
    """The rollouts of an iteration that kept them."""
    path = folder / ROLLOUTS / f"{step}.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error})") from None


def positions(
    drawn: Rows, problems: Mapping[str, Problem], config: Config
) -> dict[str, dict[str, Any]]:
    """By number of parts that were given: shares of sampled programs that have each part's
    guard, class and operation right; what was given is left out (null)."""
    if config.data.path != "guarded":
        return {}
    from stepcoder_jax.data.generated import guarded

    found = collections.defaultdict(list)
    for row in drawn:
        problem = problems[row["problem"]]
        right = guarded.accuracy_by_position(problem, row["head"] + row["completion"])
        given = sum(line.lstrip().startswith("if ") for line in row["head"].split("\n"))
        found[len(right), given].append(right)
    return {
        "positions": {
            f"{parts} parts, {given} given": {
                "programs": len(rows),
                **{
                    name: [None] * given
                    + np.mean([[part[i] for part in row] for row in rows], axis=0)
                    .round(3)
                    .tolist()[given:]
                    for i, name in enumerate(("guard", "class", "operation"))
                },
            }
            for (parts, given), rows in sorted(found.items())
        }
    }


def write(path: Path, record: Mapping[str, Any]) -> None:
    """All or nothing; a field a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    fields = [
        f"{json.dumps(x)}: {json.dumps(y, allow_nan=False)}" for x, y in record.items()
    ]
    part.write_text("{\n" + ",\n".join(fields) + "\n}\n")
    part.replace(path)


def read_all(results: Path) -> list[dict[str, Any]]:
    """All records of a folder of results."""
    paths = sorted(results.glob("*.json"))
    return [read(path) for path in paths if path.name not in OTHERS]


def read(path: Path) -> dict[str, Any]:
    """A record; DataError for a file that is none."""
    try:
        record = json.loads(path.read_text())
        missing = {"arm", "seed", "status", "digest", "config"} - record.keys()
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: expected the record of a run ({error})") from None
    if missing:
        raise DataError(f"{path}: expected the record of a run, without {min(missing)}")
    return dict(record)
