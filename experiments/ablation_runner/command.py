"""The command line of the runner: run, tune, table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ablation_runner import digest, picture, record, resuming, table
from ablation_runner.jobs import STOPPED, Stop
from ablation_runner.resuming import Course
from ablation_runner.steps import Places, steps_of
from ablation_runner.study import TUNING_SEEDS, Job, Study, is_own_package, parse_seeds
from stepcoder_jax.records import InputError
from stepcoder_jax.results.outcomes import markdown

_GOOD, _BAD_INPUT = 0, 2


def start(study: Study, argv: Sequence[str]) -> int:
    """`main`, but for a study whose package is not the one that is imported."""
    return main(study, argv) if is_own_package(study.file) else _BAD_INPUT


def main(study: Study, argv: Sequence[str]) -> int:
    """The exit code, see `carry_out`."""
    given = parse(study, argv)
    commands = {"run": run, "tune": tune, "table": tabulate}
    return carry_out(study, given, lambda: commands[given.command](study, given))


def carry_out(study: Study, given: argparse.Namespace, command: Callable[[], int]) -> int:
    """The exit code: 0; 1 where a run failed or is left; 2 for bad input; 130: stopped."""
    try:
        return command()
    except InputError as error:
        print(f"{study.file.name} {given.command}: {error}", file=sys.stderr)
        return _BAD_INPUT
    except Stop:
        print("stopped; the same command goes on", file=sys.stderr)
        return STOPPED[0]


def parse(study: Study, argv: Sequence[str]) -> argparse.Namespace:
    """The flags; --help shows what the experiment is."""
    parser = argparse.ArgumentParser(
        prog=study.file.name,
        description=study.summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    name, results = study.name or study.file.stem, study.file.parent / "results"
    for command, said in (("run", "arms x seeds"), ("tune", "learning rates")):
        one = commands.add_parser(command, help=said)
        where = results / (name if command == "run" else f"{name}_tune")
        one.add_argument("--arms", nargs="+", default=None, help="arms, or groups of them")
        one.add_argument("--jobs", type=int, default=1, help="runs at a time")
        one.add_argument("--again", action="store_true", help="also those that failed")
        one.add_argument("--results", type=Path, default=where, help="for the JSON files")
        one.add_argument("--runs", type=Path, default=study.root / "runs" / where.name)
        if command == "run":
            one.add_argument("--seeds", default="", help="0-7; default: all of each arm")
    one = commands.add_parser("table", help="of the runs that are there")
    one.add_argument("--results", type=Path, default=results / name)
    one.add_argument(
        *("--digest",),
        choices=("present", "as-recorded"),
        default="present",
        help="as-recorded: of sources that are not the present ones, but the same for all",
    )
    return parser.parse_args(argv)


def run(study: Study, given: argparse.Namespace) -> int:
    """Run what is not there yet."""
    arms = study.arms(given.arms or ["claimed"])
    seeds = parse_seeds(given.seeds) if given.seeds else None
    # seed by seed, so that a session that ends early leaves pairs
    wanted = [Job(arm, seed) for arm in arms for seed in (seeds or study.seeds(arm))]
    wanted.sort(key=lambda job: job.seed)
    return execute(study, given, wanted)


def tune(study: Study, given: argparse.Namespace) -> int:
    """Three rates on two seeds that are not reported."""
    arms = study.arms(given.arms or list(study.tried))
    for arm in arms:
        if arm not in study.tried:
            raise InputError(
                f"--arms: {arm} has no rates of its own to try; it takes those of another: "
                f"one of {', '.join(study.tried)}"
            )
    wanted = [
        Job(f"{arm}@{rate:g}", seed)
        for seed in TUNING_SEEDS
        for arm in arms
        for rate in study.tried[arm]
    ]
    code = execute(study, given, wanted)
    text = markdown(table.tuning_table(study, record.read_all(given.results))) + "\n"
    (given.results / "table.md").write_text(text)
    print(text)
    return code


def execute(study: Study, given: argparse.Namespace, wanted: Sequence[Job]) -> int:
    """Run jobs, but for those whose records are there."""
    places = Places(given.runs.resolve(), given.results.resolve())
    configs = {job.arm: study.get_config(job.arm) for job in wanted}
    course = Course(
        configs=configs,
        parts=lambda: digest.parts_of(study, configs.values()),
        steps_of=partial(steps_of, study, places),
        make=partial(record.make, study, places),
    )
    return resuming.run_missing(places, course, wanted, given.jobs, given.again)


def tabulate(study: Study, given: argparse.Namespace) -> int:
    """Tables and the picture of the runs that are there, and what to show others beside."""
    records = record.read_all(given.results)
    if not records:
        raise InputError(f"--results: {given.results} holds no run yet")
    parts = digest.read(given.results)
    if given.digest == "present":
        configs = [study.get_config(x["arm"]) for x in records]
        digest.open_folder(given.results, digest.parts_of(study, configs))
    for found in records:
        digest.check_record(found, parts, None)
    text = table.describe(study, records)
    (given.results / "table.md").write_text(text)
    runs = table.collect(records, study.measured)
    picture.draw(study, runs, given.results / "curves.png")
    if curves := table.beside(study, runs):
        record.write(given.results / record.BESIDE, curves)
    print(text)
    return _GOOD
