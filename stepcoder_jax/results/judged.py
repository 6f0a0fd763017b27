"""Judged samples as rows of a file of results, written and read back.

`stepcoder judge` and `stepcoder evaluate` write them; `compare` and `sft` read them, and
those of other graders that have `task_id` and `passed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcoder_jax.data.formats.rows import DataError, require, say
from stepcoder_jax.records import Problem, Report, Verdict
from stepcoder_jax.results.outcomes import Outcome
from stepcoder_jax.results.taxonomy import bug_of, deciding_test

VERDICTS = [str(verdict) for verdict in Verdict]


def outcome_of(problem: Problem, report: Report, truncated: bool = False) -> Outcome:
    """What is counted of a report."""
    number, _ = deciding_test(report)
    expected = problem.tests[number].expected if number >= 0 else None
    return Outcome(
        problem.id,
        problem.difficulty,
        report.verdict,
        bug_of(report, expected),
        truncated,
        report.weak,
        report.unfaithful,
        problem.metadata,
    )


def describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """The fields of a row of results that `stepcoder compare` reads, beside `task_id`."""
    about = {"problem_metadata": dict(outcome.metadata)} if outcome.metadata else {}
    return about | {
        "passed": outcome.verdict is Verdict.PASS,
        "result": str(outcome.verdict),
        "difficulty": outcome.difficulty,
        "bug": outcome.bug and str(outcome.bug),
        "weak": outcome.weak,
        "unfaithful": outcome.unfaithful,
    }


def describe_report(report: Report) -> dict[str, Any]:
    """What else a row of results says: how each test went, and the first error."""
    _, test = deciding_test(report)
    failed = None if report.passed else test
    return {
        "tests": [str(result.verdict) for result in report.tests],
        "error": report.message or (failed.error if failed else ""),
        "line": failed.line if failed else None,
        "cpu_seconds": round(sum(result.cpu_seconds for result in report.tests), 6),
    }


def read_graded(value: Any) -> Outcome:
    """One problem of a run's before.json or after.json: its id, difficulty and verdict."""
    match value:
        case [str(task), str(difficulty), str(verdict)] if verdict in VERDICTS:
            return Outcome(task, difficulty, Verdict(verdict))
    raise DataError(f"expected [id, difficulty, verdict], got {say(value)}")


def read_outcome(fields: Mapping[str, Any]) -> Outcome:
    """One row of results. Other graders have words of their own in `result`."""
    if "task_id" not in fields:
        raise DataError("field task_id: expected a problem's id, but it is missing")
    row = dict(fields)
    passed = require(row, "passed", bool)
    result = row.get("result")
    if result in VERDICTS and (result == Verdict.PASS) != passed:
        raise DataError(
            f"fields passed and result: contradict, {say(passed)} and {say(result)}"
        )
    ended = Verdict.PASS if passed else Verdict.WRONG
    return Outcome(
        task=str(row["task_id"]),
        difficulty=str(row.get("difficulty", "unknown")),
        verdict=Verdict(result) if result in VERDICTS else ended,
        weak=bool(row.get("weak", False)),
        unfaithful=bool(row.get("unfaithful", False)),
        rounds=_read_rounds(row.get("rounds", []), result),
    )


def _read_rounds(rounds: Any, result: Any) -> tuple[Verdict, ...]:
    """The verdicts of a chain's answers, of which the last is the row's own."""
    is_known = isinstance(rounds, list) and all(each in VERDICTS for each in rounds)
    if not is_known or (rounds and rounds[-1] != result):
        raise DataError(
            "field rounds: expected verdicts of which the last is the field result, got "
            f"{say(rounds)}"
        )
    return tuple(Verdict(each) for each in rounds)
