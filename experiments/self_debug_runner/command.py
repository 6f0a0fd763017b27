"""The command line of the runner: short, run, table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ablation_runner import digest, resuming
from ablation_runner.command import carry_out
from ablation_runner.digest import Parts
from ablation_runner.record import read_all
from ablation_runner.resuming import Course
from ablation_runner.steps import Places
from ablation_runner.study import GROUPS, Job, Study, is_own_package, parse_seeds

from self_debug_runner import record, table
from self_debug_runner.chain import (
    CONTROLLED,
    EXPLAINED,
    INPUTS,
    WARM_START,
    Plan,
    needs_of,
    steps_of,
    with_needs,
)
from self_debug_runner.scale import SPLITS, Scale
from stepcoder_jax.records import InputError
from stepcoder_jax.similarity.encoder import load_encoder

_GOOD, _BAD_INPUT = 0, 2
SHORT = "short"


def start(study: Study, scales: Mapping[str, Scale], argv: Sequence[str]) -> int:
    """`main`, but for a study whose package is not the one that is imported."""
    return main(study, scales, argv) if is_own_package(study.file) else _BAD_INPUT


def main(study: Study, scales: Mapping[str, Scale], argv: Sequence[str]) -> int:
    """The exit code, see `carry_out`."""
    given = parse(study, argv)
    command = tabulate if given.command == "table" else run
    return carry_out(study, given, lambda: command(study, scales, given))


def parse(study: Study, argv: Sequence[str]) -> argparse.Namespace:
    """The flags; --help shows what the experiment is."""
    parser = argparse.ArgumentParser(
        prog=study.file.name,
        description=study.summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    results, cores = study.file.parent / "results", len(os.sched_getaffinity(0))
    for name, said in ((SHORT, "teacher and first, small"), ("run", "arms x seeds")):
        where = f"{study.file.stem}_short" if name == SHORT else study.file.stem
        one = commands.add_parser(name, help=said)
        at_a_time = min(2, cores) if name == SHORT else 1
        one.add_argument("--jobs", type=int, default=at_a_time, help="runs at a time")
        one.add_argument("--again", action="store_true", help="also those that failed")
        one.add_argument("--results", type=Path, default=results / where)
        one.add_argument("--runs", type=Path, default=study.root / "runs" / where)
        if name == "run":
            one.add_argument(
                "--arms",
                nargs="+",
                default=None,
                help="arms, groups of them, or what arms share",
            )
            one.add_argument("--seeds", default="", help="0-4; default: all of each arm")
            one.add_argument("--encoder", default="", help="a sentence encoder's folder")
    one = commands.add_parser("table", help="of the runs that are there")
    one.add_argument("--results", type=Path, default=results / study.file.stem)
    one.add_argument(
        *("--digest",),
        choices=("present", "as-recorded"),
        default="present",
        help="as-recorded: of sources that are not the present ones, but the same for all",
    )
    return parser.parse_args(argv)


def wanted_jobs(study: Study, given: argparse.Namespace) -> list[Job]:
    """What was asked for, and all that it needs, seed by seed."""
    if given.command == SHORT:
        return with_needs([Job(f"{arm}@{SHORT}", 0) for arm in CONTROLLED])
    shared = [name for name in given.arms or [] if name in INPUTS]
    named = [name for name in given.arms or GROUPS if name not in INPUTS]
    arms = [*shared, *study.arms(named)]
    seeds = parse_seeds(given.seeds) if given.seeds else None
    found = [Job(arm, seed) for arm in arms for seed in (seeds or study.seeds(arm))]
    if not given.arms:
        found += [Job(EXPLAINED, job.seed) for job in found if job.arm == "teacher"]
    found.sort(key=lambda job: job.seed)
    return with_needs(found)


def run(study: Study, scales: Mapping[str, Scale], given: argparse.Namespace) -> int:
    """Run what is not there yet; after `short` show the table."""
    encoder = getattr(given, "encoder", "")
    if encoder:
        load_encoder(encoder)  # refused before anything is run
        encoder = str(Path(encoder).resolve())
    places = Places(given.runs.resolve(), given.results.resolve())
    plan = Plan(study, scales, places, encoder)
    wanted = wanted_jobs(study, given)
    course = Course(
        configs={job.arm: plan.config(job.arm) for job in wanted},
        parts=lambda: parts_of(study, scales, wanted),
        steps_of=partial(steps_of, plan),
        make=partial(record.make, plan),
        needs=needs_of,
    )
    code = resuming.run_missing(places, course, wanted, given.jobs, given.again)
    if given.command == SHORT and read_all(places.results):
        few = {"claimed": CONTROLLED, "exploratory": (), "promised": (1, 1)}
        show(study._replace(**few, comparisons=(CONTROLLED,)), places.results)
    return code


def parts_of(study: Study, scales: Mapping[str, Scale], wanted: Sequence[Job]) -> Parts:
    """The digests of all that runs are made from."""
    names = dict.fromkeys(job.arm.partition("@")[2] for job in wanted)
    texts = {
        f"{WARM_START} {split}{f' {name}' * bool(name)}": digest.digest_problems(
            scales[name].load(split)
        )
        for name in names
        for split in SPLITS
    }
    return digest.assemble(study, [WARM_START], texts)


def tabulate(study: Study, scales: Mapping[str, Scale], given: argparse.Namespace) -> int:
    """The tables of the runs that are there."""
    records = read_all(given.results)
    if not records:
        raise InputError(f"--results: {given.results} holds no run yet")
    parts = digest.read(given.results)
    if given.digest == "present":
        known = [Job(x["arm"], x["seed"]) for x in records]
        digest.open_folder(given.results, parts_of(study, scales, known))
    for found in records:
        digest.check_record(found, parts, None)
    show(study, given.results)
    return _GOOD


def show(study: Study, results: Path) -> None:
    """Write table.md, and print it."""
    text = table.describe(study, read_all(results))
    (results / "table.md").write_text(text)
    print(text)
