"""A run's folders as one record: yields of `refine`, learning, chains of evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablation_runner import record
from ablation_runner.digest import Parts
from ablation_runner.jobs import Ended
from ablation_runner.study import Job

from self_debug_runner.chain import INPUTS, SAMPLES, Plan, evaluations, kind_of
from stepcoder_jax.data.formats.rows import require_object, stream_lines
from stepcoder_jax.data.refinements import count_yield, read_refinements
from stepcoder_jax.records import Verdict
from stepcoder_jax.results.judged import read_outcome
from stepcoder_jax.results.logger import METRICS, read_metrics
from stepcoder_jax.results.outcomes import Outcome
from stepcoder_jax.runs.refining.folder import Folder

# Of reinforcement, iteration by iteration.
TOLD = (
    *("pass_rate", "kl", "split/tests", "split/copied", "split/explained"),
    *("split/reward_explanation", "split/reward_program"),
)
_RIGHT, _WRONG, _WEAK = "1", "0", "w"  # a letter for each answer of a chain; or of a weak


def make(plan: Plan, job: Job, parts: Parts, ended: Ended) -> dict[str, Any]:
    """The record of a run that has ended, well or not."""
    config = plan.config(job.arm)
    config.run.seed = job.seed
    root = plan.study.root
    made = record.about(root, job, parts, config, ended)

    def describe() -> dict[str, Any]:
        return refined(plan, job) if kind_of(job) in INPUTS else learnt(plan, job)

    return record.close_run(root, ended, made, plan.places.log(job), describe)


def refined(plan: Plan, job: Job) -> dict[str, Any]:
    """What `refine` made, and how explanations are paid where that was asked."""
    folder = Folder(plan.places.folder(job))
    records = read_refinements([str(folder.file(folder.answered))])
    asked = [wrong for wrong, _, _ in folder.wrong()]
    found: dict[str, Any] = {
        "yield": count_yield(records, asked)._asdict(),
        "answers": len(records),
        "right": sum(each.is_right for each in records),
    }
    explained = plan.explained(job)
    if explained.is_file():
        found["encoders"] = json.loads(explained.read_text())
    return found


def learnt(plan: Plan, job: Job) -> dict[str, Any]:
    """How an arm learnt, and all of its evaluations."""
    rows = read_metrics(plan.places.folder(job) / METRICS)
    curves = {
        name: [row.get(name) for row in rows]
        for name in TOLD
        if any(row.get(name) is not None for row in rows)
    }
    return {
        "updates": len(rows),
        "learning": curves,
        "evaluations": {
            name: evaluated(plan.evaluated(job, name), with_chains=name != SAMPLES)
            for name in evaluations(plan, job)
        },
    }


def evaluated(out: Path, with_chains: bool) -> dict[str, Any]:
    """The numbers of an evaluation; and how each chain went, where runs are paired."""
    tree = json.loads((out / "results.json").read_text())
    names = ("model", "samples", "problems_sha256", "left_out", "rounds")
    names += ("variant", "feedback")
    found = {name: tree[name] for name in names}
    found |= {"refinement": tree["refinement"]}
    if with_chains:
        found["chains"] = " ".join(map(letters, read_rows(out / "results.jsonl")))
    return found


def read_rows(file: Path) -> Iterator[Outcome]:
    """The rows of an evaluation."""
    for row in stream_lines(str(file), "judged chains"):
        yield read_outcome(require_object(row))


def letters(row: Outcome) -> str:
    """A chain in a letter an answer."""
    if row.weak:
        return _WEAK
    return "".join(_RIGHT if x is Verdict.PASS else _WRONG for x in row.rounds)


def outcomes(found: Mapping[str, Any]) -> list[Outcome]:
    """The chains of an evaluation, a problem known by its place; weak ones are left out."""
    rows = []
    for place, chain in enumerate(found["chains"].split(" ")):
        if chain != _WEAK:
            rounds = tuple(Verdict.PASS if x == _RIGHT else Verdict.WRONG for x in chain)
            rows.append(Outcome(str(place), "", rounds[-1], rounds=rounds))
    return rows
