"""What is wrong with a problem, and which problems a training set does without.

Decided from the problems and the reports of two runs of each canonical solution; no clock,
file or process here. Every finding is kept, so that nothing is dropped in silence.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from stepcoder_jax.data.curation import overlap
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.formats.source import parse
from stepcoder_jax.execution.judging.checks import check_problem
from stepcoder_jax.records import Mode, Problem, Report, Verdict

PRIORITY = ("test", "validation", "train")  # who keeps a problem that two splits have


class Reason(enum.StrEnum):
    """What can be found; each line says how."""

    NO_SOLUTION = "no_solution"  # the canonical solution is blank
    UNPARSABLE = "unparsable"  # it is no Python
    UNJUDGEABLE = "unjudgeable"  # the judge cannot run the problem's tests
    CONTRADICTORY = "contradictory"  # one input, two expected outputs
    FAILING = "failing"  # the canonical solution does not pass
    TIMEOUT = "timeout"  # it ran out of time in one of two runs
    FLAKY = "flaky"  # two runs, with different string hashes, differ
    INFRA = "infra"  # the judge failed: nothing is known
    WEAK = "weak"  # tests run within reach of the program
    SEVERAL_ANSWERS = "several_answers"  # the statement allows more than the expected one
    NEAR_DUPLICATE = "near_duplicate"  # a problem that is kept reads almost the same
    CONTAMINATED = "contaminated"  # shares an n-gram with a benchmark


# An INFRA problem is not dropped, for nothing is known of it: the check is to be run again.
DROPPED = (
    Reason.NO_SOLUTION,
    Reason.UNPARSABLE,
    Reason.UNJUDGEABLE,
    Reason.CONTRADICTORY,
    Reason.FAILING,
    Reason.TIMEOUT,
    Reason.FLAKY,
    Reason.NEAR_DUPLICATE,
    Reason.CONTAMINATED,
)
UNRUN = {Reason.NO_SOLUTION, Reason.UNPARSABLE, Reason.UNJUDGEABLE}

# Words with which a statement says that other outputs are right as well. They are looked
# for, not understood: a statement that says it otherwise is not found.
SEVERAL = re.compile(
    r"\b(?:print|output|return|(?-i:Find))\s+(?:out\s+)?any\b"
    r"|\bany\s+(?:valid|correct|suitable|acceptable)\b"
    r"|\b(?:multiple|several|many|more\s+than\s+one)\s+(?:(?:possible|correct|valid|such|"
    r"optimal|suitable)\s+)?(?:answers?|solutions?)\b"
    r"|\b(?:print|output|return)\b[^.]*\bin\s+any\s+order\b",
    re.IGNORECASE,
)


class Thresholds(NamedTuple):
    """What counts as the same; see `overlap` for the measures.

    Near duplicates: Jaccard >= 0.8 on 5-grams of words, the values of arXiv:2107.06499.
    Contamination: 10-grams, as DeepSeek-Coder's (arXiv:2401.14196).
    """

    duplicate: float = 0.8
    duplicate_ngram: int = 5
    contamination_ngram: int = 10


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about one problem of one split."""

    split: str
    id: str
    reason: Reason
    detail: str


Splits = Mapping[str, Sequence[Problem]]


def find_static(split: str, problems: Sequence[Problem]) -> list[Finding]:
    """What can be said of problems without running anything."""
    return [
        Finding(split, problem.id, reason, detail)
        for problem in problems
        for reason, detail in _look_at(problem)
    ]


def _look_at(problem: Problem) -> Iterator[tuple[Reason, str]]:
    if not problem.solution.strip():
        yield Reason.NO_SOLUTION, "the canonical solution is blank"
    else:
        try:
            parse("solution", problem.solution)
        except DataError as error:
            yield Reason.UNPARSABLE, str(error)
    try:
        check_problem(problem)
    except ValueError as error:
        yield Reason.UNJUDGEABLE, str(error)
    outputs: dict[str, str] = {}
    for number, test in enumerate(problem.tests):
        wanted = repr(test.expected)
        if outputs.setdefault(repr(test.inputs), wanted) != wanted:
            yield Reason.CONTRADICTORY, f"test {number}: an input with two outputs"
            break
    if match := SEVERAL.search(problem.statement):
        yield Reason.SEVERAL_ANSWERS, f"the statement says: {_around(match)}"


def _around(match: re.Match[str]) -> str:
    start, end = max(0, match.start() - 30), match.end() + 30
    return " ".join(match.string[start:end].split())


def find_in_runs(
    split: str,
    problems: Sequence[Problem],
    first: Sequence[Report],
    second: Sequence[Report],
) -> list[Finding]:
    """What two runs of the canonical solutions tell, one finding at most per problem."""
    found = []
    for problem, one, two in zip(problems, first, second, strict=True):
        if finding := _compare(problem, one, two):
            found.append(Finding(split, problem.id, *finding))
    return found


def _compare(problem: Problem, one: Report, two: Report) -> tuple[Reason, str] | None:
    for report in (one, two):
        if report.verdict is Verdict.INFRA:
            return Reason.INFRA, f"not judged: {report.message}"
    for report in (one, two):
        for number, test in enumerate(report.tests):
            if test.verdict is Verdict.TIMEOUT:
                return Reason.TIMEOUT, f"test {number} after {test.cpu_seconds:.0f} s"
    for number, (a, b) in enumerate(zip(one.tests, two.tests)):
        prints = problem.mode in (Mode.STDIN_MAIN, Mode.STDIN_FN)
        if (a.verdict, a.error) != (b.verdict, b.error):
            return Reason.FLAKY, f"test {number}: {a.verdict}, then {b.verdict}"
        if prints and a.stdout != b.stdout:
            return Reason.FLAKY, f"test {number}: {a.verdict} twice, with other outputs"
    if not one.passed:
        return Reason.FAILING, _describe(one)
    if one.weak:
        return Reason.WEAK, "its tests run beside the program, which could cheat"
    return None


def _describe(report: Report) -> str:
    for number, test in enumerate(report.tests):
        if test.verdict is report.verdict:
            line = f" at line {test.line}" if test.line else ""
            return f"{test.verdict} in test {number} {test.error}{line}".strip()
    return f"{report.verdict} {report.message}".strip()


def readable(problem: Problem) -> str:
    """The statement without the function's name, which is random in APPS+."""
    if not problem.entry_point:
        return problem.statement
    return re.sub(rf"\b{re.escape(problem.entry_point)}\b", "f", problem.statement)


def find_duplicates(
    splits: Splits, gone: Collection[tuple[str, str]], limits: Thresholds
) -> list[Finding]:
    """Near duplicates inside and across splits, each of a problem that stays.

    `gone` are (split, id) that are dropped already: they take no other with them. A test
    problem outlives its like in validation and train, a validation problem those in train,
    and inside a split the first its followers.
    """
    order = [
        (split, problem)
        for split in sorted(splits, key=_priority)
        for problem in splits[split]
        if (split, problem.id) not in gone
    ]
    texts = [readable(problem) for _, problem in order]
    pairs = overlap.similar_pairs(texts, limits.duplicate_ngram, limits.duplicate)
    dropped: set[int] = set()
    found = []
    for pair in sorted(pairs, key=lambda pair: (pair.second, pair.first)):
        if pair.first in dropped or pair.second in dropped:
            continue
        dropped.add(pair.second)
        (other_split, other), (split, problem) = order[pair.first], order[pair.second]
        detail = f"of {other_split} {other.id}, Jaccard {pair.similarity:.2f}"
        found.append(Finding(split, problem.id, Reason.NEAR_DUPLICATE, detail))
    return found


def _priority(split: str) -> int:
    return PRIORITY.index(split)


def body(problem: Problem) -> str:
    """The canonical solution without the part of it that is given."""
    return problem.solution.removeprefix(problem.starter_code)


@dataclasses.dataclass(frozen=True)
class BenchmarkOverlap:
    """What a benchmark and a training set have in common."""

    name: str
    problems: int
    found: tuple[str, ...]  # its problems that share an n-gram with training
    over_half: tuple[str, ...]  # those of which more than half of the lines are in training
    tenths: tuple[int, ...]  # problems by share of lines: [0, .1), ..., [.9, 1]


def find_contamination(
    train: Sequence[Problem], name: str, benchmark: Sequence[Problem], limits: Thresholds
) -> tuple[list[Finding], BenchmarkOverlap]:
    """Problems of train that share an n-gram with a benchmark; and its duplicated lines.

    N-grams of statements and solutions. The measure of lines (Fig. 3) is told, and drops
    nothing: a line like `return n` is no leak.
    """
    items = [(item.id, (item.statement, body(item))) for item in benchmark]
    known = overlap.Benchmark(items, limits.contamination_ngram)
    found: list[Finding] = []
    hit: set[str] = set()
    for problem in train:
        matches = known.find((problem.statement, body(problem)))
        hit.update(matches)
        for item, gram in list(matches.items())[:1]:
            more = f" and {len(matches) - 1} more" if len(matches) > 1 else ""
            detail = f"{name} {item}{more}: {gram}"
            found.append(Finding("train", problem.id, Reason.CONTAMINATED, detail))
    shares = overlap.duplicated_shares(map(body, benchmark), map(body, train))
    tenths = [0] * 10
    for share in shares:
        tenths[min(9, int(10 * (share or 0.0)))] += 1
    over = [item.id for item, share in zip(benchmark, shares) if (share or 0.0) > 0.5]
    there = [item.id for item in benchmark if item.id in hit]
    return found, BenchmarkOverlap(
        name, len(benchmark), tuple(there), tuple(over), tuple(tenths)
    )


def dropped_ids(
    findings: Sequence[Finding], drop: Collection[Reason]
) -> set[tuple[str, str]]:
    """(split, id) of all that at least one finding drops."""
    return {(item.split, item.id) for item in findings if item.reason in drop}
