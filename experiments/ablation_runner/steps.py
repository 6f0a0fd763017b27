"""The commands of one run, each a process of its own; what is done is not done again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ablation_runner.study import TUNING_SEEDS, Job, Study
from stepcoder_jax.config import Config
from stepcoder_jax.data.formats import own
from stepcoder_jax.runs.disk import sources

MEASURE = Path(__file__).with_name("measure.py")
MEASURED = "measured.json"  # in a run's folder, the last of its steps
STEPCODER = (sys.executable, "-m", "stepcoder_jax")


class Places(NamedTuple):
    """Where things are: run folders are large and stay, results are small and committed."""

    runs: Path
    results: Path

    def folder(self, job: Job) -> Path:
        """What `stepcoder train` or `sft` writes."""
        return self.runs / job.name

    def samples(self, job: Job) -> Path:
        """The judged samples of the arm raft."""
        return self.runs / f"{job.name}.samples"

    def judged(self, job: Job) -> Path:
        """The run whose programs a head is learnt from."""
        return self.runs / f"{job.name}.judged"

    def head(self, job: Job) -> Path:
        return self.runs / f"{job.name}.head"

    def log(self, job: Job) -> Path:
        """What the processes of a run say."""
        return self.runs / f"{job.name}.log"

    def measured(self, job: Job) -> Path:
        return self.runs / f"{job.name}.{MEASURED}"

    def record(self, job: Job) -> Path:
        return self.results / f"{job.name}.json"


def steps_of(study: Study, places: Places, job: Job) -> Iterator[list[str]]:
    """The commands of a run, in order; the next is asked for when one has ended well."""
    config, folder = study.get_config(job.arm), places.folder(job)
    experiment = [f"{study.file}:{job.arm}", "--run.seed", str(job.seed)]
    experiment += ["--run.folder", str(folder), "--run.resume", "auto"]
    arm = job.arm.partition("@")[0]
    model = str(folder)
    if arm == "raft":
        yield from draw_samples(study, places, job, config)
        results = places.samples(job) / "results.jsonl"
        if count_passed(results):
            yield [*STEPCODER, "sft", *experiment, "--sft.samples", str(results)]
        else:  # nothing to learn: the model stays what it was
            model = config.model.checkpoint
    else:
        name = "sft" if arm in study.of_text else "train"
        if arm in study.heads:
            kind, flag = study.heads[arm]
            yield from learn_head(study, places, job, kind)
            experiment += [flag, str(places.head(job))]
        yield [*STEPCODER, name, *experiment]
    if not places.measured(job).is_file():
        command = [sys.executable, str(MEASURE), model, str(places.measured(job))]
        command += [f"{study.file}:{job.arm}"]
        yield [*command, *(["--test"] if job.seed not in TUNING_SEEDS else [])]


def draw_samples(
    study: Study, places: Places, job: Job, config: Config
) -> Iterator[list[str]]:
    """Judged samples of the pool, by the model that learning begins with."""
    out = places.samples(job)
    if (out / "results.json").is_file():
        return
    shutil.rmtree(out, ignore_errors=True)  # of a sampling that was stopped
    pool = places.runs / f"{job.name}.pool.jsonl"
    pool.unlink(missing_ok=True)
    own.write(sources.load_pool(config.data, "train"), pool)
    command = [*STEPCODER, "evaluate", config.model.checkpoint, "--problems", str(pool)]
    command += ["--samples-per-problem", str(study.raft_samples), "--k", "1"]
    command += ["--temperature", str(config.sampling.temperature)]
    command += ["--top-p", str(config.sampling.top_p), "--seed", str(job.seed)]
    command += ["--template", config.prompt.template, "--out", str(out)]
    command += ["--max-prompt-length", str(config.prompt.max_prompt_length)]
    yield [*command, "--max-completion-length", str(config.sampling.max_completion_length)]


def learn_head(study: Study, places: Places, job: Job, kind: str) -> Iterator[list[str]]:
    """A head on the model that learning begins with, from programs that it wrote."""
    if places.head(job).is_dir():
        return
    judged = str(places.judged(job))
    run = [f"{study.file}:{study.judged}", "--run.seed", str(job.seed)]
    yield [*STEPCODER, "train", *run, "--run.folder", judged, "--run.resume", "auto"]
    learnt = ["--kind", kind, "--seed", str(job.seed), "--out", str(places.head(job))]
    yield [*STEPCODER, "head", judged, *learnt]


def count_passed(results: Path) -> int:
    """How many of the samples passed."""
    with results.open(encoding="utf-8") as rows:
        return sum(bool(json.loads(row)["passed"]) for row in rows)
