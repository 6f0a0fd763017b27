"""What a run needs of others, and its commands: refine, sft or train, evaluate --rounds.

Each command is a process of its own. What is done is not done again: `refine`, `sft` and
`train` go on by themselves, an evaluation is made whole or begun anew.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ablation_runner.steps import STEPCODER, Places
from ablation_runner.study import Job, Study

from self_debug_runner.scale import Scale
from stepcoder_jax.config import Config
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.data.refinements import (
    append_refinements,
    group_siblings,
    read_refinements,
)
from stepcoder_jax.results.chains import End

WARM_START = "dialect"
RECORDS, CONTEXTS, OWN, EXPLAINED = "records", "contexts", "own_records", "explanations"
INPUTS = (RECORDS, CONTEXTS, OWN, EXPLAINED)  # runs that are no arms
CONTROLLED = ("teacher", "first")  # arms with all controls of the feedback
TEST, DIRECT, SAMPLES = "test", "direct", "samples"  # evaluations beside the controls
EXPLAINING = Path(__file__).with_name("explaining.py")


class Plan(NamedTuple):
    """All that the commands depend on."""

    study: Study
    scales: Mapping[str, Scale]
    places: Places
    encoder: str = ""  # the folder of a sentence encoder; "": TF-IDF alone

    def scale(self, job: Job) -> Scale:
        return self.scales[job.arm.partition("@")[2]]

    def config(self, arm: str) -> Config:
        """That of an arm; of what arms share, that of the arm `teacher`."""
        name, at, scale = arm.partition("@")
        return self.study.get_config(f"teacher{at}{scale}" if name in INPUTS else arm)

    def evaluated(self, job: Job, name: str) -> Path:
        """The folder of one of a run's evaluations."""
        return self.places.runs / f"{job.name}.{name}"

    def explained(self, job: Job) -> Path:
        """What explaining.py writes."""
        return self.places.runs / f"{job.name}.explained.json"


def kind_of(job: Job) -> str:
    """The arm, or what arms share, without its scale."""
    return job.arm.partition("@")[0]


def sibling(job: Job, kind: str) -> Job:
    """Another run of the same seed and scale."""
    _, at, scale = job.arm.partition("@")
    return Job(f"{kind}{at}{scale}", job.seed)


def needs_of(job: Job) -> list[Job]:
    """The runs whose results a run begins with."""
    kind = kind_of(job)
    known = {
        RECORDS: (),
        **dict.fromkeys(CONTROLLED, (RECORDS,)),
        **dict.fromkeys((CONTEXTS, OWN), ("teacher",)),
        EXPLAINED: ("teacher", CONTEXTS),
        "self": (OWN,),
    }
    return [sibling(job, need) for need in known.get(kind, ("teacher", CONTEXTS))]


def with_needs(jobs: list[Job]) -> list[Job]:
    """The jobs, each behind all that it needs."""
    found: dict[Job, None] = {}
    for job in jobs:
        found |= dict.fromkeys([*with_needs(needs_of(job)), job])
    return list(found)


def steps_of(plan: Plan, job: Job) -> Iterator[list[str]]:
    """The commands of a run, in order; the next is asked for when one has ended well."""
    if kind_of(job) in INPUTS:
        yield refine(plan, job)
        if kind_of(job) == EXPLAINED and not plan.explained(job).is_file():
            records = plan.places.folder(job) / "records.jsonl"
            command = [sys.executable, str(EXPLAINING), str(records)]
            command += [str(plan.explained(job)), "--seed", str(job.seed)]
            yield [*command, *(["--encoder", plan.encoder] if plan.encoder else [])]
        return
    yield learn(plan, job)
    for name, flags in evaluations(plan, job).items():
        out = plan.evaluated(job, name)
        if not is_evaluated(out):
            shutil.rmtree(out, ignore_errors=True)  # of one that was stopped
            command = [*STEPCODER, "evaluate", str(plan.places.folder(job)), *flags]
            command += problem_flags(plan, job, "test")
            yield [*command, "--seed", str(job.seed), "--out", str(out)]


def refine(plan: Plan, job: Job) -> list[str]:
    """The command that makes records."""
    scale, kind, out = plan.scale(job), kind_of(job), plan.places.folder(job)
    split: Split = "sft" if kind in (RECORDS, OWN) else "train"
    teacher = str(plan.places.folder(sibling(job, "teacher")))
    model = WARM_START if kind == RECORDS else teacher
    command = [*STEPCODER, "refine", model, *problem_flags(plan, job, split)]
    if kind in (RECORDS, CONTEXTS):
        command += ["--teacher", "rule"]
    if kind == OWN:
        command += ["--answers", str(scale.answers)]
    if kind == EXPLAINED:
        wrong = plan.places.folder(sibling(job, CONTEXTS)) / "wrong.jsonl"
        command += ["--wrong", str(wrong), "--variant", "explain"]
        command += ["--answers", str(scale.explanations)]
    else:
        samples = scale.contexts if kind == CONTEXTS else scale.samples
        command += ["--samples-per-problem", str(samples)]
    if has_unjudged(out):
        shutil.rmtree(out)
    resume = ["--resume"] if (out / "refine.json").is_file() else []
    return [*command, "--seed", str(job.seed), "--out", str(out), *resume]


def has_unjudged(out: Path) -> bool:
    """Whether our own machinery failed on some rows of a folder of `refine`."""
    state = out / "state.json"
    if not state.is_file():
        return False
    return any(stage.get("infra") for stage in json.loads(state.read_text()).values())


def learn(plan: Plan, job: Job) -> list[str]:
    """The command that trains an arm."""
    places, kind = plan.places, kind_of(job)
    name = "sft" if kind in plan.study.of_text else "train"
    command = [*STEPCODER, name, f"{plan.study.file}:{job.arm}"]
    command += ["--run.seed", str(job.seed), "--run.resume", "auto"]
    command += ["--run.folder", str(places.folder(job))]
    if kind in plan.study.of_text:
        taught = sibling(job, OWN if kind == "self" else RECORDS)
        records = str(places.folder(taught) / "records.jsonl")
        return [*command, "--sft.records", records]
    command += ["--data.contexts", str(keep_mended(places, sibling(job, CONTEXTS)))]
    return [*command, "--model.checkpoint", str(places.folder(sibling(job, "teacher")))]


def keep_mended(places: Places, job: Job) -> Path:
    """The contexts with a right refinement, in a file of their own.

    Rewards of likeness need one, tests do not: so all arms answer the same contexts.
    """
    out = places.runs / f"{job.name}.mended.jsonl"
    if not out.is_file():
        groups = group_siblings(
            read_refinements([str(places.folder(job) / "records.jsonl")])
        )
        part = out.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            for rows in groups.values():
                if any(row.is_right for row in rows):
                    append_refinements(file, rows)
        part.replace(out)
    return out


def evaluations(plan: Plan, job: Job) -> dict[str, list[str]]:
    """Name -> flags of `evaluate`; greedy but for the samples of an equal budget."""
    scale, kind = plan.scale(job), kind_of(job)
    rounds = ["--rounds", str(scale.rounds), "--variant", "explain"]
    once = ["--rounds", "1", "--variant", "explain"]
    found = {TEST: rounds}
    for told in scale.told:
        if kind in CONTROLLED or told == "none":
            found[told] = [*once, "--feedback", told]
    if not scale.with_others:
        return found
    if kind in CONTROLLED:
        found[DIRECT] = ["--rounds", "1", "--variant", "direct"]
    drawn = ["--samples-per-problem", str(1 + scale.rounds), "--temperature", "1"]
    found[SAMPLES] = [*rounds, *drawn, "--top-p", "1"]
    return found


def is_evaluated(out: Path) -> bool:
    """Whether an evaluation is whole, and all of its answers were judged."""
    try:
        tree = json.loads((out / "results.json").read_text())
    except FileNotFoundError:
        return False
    ends = tree["refinement"]["ends"]
    return not tree["scores"]["infra"] and str(End.INFRA) not in ends


def problem_flags(plan: Plan, job: Job, split: Split) -> list[str]:
    """Which problems a command reads: those of the tier's split, or a file of the first."""
    scale = plan.scale(job)
    if not scale.problems:
        tier = [] if split == "test" else ["--problems", WARM_START]
        return [*tier, "--split", split]
    _, at, name = job.arm.partition("@")
    file = plan.places.runs / f"problems{at}{name}-{split}.jsonl"
    if not file.is_file():
        part = file.with_suffix(".part")
        part.unlink(missing_ok=True)
        own.write(scale.load(split), part)
        part.replace(file)
    return ["--problems", str(file)]
