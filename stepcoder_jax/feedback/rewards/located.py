"""RLTF's fine-grained reward: on the line of the error.

After arXiv:2307.04349, section 3.3: the error says where it is to be felt. Which category
an error has goes by its class, never by the words of a Python version:

    ignore   all pass; a wrong answer; too much memory or output, whose line is unknown;
             TabError and RuntimeError; an error without a line of the program
    whole    too much time; RecursionError; SyntaxError on the last line or behind it, where
             the text as a whole is not finished
    line     any other error: the tokens of its line, its indentation only where that is
             the error (IndentationError)

In the released code a timeout's message is empty, and the rule for empty messages comes
first: it is ignored there, and never whole as the paper says. Its rules match the wording
of Python 3.9 and older.
"""

from __future__ import annotations

import numpy as np

from stepcoder_jax.feedback.rewards.terms import Extras, tokens_on
from stepcoder_jax.records import Program, Report, Span, TestResult, Verdict
from stepcoder_jax.syntax import NEWLINE

FINE = -0.3  # R_fine of an error that has a place
_IGNORED = ("TabError", "RuntimeError")
_BLANK = b" \t\f\v"


def located(program: Program, report: Report, extras: Extras) -> np.ndarray:
    """Values f64[tokens]: alpha R_fine / T on the tokens of the error, T tokens in all.

    L_fine = -alpha R_fine sum over the span of log p, alpha = T / |span| (section 3.3). A
    coarse reward R counts R on each of T tokens, and our losses are means over tokens: so
    the 1 / T. With `reward.located_alpha` paper the tokens of the span share R_fine = -0.3;
    `released` has alpha 1, what the released code comes to (it multiplies by
    len(mask) / len(mask == 1), which is 1): a short line then counts less than a long one.
    Critic or GAE carry it to the tokens before, which RLTF's loss does not; GRPO has the
    row's sum on all of its tokens.
    """
    span = find_span(program, report)
    if span is None:
        return np.zeros(extras.tokens)
    chosen = tokens_on(program, span)
    shares = chosen.sum() if extras.reward.located_alpha == "paper" else extras.tokens
    return np.where(chosen, FINE / max(1, shares), 0.0)


def find_span(program: Program, report: Report) -> Span | None:
    """The bytes of the source where the program's error is felt; None: nowhere."""
    settles = (test for test in report.tests if test.verdict is report.verdict)
    failed = next(settles, None)
    if failed is None or failed.error in _IGNORED:
        return None
    source = program.source.encode("utf-8", "surrogatepass")
    whole = program.generated_from, len(source)
    if failed.verdict is Verdict.TIMEOUT or failed.error == "RecursionError":
        return whole
    if failed.verdict not in (Verdict.COMPILE, Verdict.RUNTIME) or failed.line is None:
        return None
    if failed.error == "SyntaxError" and failed.line >= _last_line(source):
        return whole
    return _span_of_line(source, failed)


def _last_line(source: bytes) -> int:
    """The number, from 1, of the last line that holds anything."""
    return 1 + len(NEWLINE.findall(source.rstrip()))


def _span_of_line(source: bytes, failed: TestResult) -> Span | None:
    """The bytes of the line of the error, without blanks around it."""
    ends = [found.span() for found in NEWLINE.finditer(source)]
    starts = [0, *(stop for _, stop in ends)]
    stops = [*(start for start, _ in ends), len(source)]
    if failed.line is None or not 1 <= failed.line <= len(starts):
        return None
    start, stop = starts[failed.line - 1], stops[failed.line - 1]
    text = source[start:stop]
    if failed.error != "IndentationError":
        start += len(text) - len(text.lstrip(_BLANK))
    return start, max(start, stop - len(text) + len(text.rstrip(_BLANK)))
