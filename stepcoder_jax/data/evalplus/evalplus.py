"""Reader of HumanEval+ and MBPP+ as EvalPlus releases them (arXiv:2305.01210).

A row has inputs, `base_input` and `plus_input`, and no results: those are what its
`canonical_solution` returns (expected.py). As in EvalPlus's own harness a program is
judged on both lists and by its rules of equality (oracles.py); here each hundred
calls are a test, base first. `base_input` are the calls of HumanEval's `test` and MBPP's
`assertion`, which are not run beside them. `contract` says which inputs are valid; the
published ones are. The examples in a prompt are the visible tests.

The same sets as the hub has them have results in their `test`: those are read as HumanEval
(humaneval.py) and as MBPP (mbpp.py).
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from stepcoder_jax.data.evalplus import inputs as evalplus_inputs
from stepcoder_jax.data.evalplus import oracles
from stepcoder_jax.data.evalplus.expected import Asked, LongText, find_results
from stepcoder_jax.data.formats.examples import asserts_of
from stepcoder_jax.data.formats.humaneval import visible_tests
from stepcoder_jax.data.formats.literals import source_of
from stepcoder_jax.data.formats.mbpp import ID_PREFIX
from stepcoder_jax.data.formats.rows import (
    DataError,
    Row,
    collect,
    require,
    require_text,
    say,
)
from stepcoder_jax.data.formats.source import parse
from stepcoder_jax.execution import PoolSettings
from stepcoder_jax.records import Mode, Problem, TestCase

MARKS = {"plus_input", "base_input"}  # fields that no other format has
READ = {
    "task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input",
    "atol", "test", "assertion", "contract",
}  # fmt: skip
CALLS = 100  # of one test: a time limit holds for each test
_HUMANEVAL_PREFIX = "HumanEval/"


class PlusRow(NamedTuple):
    """A row: its problem, yet without tests, and what makes them."""

    problem: Problem
    inputs: tuple[list[Any], list[Any]]  # base, plus: arguments per call
    atol: float
    is_mbpp: bool

    def asked(self) -> Asked:
        problem = self.problem
        name = problem.entry_point or ""
        is_none = self.is_mbpp and name in oracles.NOT_NONE
        calls = [call for calls in self.inputs for call in calls]
        return Asked(problem.id, problem.solution, name, calls, is_none)

    def with_results(self, results: list[Any]) -> Problem:
        """The problem with its tests; `results` are those of `asked`, in order."""
        tests, rest = [], iter(results)
        for calls in self.inputs:
            cases = [(given, next(rest)) for given in calls]
            tests += [
                TestCase(self._code(cases[start : start + CALLS]), None)
                for start in range(0, len(cases), CALLS)
            ]
        return dataclasses.replace(self.problem, tests=tuple(tests))

    def _code(self, cases: Sequence[tuple[Any, Any]]) -> str:
        name = self.problem.entry_point or ""
        oracle = oracles.oracle(name, is_mbpp=self.is_mbpp)
        listed = ",\n".join(
            f"({source_of(given, as_code=True)}, {_expect(result)})"
            for given, result in cases
        )
        return (
            f"{oracles.COMPARE}{oracle}\nimport copy\n\n_CASES = [\n{listed}\n]\n"
            "for _given, _expected in _CASES:\n"
            "    _got = candidate(*copy.deepcopy(_given))\n"
            f"    assert _judge(_given, _got, _expected, {self.atol!r}), (\n"
            '        f"{_given!r:.200} gave {_got!r:.200}, expected {_expected!r:.200}"\n'
            "    )\n"
        )


def read_file(
    path: str, found: Iterable[Row], *, strict: bool, settings: PoolSettings
) -> tuple[list[Problem], list[str]]:
    """The good rows' problems and one complaint per bad row, as rows.collect.

    Canonical solutions whose results are not kept yet are run, with `settings`; a row whose
    solution gives none is a bad row.
    """
    read: dict[str, PlusRow] = {}

    def keep(row: dict[str, Any], number: int) -> Problem:
        plus = read_plus(row)
        read[plus.problem.id] = plus
        return plus.problem

    problems, complaints = collect(path, found, keep, strict=strict)
    asked = [read[problem.id].asked() for problem in problems]
    results = find_results(path, asked, settings)
    whole = []
    for problem in problems:
        answer = results[problem.id]
        if not isinstance(answer, DataError):
            whole.append(read[problem.id].with_results(answer))
            continue
        complaint = f"{path}: problem {problem.id}: {answer}"
        if strict:
            raise DataError(complaint)
        complaints.append(complaint)
    return whole, complaints


def read_plus(row: dict[str, Any]) -> PlusRow:
    """One row; DataError naming the field that is wrong."""
    name = require_text(row, "task_id")
    is_mbpp = name.startswith(ID_PREFIX)
    if not is_mbpp and not name.startswith(_HUMANEVAL_PREFIX):
        raise DataError(
            f"field task_id: expected {_HUMANEVAL_PREFIX}N or {ID_PREFIX}N beside "
            f"plus_input, got {say(name)}"
        )
    prompt, entry_point = require_text(row, "prompt"), require_text(row, "entry_point")
    if not entry_point.isidentifier():
        raise DataError(f"field entry_point: expected a name, got {entry_point!r}")
    solution = require_text(row, "canonical_solution").replace("\r\n", "\n")
    solution = solution.lstrip("\n") if is_mbpp else prompt + solution
    parse("canonical_solution", solution)
    stub = parse("prompt", prompt)
    visible = asserts_of(prompt) if is_mbpp else visible_tests(stub, entry_point)
    problem = Problem(
        id=name,
        statement=_pose(prompt) if is_mbpp else prompt,
        starter_code="" if is_mbpp else prompt,
        solution=solution,
        entry_point=entry_point,
        mode=Mode.ASSERT_PROXY,
        tests=(),
        difficulty="mbpp" if is_mbpp else "humaneval",
        visible_tests=visible,
    )
    base, plus = (
        _inputs(row, field, name, is_mbpp) for field in ("base_input", "plus_input")
    )
    if not base and not plus:
        raise DataError("fields base_input and plus_input: expected inputs, got none")
    return PlusRow(problem, (base, plus), _atol(row), is_mbpp)


def _inputs(row: dict[str, Any], field: str, name: str, is_mbpp: bool) -> list[Any]:
    calls = require(row, field, list)
    for number, given in enumerate(calls):
        if not isinstance(given, list):
            raise DataError(
                f"field {field}[{number}]: expected the list of arguments, got {say(given)}"
            )
    if not is_mbpp:
        return calls
    task = name.removeprefix(ID_PREFIX)
    if not task.isdecimal():
        raise DataError(f"field task_id: expected {ID_PREFIX}N, got {say(name)}")
    try:
        return [evalplus_inputs.restore(int(task), given) for given in calls]
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(
            f"field {field}: expected arguments as {name} has them: {error}"
        ) from None


def _atol(row: dict[str, Any]) -> float:
    atol = row.get("atol", 0)
    if type(atol) not in (int, float) or not 0 <= atol < float("inf"):
        raise DataError(f"field atol: expected a number from 0 on, got {say(atol)}")
    return float(atol)


def _expect(result: Any) -> str:
    """The source of an expected value."""
    if isinstance(result, LongText):
        return f"_LongText({result.sha256!r})"
    return source_of(result, as_code=True)


def _pose(prompt: str) -> str:
    """The words of MBPP+'s prompt, which is a docstring of words and an example."""
    try:
        words = ast.get_docstring(ast.parse(prompt))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        words = None
    return f"{words or prompt.strip()}\n"
