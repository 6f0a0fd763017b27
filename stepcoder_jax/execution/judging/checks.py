"""Whether a problem can be judged at all, found out before anything runs."""

from __future__ import annotations

import warnings

from stepcoder_jax.execution.crossing import values
from stepcoder_jax.records import Mode, Problem


def check_problem(problem: Problem) -> None:
    """Raise ValueError, naming the problem, when it cannot be judged."""
    if not problem.tests:
        raise ValueError(
            f"problem {problem.id!r} has no tests: zero tests judge nothing; add one or "
            "leave the problem out"
        )
    if problem.mode is not Mode.STDIN_MAIN and not problem.entry_point:
        raise ValueError(
            f"problem {problem.id!r} has mode {str(problem.mode)!r} but no entry_point: "
            "name the function to call"
        )
    for number, test in enumerate(problem.tests):
        _check_test(problem.id, number, test.inputs, test.expected, problem.mode)


def _check_test(
    problem_id: str, number: int, inputs: object, expected: object, mode: Mode
) -> None:
    where = f"problem {problem_id!r}, test {number}"
    if mode is Mode.CALL:
        if not isinstance(inputs, (tuple, list)):
            raise ValueError(
                f"{where}: expected a tuple of arguments, got {type(inputs).__name__}"
            )
        try:
            values.encode(tuple(inputs))
        except values.ValueCodecError as error:
            raise ValueError(
                f"{where}: the arguments are no plain values: {error}"
            ) from None
    elif mode in (Mode.ASSERT_PROXY, Mode.ASSERT_INPROC):
        _check_code(where, inputs, expected)
    elif not isinstance(inputs, str) or not isinstance(expected, str):
        raise ValueError(
            f"{where}: expected text in and text out, got {type(inputs).__name__} and "
            f"{type(expected).__name__}"
        )


def _check_code(where: str, code: object, expected: object) -> None:
    """Test code is compiled here, never run: a mistake in it is not the program's."""
    if not isinstance(code, str) or expected is not None:
        raise ValueError(
            f"{where}: expected the source of test code and no expected value, got "
            f"{type(code).__name__} and {type(expected).__name__}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the data set's, which nobody here can mend
            compile(code, "<test>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{where}: the test code does not compile: {error}") from None
