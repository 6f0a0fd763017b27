"""`stepcoder data VERB`: write, look at, curate and build problem sets."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from stepcoder_jax.config import ExecutionConfig, ModelConfig
from stepcoder_jax.data.building.build import build_set
from stepcoder_jax.data.curation import report as curation_report
from stepcoder_jax.data.curation import screening, stats
from stepcoder_jax.data.curation.screening import (
    BenchmarkOverlap,
    Finding,
    Reason,
    Thresholds,
)
from stepcoder_jax.data.curation.solutions import run_solutions, run_twice
from stepcoder_jax.data.formats import built_set, own
from stepcoder_jax.data.generated import benchmark as generated
from stepcoder_jax.data.generated import tiers
from stepcoder_jax.data.problems import digest, read_any
from stepcoder_jax.execution import PoolSettings
from stepcoder_jax.records import InputError, Problem
from stepcoder_jax.runs.disk import preflight

_EXIT_GOOD, _EXIT_DROPPED, _EXIT_BAD_INPUT = 0, 1, 2
FileArg = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
FolderArg = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FOLDER")]
RunArg = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
TrainArg = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TRAIN")]


@dataclasses.dataclass
class GenerateOptions:
    """Write a split of the generated benchmark: an APPS+ v1 JSON file, of tier dialect JSON
    lines of our own."""

    file: FileArg
    """A new file."""
    tier: Literal["builtin", "guarded", "dialect"] = "builtin"
    """builtin: list programs in rare wordings. guarded: parts that have to be right all at
    once (K = 3, 6, 9), which no lucky guess solves. dialect: words that mean something else
    in each problem, so that feedback alone tells what (JSON lines of our own, since APPS+
    has no visible tests)."""
    split: Literal["sft", "train", "validation", "test"] = "train"
    """Which problems."""


@dataclasses.dataclass
class ProfileOptions:
    """Measure the pass rate of each problem that a run learns from, at its present stage,
    with the run's newest model and sampling; a run with --data.sample profile and
    --data.profile FILE then draws by it.

    stepcoder data profile runs/mine --samples-per-problem 8
    """

    run: RunArg
    """The folder of a run of `stepcoder train`."""
    samples_per_problem: Annotated[int, tyro.conf.arg(aliases=["--samples"])] = 8
    """How many programs are drawn for each problem."""
    step: int = -1
    """The checkpoint to measure; -1: the newest."""
    before: bool = False
    """Measure the model that the run began with, at the first stages."""
    out: str = ""
    """The file to write; "": beside the problem file, or profile.json in the run where the
    problems ship with the package."""
    seed: int = 0
    """Of the draws."""
    force: bool = False
    """Overwrite the file that is there."""


@dataclasses.dataclass
class StatsOptions:
    """Say how many problems there are, how long they are, how many tests and stages they
    have, as mean / median / maximum; from any format that is read.

    stepcoder data stats problems.json --tokenizer MODEL_FOLDER --coverage
    """

    file: FileArg
    """A problem file, a folder of APPS problems, or FOLDER:SPLIT of a built data set."""
    tokenizer: str = ""
    """Count lengths in tokens of this tokenizer as well: a folder, or builtin."""
    coverage: bool = False
    """Run the canonical solutions and tell what share of their statements tests execute."""
    json: bool = False
    """Print JSON instead of a table."""
    strict: bool = False
    """Stop at the first bad row instead of reporting and counting it."""
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)


@dataclasses.dataclass
class CheckOptions:
    """Find what is wrong with problems: canonical solutions that fail, time out or are
    flaky (each is run twice), tests that contradict each other, near duplicates inside and
    across splits, problems with several right answers, and what TRAIN shares with
    benchmarks. Writes a report as JSON and Markdown; `stepcoder data build --report` then
    leaves out what it drops. Exit code 1 when something is dropped, 2 when rows were bad or
    the judge itself failed.

    stepcoder data check train.json --test test.json --against HumanEval.jsonl.gz mbpp.jsonl
    """

    train: TrainArg
    """The problems to learn from, in any format that is read."""
    validation: str = ""
    """Those of the validation split."""
    test: str = ""
    """Those of the test split."""
    against: tuple[str, ...] = ()
    """Benchmark files that TRAIN should have nothing of."""
    out: str = ""
    """Where the report goes, without its suffix; default: TRAIN_check."""
    force: bool = False
    """Overwrite an existing report."""
    strict: bool = False
    """Stop at the first bad row instead of reporting and counting it."""
    drop: tyro.conf.EnumChoicesFromValues[tuple[Reason, ...]] = screening.DROPPED
    """What is dropped; all else that is found is only told."""
    duplicate: float = Thresholds().duplicate
    """Jaccard similarity of statements from which on they are near duplicates."""
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)

    def files(self) -> dict[str, str]:
        return _present(train=self.train, validation=self.validation, test=self.test)


@dataclasses.dataclass
class BuildOptions:
    """Write problem files as one TFDS data set of ArrayRecord files, with its digests.

    stepcoder data build sets --train train.json --test test.json --report train_check.json
    stepcoder train EXPERIMENT --data.path sets/apps_plus/1.0.0:train
    """

    folder: FolderArg
    """The data set is made in FOLDER/apps_plus/1.0.0."""
    train: str = ""
    """Problems of the train split, in any format that is read."""
    validation: str = ""
    """Those of the validation split."""
    test: str = ""
    """Those of the test split."""
    report: str = ""
    """Leave out what this JSON report of `stepcoder data check` drops."""
    strict: bool = False
    """Stop at the first bad row instead of reporting and counting it."""

    def files(self) -> dict[str, str]:
        return _present(train=self.train, validation=self.validation, test=self.test)


def _present(**files: str) -> dict[str, str]:
    return {split: path for split, path in files.items() if path}


def generate(options: GenerateOptions) -> int:
    """`stepcoder data generate`; returns the exit code."""
    file = Path(options.file)
    if file.exists():
        raise InputError(f"FILE: {file} exists; give a new name or remove it")
    if not file.parent.is_dir():
        raise InputError(f"FILE: {file.parent} is no folder; make it first")
    problems = tiers.load(options.tier, options.split)
    if any(problem.visible_tests for problem in problems):
        own.write(problems, file)
    else:
        generated.write(problems, file)
    print(f"wrote {len(problems)} problems to {file}")
    return _EXIT_GOOD


def _read(
    path: str, strict: bool, execution: ExecutionConfig
) -> tuple[list[Problem], list[str]]:
    """As `read_any`; complaints are printed, and a file of bad rows alone is refused."""
    problems, complaints = read_any(
        path, strict=strict, settings=_settings(execution, "none")
    )
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if not problems:
        raise InputError(f"{path}: holds no usable problem ({len(complaints)} bad rows)")
    return problems, complaints


def _settings(
    execution: ExecutionConfig, coverage: Literal["none", "statement"]
) -> PoolSettings:
    return PoolSettings(**dataclasses.asdict(execution), coverage=coverage)


def show_stats(options: StatsOptions) -> int:
    """`stepcoder data stats`; returns the exit code."""
    preflight.check_tokenizer("--tokenizer", options.tokenizer)
    problems, complaints = _read(options.file, options.strict, options.execution)
    units: dict[str, stats.Measure] = {"characters": len}
    if options.tokenizer:
        units["tokens"] = _token_counter(options.tokenizer)
    numbers = stats.describe(problems, units)
    if options.coverage:
        runnable = [problem for problem in problems if problem.solution.strip()]
        settings = _settings(options.execution, "statement")
        reports = run_solutions(runnable, settings, "coverage")
        for name, found in stats.describe_coverage(runnable, reports).items():
            numbers[name]["coverage"] = found
    if options.json:
        print(json.dumps({"bad_rows": len(complaints), **numbers}, indent=1))
    else:
        print(stats.to_table(numbers))
        if complaints:
            print(f"{len(complaints)} rows were bad and do not count")
    return _EXIT_BAD_INPUT if complaints else _EXIT_GOOD


def _token_counter(name: str) -> Callable[[str], int]:
    from stepcoder_jax.runs.disk import sources  # which loads JAX

    tokenizer = sources.load_tokenizer(ModelConfig(tokenizer=name))
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def check(options: CheckOptions) -> int:
    """`stepcoder data check`; returns the exit code."""
    paths = _report_paths(options)
    limits = Thresholds(duplicate=options.duplicate)
    if not 0 < options.duplicate <= 1:
        raise InputError(
            f"--duplicate: expected a similarity above 0 and at most 1, got "
            f"{options.duplicate}"
        )
    splits: dict[str, list[Problem]] = {}
    sources: dict[str, curation_report.Source] = {}
    for split, file in options.files().items():
        problems, complaints = _read(file, options.strict, options.execution)
        splits[split] = problems
        sources[split] = curation_report.Source(
            file, digest(file), len(problems), tuple(complaints)
        )
    against = {
        file: _read(file, options.strict, options.execution)[0] for file in options.against
    }
    settings = _settings(options.execution, "none")
    findings = find_all(splits, settings, options.drop, limits)
    shared, benchmarks = _look_for_benchmarks(splits["train"], against, limits)
    findings += shared
    report = curation_report.to_json(sources, findings, benchmarks, options.drop, limits)
    page = curation_report.to_markdown(report)
    for path, text in zip(paths, (json.dumps(report, indent=1) + "\n", page)):
        _write(path, text)
    print(page.partition("\n## ")[0].rstrip())
    print(f"report: {' and '.join(map(str, paths))}")
    return _exit_code(report)


def find_all(
    splits: Mapping[str, list[Problem]],
    settings: PoolSettings,
    drop: tuple[Reason, ...],
    limits: Thresholds,
) -> list[Finding]:
    """All findings but those of benchmarks."""
    findings = [
        finding
        for split, problems in splits.items()
        for finding in screening.find_static(split, problems)
    ]
    unrun = screening.dropped_ids(findings, screening.UNRUN)
    runnable = {
        split: [problem for problem in problems if (split, problem.id) not in unrun]
        for split, problems in splits.items()
    }
    for split, reports in run_twice(runnable, settings).items():
        findings += screening.find_in_runs(split, runnable[split], *reports)
    gone = screening.dropped_ids(findings, drop)
    return findings + screening.find_duplicates(splits, gone, limits)


def _look_for_benchmarks(
    train: list[Problem], against: Mapping[str, list[Problem]], limits: Thresholds
) -> tuple[list[Finding], list[BenchmarkOverlap]]:
    findings: list[Finding] = []
    overlaps = []
    for file, benchmark in against.items():
        name = Path(file).name
        found, told = screening.find_contamination(train, name, benchmark, limits)
        findings += found
        overlaps.append(told)
    return findings, overlaps


def _report_paths(options: CheckOptions) -> tuple[Path, Path]:
    """The two files of the report; InputError when that would overwrite something."""
    stem = options.out or f"{Path(options.train).with_suffix('')}_check"
    paths = Path(f"{stem}.json"), Path(f"{stem}.md")
    for path in paths:
        if not path.parent.is_dir():
            raise InputError(f"--out: {path.parent} is no folder; make it first")
        if any(
            path.exists() and os.path.exists(file) and path.samefile(file)
            for file in (*options.files().values(), *options.against)
        ):
            raise InputError(f"--out: {path} is a problem file; give another name")
        if path.exists() and not options.force:
            raise InputError(
                f"--out: {path} exists; give another name, or --force to overwrite it"
            )
    return paths


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out: {path} cannot be written: {error.strerror}") from None


def _exit_code(report: Mapping[str, Any]) -> int:
    splits = report["splits"].values()
    if any(split["bad_rows"] or Reason.INFRA in split["reasons"] for split in splits):
        return _EXIT_BAD_INPUT
    return _EXIT_DROPPED if any(split["dropped"] for split in splits) else _EXIT_GOOD


def build(options: BuildOptions) -> int:
    """`stepcoder data build`; returns the exit code."""
    files = options.files()
    if not files:
        raise InputError("expected a problem file of a split, as in --train FILE; got none")
    if Path(options.folder).exists():
        preflight.require_folder("FOLDER", options.folder)
    for split, file in files.items():
        preflight.require_problems(f"--{split}", file)
    out = curation_report.read_left_out(options.report, files) if options.report else {}
    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns of what is not there yet
    where = build_set(options.folder, files, leave_out=out, strict=options.strict)
    sources = built_set.read_metadata(str(where))["sources"]
    bad = 0
    for split, about in sources.items():
        for complaint in about["bad_rows"]:
            print(f"{files[split]}: {complaint}", file=sys.stderr)
        bad += len(about["bad_rows"])
        stored = len(built_set.open_split(str(where), split))
        print(f"{split}: {stored} problems, {about['left_out']} left out")
    print(f"built {where}; train with --data.path {where}:train")
    if bad:
        print(f"{bad} rows were bad and were left out")
    return _EXIT_BAD_INPUT if bad else _EXIT_GOOD


def measure_profile(options: ProfileOptions) -> int:
    """`stepcoder data profile`; returns the exit code."""
    # it loads JAX, which the other verbs do without
    from stepcoder_jax.runs.profiling.measuring import Wanted, measure

    return measure(Wanted(**vars(options)))


VERBS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "generate": (GenerateOptions, generate),
    "stats": (StatsOptions, show_stats),
    "check": (CheckOptions, check),
    "build": (BuildOptions, build),
    "profile": (ProfileOptions, measure_profile),
}
