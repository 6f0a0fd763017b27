"""`stepcoder judge`: run the solutions of a problem file and count their verdicts."""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Literal, TextIO

import tyro

from stepcoder_jax.config import ExecutionConfig
from stepcoder_jax.data.problems import digest, read_any
from stepcoder_jax.execution import PoolSettings, limits, open_pool
from stepcoder_jax.progress import CountProgress
from stepcoder_jax.records import (
    InputError,
    Problem,
    Program,
    Report,
    Verdict,
)
from stepcoder_jax.results.outcomes import format_table, unfaithful_text
from stepcoder_jax.results.taxonomy import deciding_test

_MOST_LISTED = 20
_EXIT_PASS, _EXIT_FAILED, _EXIT_BAD_INPUT = 0, 1, 2


@dataclasses.dataclass
class JudgeOptions:
    """Run programs in the sandbox: a problem file's own solutions, or a model's samples.

    stepcoder judge problems.json
        run the canonical solution of every problem; exit 1 when one fails

    stepcoder judge samples.jsonl --problems HumanEval.jsonl.gz --jobs 8 --timeout 3
        run samples, one JSON object per line with task_id and completion (what follows the
        problem's starter code) or solution (a whole program), taken as they are: a code
        fence in one is a syntax error. Writes samples_results.jsonl, and prints verdicts
        and pass@k with intervals (bootstrap over problems), which `stepcoder compare`
        compares; exit 2 when rows were bad or our own machinery failed

    stepcoder judge problems.json --write-limits
        measure the CPU limit of every problem, from the time of its own solution, and keep
        them in problems.json.limits.json, where judge and train find them

    Problem files are of any format of stepcoder_jax/data/formats/README.md, gzipped or not.
    """

    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """A problem file, or with --problems a file of samples."""
    problems: str = ""
    """The problem file that the samples are for."""
    solutions: Literal["canonical"] = "canonical"
    """Which programs are run without --problems: the file's own solutions."""
    k: tuple[int, ...] = ()
    """Which pass@k of samples to print; default: 1, 5, 10, 100 as far as samples go."""
    out: str = ""
    """Where results go; default: SAMPLES_results.jsonl beside the samples."""
    force: bool = False
    """Overwrite an existing file of results, or limits that are there already."""
    write_limits: bool = False
    """Measure CPU limits: ten times the slowest test of FILE's own solution, 1 to 6 s."""
    strict: bool = False
    """Stop at the first bad row instead of reporting and counting it."""
    jobs: int | None = None
    """Workers; short for --execution.workers."""
    timeout: float | None = None
    """CPU seconds of one test, whatever was measured."""
    min_level: int | None = None
    """Isolation level below which nothing is run; short for --execution.min_level."""
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)

    def settings(self) -> PoolSettings:
        """The pool's, with the short flags; nobody here asks what was executed."""
        short = {
            "workers": self.jobs,
            "cpu_seconds": self.timeout,
            "min_level": self.min_level,
        }
        fields = dataclasses.asdict(self.execution)
        fields |= {name: value for name, value in short.items() if value is not None}
        return PoolSettings(**fields, coverage="none")


def judge_file(options: JudgeOptions) -> int:
    """`stepcoder judge FILE`; returns the exit code."""
    if options.write_limits and not options.out:
        return write_limits(options)
    if options.out or options.force or options.k:
        raise InputError(
            "--out, --force and --k are for results of samples; give --problems FILE as "
            "well"
        )
    found, complaints = read_any(
        options.path, strict=options.strict, settings=options.settings()
    )
    problems = [problem for problem in found if problem.solution]
    if len(problems) < len(found):
        print(
            f"{len(found) - len(problems)} problems have no canonical solution, and are "
            "left out"
        )
    limited = with_limits(problems, options.path, options)
    return judge(limited, complaints, options.settings(), sys.stdout)


def with_limits(
    problems: Sequence[Problem], file: str, options: JudgeOptions
) -> list[Problem]:
    """The problems with the limits kept beside their file, unless --timeout is given."""
    path = limits.side_file(file)
    if options.timeout is not None or not path.exists():
        return list(problems)
    stored = limits.read_limits(path, digest(file))
    if stored is None:
        print(
            f"{path}: made for another version of {file}; not used (--write-limits "
            "measures again)",
            file=sys.stderr,
        )
        return list(problems)
    return [
        dataclasses.replace(
            problem, cpu_seconds=stored.get(problem.id) or problem.cpu_seconds
        )
        for problem in problems
    ]


def write_limits(options: JudgeOptions) -> int:
    """`stepcoder judge FILE --write-limits`; returns the exit code, as `judge` does.

    What was measured for other versions of the file stays beside it.
    """
    problems, complaints = read_any(
        options.path, strict=options.strict, settings=options.settings()
    )
    path, known_as = limits.side_file(options.path), digest(options.path)
    if limits.read_limits(path, known_as) is not None and not options.force:
        raise InputError(
            f"{path}: has limits for this very file already; --force measures them again"
        )
    for complaint in complaints:
        print(complaint)
    if not problems:
        print("no usable problem in the file")
        return _EXIT_BAD_INPUT
    with (
        open_pool(options.settings()) as pool,
        CountProgress(len(problems), "problem", "CPU limits") as bar,
    ):
        found = limits.measure_limits(pool, problems, bar.update)
    try:
        limits.write_limits(path, known_as, found)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    failed = [name for name, seconds in found.items() if seconds is None]
    print(f"{path}: CPU limits of {len(found) - len(failed)} problems")
    if failed:
        print(f"without one, for their own solution fails: {', '.join(failed)}")
    return _EXIT_BAD_INPUT if complaints else _EXIT_FAILED if failed else _EXIT_PASS


def judge(
    problems: Sequence[Problem],
    complaints: Sequence[str],
    settings: PoolSettings,
    out: TextIO,
) -> int:
    """Run the canonical solution of every problem, print a table and the failing ids.

    Returns 0 when all of them pass, 1 when one does not, 2 when nothing could be run or
    rows were bad (`complaints`): their solutions were never judged.
    """
    for complaint in complaints:
        print(complaint, file=out)
    if not problems:
        print("no usable problem in the file", file=out)
        return _EXIT_BAD_INPUT
    programs = [Program(problem, problem.solution, 0, ()) for problem in problems]
    reports: list[Report | None] = [None] * len(programs)
    with open_pool(settings) as pool, CountProgress(len(programs), "program") as bar:
        for index, report in pool.stream(programs):
            reports[index] = report
            bar.update()
    judged = [
        (problem, report)
        for problem, report in zip(problems, reports)
        if report is not None
    ]
    counts: dict[str, collections.Counter[Verdict]] = {}
    for problem, report in judged:
        counts.setdefault(problem.difficulty, collections.Counter())[report.verdict] += 1
    print(format_table(counts), file=out)
    weak = sum(report.weak for _, report in judged)
    if weak:
        print(f"{weak} were graded within reach of the program (weak)", file=out)
    if count := sum(report.unfaithful for _, report in judged):
        print(unfaithful_text(count), file=out)
    failures = [(problem, report) for problem, report in judged if not report.passed]
    for problem, report in failures[:_MOST_LISTED]:
        print(f"{problem.id}: {describe_failure(report)}", file=out)
    if len(failures) > _MOST_LISTED:
        print(f"... and {len(failures) - _MOST_LISTED} more", file=out)
    if complaints:
        print(f"{len(complaints)} rows were bad and were not judged", file=out)
        return _EXIT_BAD_INPUT
    return _EXIT_FAILED if failures else _EXIT_PASS


def describe_failure(report: Report) -> str:
    """One line: the verdict, the test that decided it, and the error."""
    words = [str(report.verdict)]
    number, test = deciding_test(report)
    if test is not None:
        place = f" at line {test.line}" if test.line else ""
        words.append(f"in test {number}{': ' if test.error else ''}{test.error}{place}")
    return " ".join([*words, report.message]).strip()
