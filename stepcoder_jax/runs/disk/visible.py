"""Visible tests that are wrong: a docstring's example need not be what its author meant."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import jax
import numpy as np

from stepcoder_jax.execution import PoolSettings, open_pool
from stepcoder_jax.progress import CountProgress
from stepcoder_jax.records import Problem, Program, TestCase
from stepcoder_jax.runs.shares import dealing

_MOST_NAMED = 20


def leave_out_wrong(problems: list[Problem], settings: PoolSettings) -> list[Problem]:
    """The problems without the visible tests that their canonical solutions fail.

    The judge runs those that do not score as well, each by itself, and each host a share of
    them. They are named on standard error. Without a solution all tests stay.
    """
    asked = [
        (row, test)
        for row, problem in enumerate(problems)
        for test in problem.visible_tests
        if problem.solution and test not in problem.tests
    ]
    if not asked:
        return problems
    passed = dealing.deal(asked, lambda ours: _run(problems, ours, settings), bool)
    wrong: dict[int, list[TestCase]] = {}
    for (row, test), is_right in zip(asked, passed, strict=True):
        if not is_right:
            wrong.setdefault(row, []).append(test)
    if wrong and jax.process_index() == 0:
        print(_name(problems, wrong), file=sys.stderr)
    return [
        _without(problem, wrong[row]) if row in wrong else problem
        for row, problem in enumerate(problems)
    ]


def _run(
    problems: Sequence[Problem],
    asked: Sequence[tuple[int, TestCase]],
    settings: PoolSettings,
) -> np.ndarray:
    """Whether each of these tests passed, bool[tests]."""
    passed = np.ones(len(asked), bool)
    plain = dataclasses.replace(settings, coverage="none")
    programs = (
        Program(
            dataclasses.replace(problems[row], tests=(test,)), problems[row].solution, 0, ()
        )
        for row, test in asked
    )
    with (
        open_pool(plain) as pool,
        CountProgress(len(asked), "example", "visible tests") as bar,
    ):
        for place, report in pool.stream(programs):
            passed[place] = report.passed
            bar.update()
    return passed


def _name(problems: Sequence[Problem], wrong: dict[int, list[TestCase]]) -> str:
    named = [
        f"{problems[row].id} ({', '.join(_number(problems[row], test) for test in tests)})"
        for row, tests in wrong.items()
    ]
    more = f" and {len(named) - _MOST_NAMED} more" * (len(named) > _MOST_NAMED)
    count = sum(map(len, wrong.values()))
    return (
        f"left out: {count} visible tests that the canonical solutions do not pass, of "
        f"{', '.join(named[:_MOST_NAMED])}{more}"
    )


def _number(problem: Problem, test: TestCase) -> str:
    return str(problem.visible_tests.index(test) + 1)


def _without(problem: Problem, wrong: Sequence[TestCase]) -> Problem:
    kept = tuple(test for test in problem.visible_tests if test not in wrong)
    return dataclasses.replace(problem, visible_tests=kept)
