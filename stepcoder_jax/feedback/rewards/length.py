"""How long the answer is; with a weight below 0, a penalty."""

from __future__ import annotations

from stepcoder_jax.feedback.rewards.terms import Extras
from stepcoder_jax.records import Program, Report


def length(program: Program, report: Report, extras: Extras) -> float:
    """Completion tokens / the most that a completion may have, from 0 to 1, on the last."""
    del program, report
    return extras.tokens / extras.limit
