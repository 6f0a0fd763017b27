"""`stepcoder data profile RUN`: programs for each problem, judged, added up, written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.config.paths import SHIPPED
from stepcoder_jax.devices import digests, joining
from stepcoder_jax.feedback import cccs
from stepcoder_jax.feedback.cccs import CurriculumState
from stepcoder_jax.records import Problem, Report
from stepcoder_jax.runs import problem_set, restore
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.run_folder import RunFolder
from stepcoder_jax.runs.generate import Coder, judge_stream
from stepcoder_jax.runs.posing import profile
from stepcoder_jax.runs.posing.profile import Profile
from stepcoder_jax.sampling.drawing import Truncation

_WINDOW = 1024  # rollouts between two looks at what was judged
_EXIT_GOOD, _EXIT_INFRA = 0, 2


class Wanted(NamedTuple):
    """What is measured, and where it goes: the flags of `stepcoder data profile`."""

    run: str
    samples_per_problem: int
    step: int
    before: bool
    out: str
    seed: int
    force: bool


def measure(options: Wanted) -> int:
    """`stepcoder data profile`; returns the exit code: 2 where programs were not judged."""
    joining.join_hosts()
    if options.samples_per_problem < 1:
        raise ConfigError(
            f"--samples-per-problem: expected at least 1, got {options.samples_per_problem}"
        )
    folder = RunFolder(options.run)
    config = folder.read_config()
    if config.data.contexts:
        raise ConfigError(
            f"RUN: {options.run} answers data.contexts, which have no pass rates; give a "
            "run that poses problems"
        )
    path = _choose_out(options, config)
    step = None if options.before else _choose_step(folder, options.step)
    opened = restore.opened(options.run, step, options.before, coverage="none")
    with opened as (config, coder, actor, label):
        problems = _pool(config, coder, folder)
        curriculum = cccs.initial(problems, config.cccs)
        if step is not None:
            curriculum = folder.read_curriculum(step)
        known = problem_set.describe(problems, visible=config.prompt.show_visible)
        if len(curriculum.stage) != len(problems):
            raise ConfigError(
                f"data.path: the run learns from {len(curriculum.stage)} problems, got "
                f"{len(problems)}; give it its own problems again"
            )
        reports = sample(options, coder, actor, problems, curriculum)
        model = digests.digest(actor)
    found = add_up(reports, options.samples_per_problem, curriculum)
    about = {
        "run": str(Path(options.run).absolute()),
        "model": label,
        "model_sha256": model,
        "samples_per_problem": options.samples_per_problem,
        "seed": options.seed,
    }
    profile.write(path, known, found, about)
    print(describe(found, path, label))
    return _EXIT_INFRA if np.isnan(found.rate).any() else _EXIT_GOOD


def _choose_out(options: Wanted, config: Config) -> Path:
    data = config.data.path
    set_file = data.rpartition(":")[0] if not Path(data).exists() else data
    beside = Path(options.run) if data in SHIPPED else Path(set_file).parent
    name = "profile.json" if data in SHIPPED else f"{Path(set_file).name}.profile.json"
    path = Path(options.out) if options.out else beside / name
    if path.exists() and not options.force:
        raise ConfigError(
            f"--out: {path} exists; give another name, or --force to overwrite it"
        )
    return path


def _choose_step(folder: RunFolder, asked: int) -> int:
    step = folder.latest(best=False) if asked < 0 else asked
    if step is None:
        raise ConfigError(
            f"RUN: {folder.path} has no checkpoint yet; add --before, or wait"
        )
    return step


def _pool(config: Config, coder: Coder, folder: RunFolder) -> list[Problem]:
    """The problems that the run learns from, in the order of its curriculum."""
    shown = config.prompt.show_visible
    found = sources.load_pool(config.data, "train", config.execution, shown)
    tasks = [
        task
        for row, problem in enumerate(found)
        for task in cccs.pose_all(problem, row, config.cccs)
    ]
    out = sources.leave_out_long(tasks, coder.tokenizer, config, restore.PROMPT_FLAG)
    kept = [problem for problem in found if problem.id not in out]
    return sources.limit_cpu(kept, config, "train", folder.limits_file)


def sample(
    options: Wanted,
    coder: Coder,
    actor: object,
    problems: Sequence[Problem],
    curriculum: CurriculumState,
) -> list[Report]:
    """The reports of n programs for each problem at its stage, problem by problem."""
    config, number = coder.steps.config, options.samples_per_problem
    ours = config.sampling
    truncation = Truncation(ours.temperature, ours.top_p, ours.top_k, ours.min_p)
    each = cccs.pose_groups(
        problems, range(len(problems)), curriculum.stage, number, config.cccs
    )
    reports: list[Report] = []
    for first in range(0, len(each), _WINDOW):
        tasks = each[first : first + _WINDOW]
        batch = coder.encode(tasks, first)
        stream = coder.steps.sample_many(
            actor, batch, truncation, number, options.seed, coder.find_stop
        )
        reports += judge_stream(coder, tasks, stream, "profile").briefly()
    return reports


def add_up(reports: Sequence[Report], number: int, curriculum: CurriculumState) -> Profile:
    """Pass rates over the valid reports of each problem; nan where it has none."""
    passed = np.array([report.passed for report in reports]).reshape(-1, number)
    valid = np.array([report.is_valid for report in reports]).reshape(-1, number)
    count = valid.sum(axis=1)
    rate = np.where(count > 0, (passed & valid).sum(axis=1) / np.maximum(1, count), np.nan)
    return Profile(rate, curriculum.stage.copy())


def describe(found: Profile, path: Path, label: str) -> str:
    """What was found, in two lines."""
    rate = found.rate[~np.isnan(found.rate)]
    none, every = int((rate == 0).sum()), int((rate == 1).sum())
    shares = profile.chances(found) * len(found.rate)
    return (
        f"{label}: {len(found.rate)} problems, mean pass rate "
        f"{rate.mean() if len(rate) else float('nan'):.3f}; {none} never solved, {every} "
        f"always; drawn {shares.min():.2f} to {shares.max():.2f} times as often as by "
        f"chance\nwrote {path}; train with --data.sample profile --data.profile {path}"
    )
