"""The test that a program failed, in words: what was given, expected and got.

Everything shown may be a model's, and is of any length: it is cut, and its control
characters are made visible.
"""

from __future__ import annotations

from typing import Any

from stepcoder_jax.records import Mode, Program, Report, TestCase, TestResult, Verdict
from stepcoder_jax.results.report import show_controls
from stepcoder_jax.results.taxonomy import deciding_test

CAP = 600  # characters of each part
_LINES = 40  # of the reference


def describe(program: Program, report: Report) -> str:
    """Some lines on the first test that decided the verdict, and the reference."""
    number, result = deciding_test(report)
    lines = []
    if result is not None and report.verdict is not Verdict.COMPILE:
        test = program.problem.tests[number]
        of = len(program.problem.tests)
        parts = _parts(program, test, result)
        lines += [f"failing test: {number + 1} of {of}"]
        lines += [_block(name, text) for name, text in parts.items() if text]
    if program.problem.solution.strip():
        lines.append(_block("reference", _first_lines(program.problem.solution), cap=10**6))
    return "\n".join(lines)


def _parts(program: Program, test: TestCase, result: TestResult) -> dict[str, str]:
    """What is shown of a test, by name."""
    mode = program.problem.mode
    error = f"{result.error}{f' at line {result.line}' if result.line else ''}"
    ended = error or str(result.verdict)
    is_wrong = result.verdict is Verdict.WRONG
    if mode in (Mode.ASSERT_PROXY, Mode.ASSERT_INPROC):
        return {
            "test": test.inputs,
            "returned last": result.got,
            "got": "" if is_wrong else ended,
            "said": result.stderr,
        }
    if mode is Mode.CALL:
        given = ", ".join(repr(value) for value in test.inputs)
        got = result.got if is_wrong else ended
        return {"given": given, "expected": repr(test.expected), "got": got}
    return {
        "given": test.inputs,
        "expected": test.expected,
        "got": result.stdout or ("" if is_wrong else ended),
        "ended": "" if is_wrong else ended,
        "said": result.stderr,
    }


def _first_lines(text: str) -> str:
    lines = text.strip("\n").split("\n")
    more = [f"... {len(lines) - _LINES} more lines"] if len(lines) > _LINES else []
    return "\n".join([*lines[:_LINES], *more])


def _block(name: str, text: Any, cap: int = CAP) -> str:
    """A part under its name; beside it where it is one line."""
    shown = show_controls(text[:cap]).rstrip("\n")
    if len(text) > cap:
        shown += f" ... ({len(text)} characters)"
    if "\n" not in shown:
        return f"  {name}: {shown}"
    return "\n".join([f"  {name}:", *(f"    {line}" for line in shown.split("\n"))])
