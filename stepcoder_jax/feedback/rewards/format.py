"""Whether the answer has its form: it ends by itself, and holds code."""

from __future__ import annotations

from stepcoder_jax.feedback.rewards.terms import Extras
from stepcoder_jax.records import Program, Report


def format(program: Program, report: Report, extras: Extras) -> float:
    """-1, on the last token, of an answer cut by the length limit or without code; else 0.

    The model ends an answer with the closing fence, or with its end of text.
    """
    del report
    code = program.source.encode("utf-8", "surrogatepass")[program.generated_from :]
    return -1.0 if extras.truncated or not code.strip() else 0.0
