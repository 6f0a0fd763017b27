"""What all hosts know of a row that one of them judged."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from stepcoder_jax.devices import gathers
from stepcoder_jax.pytrees import Feedback
from stepcoder_jax.records import Problem, Program, Report, TestResult, Verdict
from stepcoder_jax.runs.shares import dealing

VERDICTS = tuple(Verdict)
# of a pool's numbers those that are no counts of programs
_HIGHEST, _LOWEST = ("judge/seconds_p", "judge/unsafe"), ("judge/level",)


class Known(NamedTuple):
    """Of each report, what advances the curriculum and what metrics are made of."""

    verdict: np.ndarray  # i32[rows], place in VERDICTS
    weak: np.ndarray  # bool[rows]
    unfaithful: np.ndarray  # bool[rows]

    @classmethod
    def of(cls, reports: Sequence[Report]) -> Known:
        return cls(
            np.array([VERDICTS.index(report.verdict) for report in reports], np.int32),
            np.array([report.weak for report in reports], bool),
            np.array([report.unfaithful for report in reports], bool),
        )

    def reports(self) -> list[Report]:
        """Reports that say so much and no more."""
        return [
            Report(
                verdict,
                (TestResult(verdict, unfaithful=True),) if unfaithful else (),
                frozenset(),
                weak=bool(weak),
            )
            for verdict, weak, unfaithful in zip(
                (VERDICTS[code] for code in self.verdict), self.weak, self.unfaithful
            )
        ]


def briefly(rows: Sequence[int], reports: Sequence[Report], total: int) -> list[Report]:
    """This host's reports, of these rows -> what is known of all rows, on every host."""
    if jax.process_count() == 1:
        return list(reports)
    known, _ = dealing.whole(rows, total, Known.of(reports))
    return known.reports()


Judged = tuple[Program, Report]


def wholly(
    rows: Sequence[int], judged: Sequence[Judged], problems: Sequence[Problem]
) -> list[Judged]:
    """This host's programs and reports, of these rows -> all there is of all rows.

    Where files are made of them, or what a chain asks next: hosts that saw other timeouts
    would ask for other batches, and wait for each other for ever.
    """
    if jax.process_count() == 1:
        return list(judged)
    ours = [
        (row, (program.source, program.generated_from, program.token_spans), report)
        for row, (program, report) in zip(rows, judged, strict=True)
    ]
    told: dict[int, Judged] = {}
    for part in gathers.stack_bytes(pickle.dumps(ours)):
        for row, (source, begin, spans), report in pickle.loads(part):
            told[row] = Program(problems[row], source, begin, spans), report
    return [told[row] for row in range(len(problems))]


def add_up(own: Mapping[str, float], hosts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """One row of the numbers of all hosts' pools, [N] each: sums, in the type of our own.

    Of seconds and of isolation those of the host that is worst off.
    """
    found: dict[str, float] = {}
    for name, value in own.items():
        numbers = hosts[name]
        if name.startswith(_HIGHEST):
            known = numbers[~np.isnan(numbers)]
            total = known.max() if known.size else np.nan
        else:
            total = numbers.min() if name in _LOWEST else numbers.sum()
        found[name] = type(value)(total)
    return found


class Agreed(NamedTuple):
    """What all hosts have of an iteration once its programs are judged."""

    feedback: Feedback
    columns: dict[str, np.ndarray]
    reports: list[Report]  # as `briefly` has them
    counts: dict[str, float]  # of all hosts' pools


def agree(
    rows: Sequence[int],
    reports: Sequence[Report],
    feedback: Feedback,
    columns: dict[str, np.ndarray],
    counts: Mapping[str, float],
    total: int,
) -> Agreed:
    """This host's rows and counts -> those of all, on every host; one gather."""
    if jax.process_count() == 1:
        return Agreed(feedback, columns, list(reports), dict(counts))
    each = {name: np.float64(number) for name, number in counts.items()}
    (known, feedback, columns), hosts = dealing.whole(
        rows, total, (Known.of(reports), feedback, columns), each
    )
    return Agreed(feedback, columns, known.reports(), add_up(counts, hosts))
