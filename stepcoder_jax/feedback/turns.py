"""Tests in the words in which a model reads them."""

from __future__ import annotations

from stepcoder_jax.execution.crossing.showing import MOST, show, show_call
from stepcoder_jax.records import Mode, Problem, TestCase

_CUT = " ... "  # in the place of the middle of a long text
STDIN_MODES = (Mode.STDIN_MAIN, Mode.STDIN_FN)


def clip(text: str, most: int = MOST) -> str:
    """The text with its middle cut out, and U+FFFD for what is neither letter nor line."""
    if len(text) > most:
        half = (most - len(_CUT)) // 2
        text = text[:half] + _CUT + text[-half:]
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def describe_test(problem: Problem, test: TestCase) -> str:
    """What a test asks for: `f(1) == 2`, input and output, or its code."""
    if problem.mode is Mode.CALL:
        call = show_call(problem.entry_point or "", test.inputs)
        return f"{call} == {show(test.expected)}"
    if problem.mode in STDIN_MODES:
        given, wanted = clip(test.inputs).strip("\n"), clip(test.expected).strip("\n")
        return f"Input:\n{given}\nOutput:\n{wanted}"
    return clip(test.inputs).strip()
