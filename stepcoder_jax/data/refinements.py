"""Answers to failed programs, judged: the records of self-debugging, one JSON line each.

    {"task_id": "apps/12", "wrong_id": "apps/12#3", "wrong": "def ...",
     "source": "runs/sft, step 40",
     "feedback": {"kind": "test", "test": 2, "text": "..."},
     "explanation": "...", "refinement": "def ...", "variant": "explain",
     "teacher": "runs/sft, step 40", "round": 1, "passed": true, "verdict": "pass",
     "passed_tests": 6, "tests": 6, "similar": 0.83, "weak": false}

A wrong program is known by `wrong_id`; its answers are siblings, and agree in what they
answer. After arXiv:2405.18649, section 4, which released no data.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from stepcoder_jax.data.formats.rows import (
    DataError,
    require,
    require_object,
    require_text,
    say,
    stream_lines,
)
from stepcoder_jax.records import Attempt, Variant, Verdict

WANTED = "records of `stepcoder refine`, one JSON object per line"
# What is told of a failure: a failing test, the last line of an error, or the limit.
KINDS = {
    "test": Verdict.WRONG,
    "error": Verdict.RUNTIME,
    "timeout": Verdict.TIMEOUT,
    "memory": Verdict.MEMORY,
    "output": Verdict.OUTPUT,
    "compile": Verdict.COMPILE,
}
_NAMES = {verdict: kind for kind, verdict in KINDS.items()}
_VERDICTS = [str(verdict) for verdict in (Verdict.PASS, *KINDS.values())]


@dataclasses.dataclass(frozen=True)
class RefinementRecord:
    """One answer to one wrong program; the fields are those of a line."""

    task_id: str
    wrong_id: str  # the same for all answers to one wrong program
    wrong: str
    source: str  # whose program it is
    feedback: Attempt  # what its model read of it
    explanation: str  # "" where none was asked for, or none came
    refinement: str
    variant: Variant
    teacher: str  # who answered
    round: int  # how many programs of the problem had failed before the answer
    verdict: Verdict  # on all tests
    passed_tests: int
    tests: int
    similar: float  # overlap of the programs' tokens, 0 to 1
    weak: bool  # graded within reach of the program: it teaches nothing

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.PASS

    @property
    def is_right(self) -> bool:
        """Whether one may learn from it; an explanation is right where its program is."""
        return self.passed and not self.weak

    def to_row(self) -> dict[str, Any]:
        """The JSON object of its line."""
        told = {"feedback": describe_feedback(self.feedback), "passed": self.passed}
        return dataclasses.asdict(self) | told


class Wrong(NamedTuple):
    """A program that failed, and its name among those of its problem."""

    wrong_id: str
    task_id: str
    source: str


class Yield(NamedTuple):
    """What came of asking about wrong programs (the paper's Table 1)."""

    problems: int  # with a wrong program
    wrong: int  # unique wrong programs
    mended: int  # those with a right refinement


def describe_feedback(attempt: Attempt) -> dict[str, Any]:
    """What a model reads of a program, but for the program."""
    kind = _NAMES[attempt.verdict]
    return {"kind": kind, "test": attempt.test, "text": attempt.feedback}


def read_feedback(row: dict[str, Any], wrong: str) -> Attempt:
    """What `describe_feedback` wrote; DataError names the field that is wrong."""
    try:
        verdict = KINDS[_choose(row, "kind", list(KINDS))]
        if verdict is Verdict.COMPILE and row.get("test", 0) is None:
            number = None  # it has met no test
        else:
            number = _count(row, "test")
        return Attempt(wrong, verdict, number, _text(row, "text"))
    except DataError as error:
        raise DataError(str(error).replace("field ", "field feedback.", 1)) from None


def number_wrong(programs: Iterable[tuple[str, str]]) -> list[Wrong]:
    """Name the wrong programs among (problem's id, source); the first of each text alone.

    Texts are one that differ in nothing but white space at the end: a model reads no more.
    """
    seen: dict[str, set[str]] = {}
    found: list[Wrong] = []
    for task_id, source in programs:
        texts = seen.setdefault(task_id, set())
        if source.rstrip() not in texts:
            found.append(Wrong(f"{task_id}#{len(texts)}", task_id, source))
            texts.add(source.rstrip())
    return found


def append_refinements(file: TextIO, records: Iterable[RefinementRecord]) -> None:
    """Write a line for each record."""
    for record in records:
        file.write(json.dumps(record.to_row()) + "\n")


def read_refinements(paths: Sequence[str]) -> list[RefinementRecord]:
    """The records of the files, in their order.

    Raises DataError, one line with file, line and field, for the first that cannot be used,
    and for one that does not answer the same program as its siblings.
    """
    found: list[RefinementRecord] = []
    known: dict[str, tuple[RefinementRecord, str]] = {}
    for path in paths:
        for row in stream_lines(path, WANTED):
            place = f"{path}: {row.place}"
            try:
                record = _read(require_object(row))
            except DataError as error:
                raise DataError(f"{place}: {error}") from None
            first, beside = known.setdefault(record.wrong_id, (record, place))
            for name in ("task_id", "wrong", "feedback"):
                if getattr(record, name) != getattr(first, name):
                    raise DataError(
                        f"{place}: field {name}: expected that of {beside}, which has the "
                        f"wrong_id {record.wrong_id!r} too; a wrong program needs an id of "
                        "its own"
                    )
            found.append(record)
    if not found:
        raise DataError(f"{', '.join(paths)}: no line in it; expected {WANTED}")
    return found


def group_siblings(
    records: Iterable[RefinementRecord],
) -> dict[str, list[RefinementRecord]]:
    """The answers to each wrong program, by its wrong_id."""
    found: dict[str, list[RefinementRecord]] = {}
    for record in records:
        found.setdefault(record.wrong_id, []).append(record)
    return found


def count_yield(records: Iterable[RefinementRecord], asked: Iterable[Wrong] = ()) -> Yield:
    """What came of the wrong programs that were `asked` about, or that have a record."""
    tasks = {wrong.wrong_id: wrong.task_id for wrong in asked}
    mended: set[str] = set()
    for record in records:
        tasks[record.wrong_id] = record.task_id
        if record.is_right:
            mended.add(record.wrong_id)
    return Yield(len(set(tasks.values())), len(tasks), len(mended))


def describe_yield(found: Mapping[str, Yield]) -> str:
    """A table, one line for each name, and one of all where there are several."""
    rows = list(found.items())
    if len(rows) > 1:
        total: collections.Counter[str] = collections.Counter()
        for counts in found.values():
            total.update(counts._asdict())
        rows.append(("all", Yield(**total)))
    lines = [("", "problems", "wrong programs", "mended", "share")]
    for name, (problems, wrong, mended) in rows:
        share = f"{100 * mended / wrong:.2f} %" if wrong else "-"
        lines.append((name, str(problems), str(wrong), str(mended), share))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def _read(row: dict[str, Any]) -> RefinementRecord:
    verdict = Verdict(_choose(row, "verdict", _VERDICTS))
    if require(row, "passed", bool) != (verdict is Verdict.PASS):
        raise DataError(
            f"fields passed and verdict: contradict, {say(row['passed'])} and "
            f"{say(row['verdict'])}"
        )
    tests = _count(row, "tests", least=1)
    passed_tests = _count(row, "passed_tests")
    if passed_tests > tests or (passed_tests == tests) != (verdict is Verdict.PASS):
        raise DataError(
            f"field passed_tests: {passed_tests} of {tests} contradicts the verdict "
            f"{verdict}"
        )
    similar = row.get("similar")
    if isinstance(similar, bool) or not isinstance(similar, (int, float)):
        raise DataError(f"field similar: expected a number, got {say(similar)}")
    if not 0 <= similar <= 1:
        raise DataError(f"field similar: expected a share in [0, 1], got {similar}")
    wrong = _text(row, "wrong")
    return RefinementRecord(
        task_id=require_text(row, "task_id"),
        wrong_id=require_text(row, "wrong_id"),
        wrong=wrong,
        source=_text(row, "source"),
        feedback=read_feedback(require(row, "feedback", dict), wrong),
        explanation=_text(row, "explanation"),
        refinement=_text(row, "refinement"),
        variant=Variant(_choose(row, "variant", list(map(str, Variant)))),
        teacher=_text(row, "teacher"),
        round=_count(row, "round", least=1),
        verdict=verdict,
        passed_tests=passed_tests,
        tests=tests,
        similar=float(similar),
        weak=require(row, "weak", bool),
    )


def _choose(row: dict[str, Any], field: str, known: Sequence[str]) -> str:
    value: str = require(row, field, str)
    if value not in known:
        raise DataError(
            f"field {field}: expected one of {', '.join(known)}, got {say(value)}"
        )
    return value


def _count(row: dict[str, Any], field: str, least: int = 0) -> int:
    value: int = require(row, field, int)
    if isinstance(value, bool) or value < least:
        raise DataError(f"field {field}: expected {least} or more, got {say(value)}")
    return value


def _text(row: dict[str, Any], field: str) -> str:
    """A text that is UTF-8: JSON can write half of a surrogate pair, which no file can."""
    value: str = require(row, field, str)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"field {field}: holds half of a surrogate pair") from None
    return value
