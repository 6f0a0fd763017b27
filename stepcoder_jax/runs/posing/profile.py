"""The pass-rate profile of a problem set: how often a model solves each problem, kept in a
file beside the set, and what is drawn by it (`data.sample` profile).

A group of n rollouts teaches by the spread of its rewards, whose variance is p (1 - p) of a
problem with pass rate p: easy and impossible problems are drawn less, and none less than a
quarter as often as by chance alone. With a curriculum a rate is that of a stage: when a
problem moves it is unknown, which counts as the best, until it is posed at its new stage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.feedback.cccs import CurriculumState
from stepcoder_jax.records import InputError, Report, Task

FORMAT = "stepcoder pass-rate profile 1"
LEAST = 0.25  # of a problem's share by chance alone
MEASURE = "measure it with `stepcoder data profile RUN`"


class Profile(NamedTuple):
    """Pass rates of the problems of a pool, each at one stage; checkpointed."""

    rate: np.ndarray  # f64[N], nan: not measured at this stage
    stage: np.ndarray  # i32[N]


class ProfileError(InputError):
    """A file that is no profile, or not of these problems."""


def chances(profile: Profile) -> np.ndarray:
    """The share of draws of each problem, f64[N], of sum 1.

    (1/4 + 3/4 f_i / mean(f)) / N with f = 4 p (1 - p), and f = 1 where p is unknown; all
    equal where every f is 0.
    """
    rate = np.where(np.isnan(profile.rate), 0.5, profile.rate)
    worth = 4 * rate * (1 - rate)
    if not worth.any():
        return np.full(len(rate), 1 / len(rate))
    shares = (LEAST + (1 - LEAST) * worth / worth.mean()) / len(rate)
    return np.asarray(shares / shares.sum())


def follow(profile: Profile, curriculum: CurriculumState) -> Profile:
    """The profile of problems at their present stages: unknown where they have moved."""
    moved = profile.stage != curriculum.stage
    return Profile(np.where(moved, np.nan, profile.rate), curriculum.stage.copy())


def learn(
    profile: Profile,
    tasks: Sequence[Task],
    reports: Sequence[Report],
    curriculum: CurriculumState,
) -> Profile:
    """The profile after an iteration, `curriculum` being the one that follows it.

    A rate that was unknown becomes the share of the problem's valid rollouts at its stage
    that passed; one that was measured stays. Then as `follow`.
    """
    passed: dict[int, list[bool]] = {}
    for task, report in zip(tasks, reports, strict=True):
        row = task.index
        is_unknown = np.isnan(profile.rate[row]) and task.stage == profile.stage[row]
        if is_unknown and report.is_valid:
            passed.setdefault(row, []).append(report.passed)
    rate = profile.rate.copy()
    for row, outcomes in passed.items():
        rate[row] = sum(outcomes) / len(outcomes)
    return follow(profile._replace(rate=rate), curriculum)


def to_record(profile: Profile) -> dict[str, list[Any]]:
    """What a checkpoint's record holds of a profile, as JSON has it."""
    rates = [None if math.isnan(x) else x for x in profile.rate.tolist()]
    return {"rate": rates, "stage": profile.stage.tolist()}


def from_record(record: Mapping[str, list[Any]]) -> Profile:
    """The profile that `to_record` wrote, to the bit."""
    rates = [math.nan if x is None else x for x in record["rate"]]
    return Profile(np.array(rates, np.float64), np.array(record["stage"], np.int32))


def write(path: Path, known: Mapping[str, list[str]], found: Profile, about: Any) -> None:
    """Write the rates of problems whose ids and digests are `known`, and whose they are."""
    record = to_record(found)
    rows = zip(known["ids"], known["digests"], record["rate"], record["stage"])
    problems = {
        name: {"digest": digest, "pass_rate": rate, "stage": stage}
        for name, digest, rate, stage in rows
    }
    tree = {"format": FORMAT, **about, "problems": problems}
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n")
        part.replace(path)
    except OSError as error:
        raise ProfileError(f"--out: {path} cannot be written: {error.strerror}") from None


def read(
    file: str, known: Mapping[str, list[str]], curriculum: CurriculumState
) -> tuple[Profile, str]:
    """The rates of a run's problems at their stages, and the hash of the measured model.

    ProfileError, in one line, for a file that is none, and for the first problem that it
    does not have or that has changed since.
    """
    try:
        tree = json.loads(Path(file).read_text(encoding="utf-8"))
        problems, model = tree["problems"], str(tree["model_sha256"])
        if tree["format"] != FORMAT:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise ProfileError(
            f"data.profile: expected a file of pass rates, got {file!r}; {MEASURE}"
        ) from None
    rates, stages = [], []
    for name, digest in zip(known["ids"], known["digests"], strict=True):
        row = problems.get(name)
        if row is None or row["digest"] != digest:
            had = "does not have" if row is None else "has another text or other tests of"
            raise ProfileError(f"data.profile: {file} {had} problem {name!r}; {MEASURE}")
        rates.append(math.nan if row["pass_rate"] is None else float(row["pass_rate"]))
        stages.append(int(row["stage"]))
    found = Profile(np.array(rates, np.float64), np.array(stages, np.int32))
    return follow(found, curriculum), model
