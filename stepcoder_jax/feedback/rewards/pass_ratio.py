"""RLTF's adaptive reward: by the share of the tests that pass."""

from __future__ import annotations

from stepcoder_jax.feedback.rewards.terms import Extras, needs_all_tests
from stepcoder_jax.records import Program, Report

_LEAST, _GAIN = -0.3, 1.3


@needs_all_tests
def pass_ratio(program: Program, report: Report, extras: Extras) -> float:
    """R_adaptive = -0.3 + 1.3 N_pass / (N_pass + N_fail), on the last token.

    From -0.3 (none passes) to 1 (all do). Source: arXiv:2307.04349, section 3.4. A test
    that ended in an error, or was not run for it, is one that fails. The released code
    instead puts this in the place of -0.3 where the verdict is a wrong answer, and nowhere
    else; the paper adds it to the coarse reward, as `stepcoder pass_ratio` does.
    """
    del program, extras
    total = len(report.tests)
    ratio = report.passed_tests / total if total else float(report.passed)
    return _LEAST + _GAIN * ratio
