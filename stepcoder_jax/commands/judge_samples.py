"""`stepcoder judge SAMPLES --problems FILE`: a model's samples, run and counted.

A sample is an object with `task_id` and either `solution`, a whole program, or
`completion`, which continues the problem's starter code (MBPP has none: there it is the
whole program too); with both, the solution counts. The text is run as it stands: who has
code fences in it takes them out first, for to guess would be to grade another program.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

from stepcoder_jax.commands.judge import JudgeOptions, with_limits
from stepcoder_jax.data.formats.rows import (
    DataError,
    stream_lines,
)
from stepcoder_jax.data.formats.samples import Sample, read_sample
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.execution import Pool, open_pool
from stepcoder_jax.progress import CountProgress
from stepcoder_jax.records import InputError, Problem, Report, Verdict
from stepcoder_jax.results import outcomes
from stepcoder_jax.results.judged import describe_outcome, describe_report, outcome_of
from stepcoder_jax.results.outcomes import Outcome

WANTED = "samples, one JSON object per line"
_EXIT_JUDGED, _EXIT_BAD_INPUT, _EXIT_STOPPED = 0, 2, 130
_WINDOW = 1024  # samples that are held at a time


@dataclasses.dataclass
class Results:
    """The rows of results, written as they come, and what is kept of them."""

    file: TextIO
    bar: CountProgress
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)

    def keep(self, sample: Sample, report: Report) -> None:
        outcome = outcome_of(sample.program.problem, report)
        row = sample.fields | describe_outcome(outcome) | describe_report(report)
        self.file.write(json.dumps(row) + "\n")
        self.outcomes.append(outcome)
        self.bar.update()


def judge_samples(options: JudgeOptions) -> int:
    """`stepcoder judge SAMPLES --problems FILE`; returns the exit code.

    0: every sample was judged, whatever became of it; 2: rows were bad, or our own
    machinery failed on some; 130: stopped by the user. One row of results per sample, in
    the samples' order; they are written as they come, so that a stopped run keeps them.
    """
    path, settings = results_path(options), options.settings()
    if options.write_limits:
        raise InputError(
            "--write-limits measures a problem file's own solutions: give that file as "
            "FILE, and no --problems"
        )
    problems, wrong_problems = read_index(options)
    numbers, wrong_samples = check_samples(options, problems)
    outcomes.choose_ks(numbers, options.k)  # refused before anything has run
    total = numbers.total()
    with (
        open_pool(settings) as pool,
        _create(path, options.force) as file,
        CountProgress(total, "sample") as bar,
    ):
        results = Results(file, bar)
        samples = good_samples(options.path, problems)
        try:
            while window := list(itertools.islice(samples, _WINDOW)):
                judge_window(pool, window, results.keep)
        except KeyboardInterrupt:
            bar.close()
            print(f"stopped: {bar.done} of {total} samples are judged, in {path}")
            return _EXIT_STOPPED
    print_summary(results.outcomes, len(problems), options.k)
    print(f"results: {path}")
    if wrong_problems:
        print(f"{wrong_problems} rows of {options.problems} were bad and were left out")
    if wrong_samples:
        print(f"{wrong_samples} rows of {options.path} were bad and were not judged")
    infra = sum(outcome.verdict is Verdict.INFRA for outcome in results.outcomes)
    return _EXIT_BAD_INPUT if wrong_problems + wrong_samples + infra else _EXIT_JUDGED


def results_path(options: JudgeOptions) -> str:
    """Where the results go; InputError when that would overwrite something."""
    if not os.path.isfile(options.path):
        raise InputError(
            f"SAMPLES: {options.path} is no file; expected {WANTED} (no pipe: it is "
            "read twice)"
        )
    stem = re.sub(r"(\.jsonl?)?(\.gz)?$", "", options.path, count=1)
    path = options.out or f"{stem}_results.jsonl"
    if os.path.exists(path):
        for flag, given in (("SAMPLES", options.path), ("--problems", options.problems)):
            if os.path.exists(given) and os.path.samefile(path, given):
                raise InputError(f"--out: {path} is the file of {flag}; give another name")
        if not options.force:
            raise InputError(
                f"--out: {path} exists; give another name, or --force to overwrite it"
            )
    return path


def read_index(options: JudgeOptions) -> tuple[dict[str, Problem], int]:
    """The problems by their ids, and the number of bad rows, which are printed."""
    problems, complaints = read_any(
        options.problems, strict=options.strict, settings=options.settings()
    )
    for complaint in complaints:
        print(complaint)
    if not problems:
        raise InputError(f"{options.problems}: holds no usable problem")
    limited = with_limits(problems, options.problems, options)
    return {problem.id: problem for problem in limited}, len(complaints)


def check_samples(
    options: JudgeOptions, problems: Mapping[str, Problem]
) -> tuple[collections.Counter[str], int]:
    """Good rows by problem, and the number of bad ones, which are printed.

    Nothing has run by then.

    DataError when there is no good row and, when strict, for the first bad one.
    """
    good: collections.Counter[str] = collections.Counter()
    wrong = 0
    for row in stream_lines(options.path, WANTED):
        try:
            good[read_sample(row, problems).program.problem.id] += 1
        except DataError as error:
            complaint = f"{options.path}: {row.place}: {error}"
            if options.strict:
                raise DataError(complaint) from None
            print(complaint)
            wrong += 1
    if not good:
        raise DataError(
            f"{options.path}: holds no usable sample ({wrong} bad rows); expected {WANTED}"
        )
    return good, wrong


def good_samples(path: str, problems: Mapping[str, Problem]) -> Iterator[Sample]:
    """The samples of a file that `check_samples` has seen."""
    for row in stream_lines(path, WANTED):
        with contextlib.suppress(DataError):
            yield read_sample(row, problems)


def judge_window(
    pool: Pool, window: Sequence[Sample], keep: Callable[[Sample, Report], None]
) -> None:
    """Judge some samples; `keep` gets them in their order, when stopped all that ended."""
    waiting: dict[int, Report] = {}
    kept = 0
    try:
        for number, report in pool.stream([sample.program for sample in window]):
            waiting[number] = report
            while kept in waiting:
                keep(window[kept], waiting.pop(kept))
                kept += 1
    finally:
        for number in sorted(waiting):
            keep(window[number], waiting[number])


def print_summary(found: Sequence[Outcome], problems: int, ks: Sequence[int]) -> None:
    """Verdicts and pass@k; those graded within reach of the program by themselves."""
    weak = [outcome._replace(weak=False) for outcome in found if outcome.weak]
    if strong := outcomes.strong(found):
        print(describe(strong, ks))
    if weak:
        print("weak: the tests ran within reach of the program, which could cheat")
        print(describe(weak, ks))
    if count := sum(outcome.unfaithful for outcome in found):
        print(outcomes.unfaithful_text(count))
    seen = len({outcome.task for outcome in found})
    if seen < problems:
        print(f"{problems - seen} of {problems} problems have no sample")


def describe(found: Sequence[Outcome], wanted: Sequence[int]) -> str:
    """A table of verdicts, a line per pass@k, and where there are difficulties a table."""
    numbers = collections.Counter(outcome.task for outcome in found)
    scores = outcomes.score(found, outcomes.choose_ks(numbers, wanted))
    verdicts: dict[str, collections.Counter[Verdict]] = {}
    for outcome in found:
        row = verdicts.setdefault(outcome.difficulty, collections.Counter())
        row[outcome.verdict] += 1
    size = f"({scores.problems} problems, {scores.samples} samples)"
    lines = [outcomes.format_table(verdicts)]
    if scores.infra:
        said = f"none, for {scores.infra} samples were not judged (infra): run them again"
        return "\n".join([*lines, f"pass@k: {said} {size}"])
    for k, rate in scores.pass_at_k[outcomes.ALL].items():
        known = "" if math.isnan(rate.low) else outcomes.interval_text(rate.low, rate.high)
        said = f"{100 * rate.value:.1f} % {known}".rstrip()
        lines.append(f"pass@{k}: {said} {size}")
    if len(scores.pass_at_k) > 1:
        lines.append(outcomes.markdown(outcomes.pass_table(scores)))
    return "\n".join(lines)


@contextlib.contextmanager
def _create(path: str, force: bool) -> Iterator[TextIO]:
    """The results file; each line leaves our hands once written."""
    try:
        with open(path, "w" if force else "x", encoding="utf-8", buffering=1) as file:
            yield file
    except OSError as error:
        raise InputError(f"--out: {path} cannot be written: {error.strerror}") from None
