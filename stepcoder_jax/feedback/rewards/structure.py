"""PPOCoder's reward for likeness: sub-trees and def-use edges of the canonical solution."""

from __future__ import annotations

from stepcoder_jax.feedback.rewards.terms import Extras
from stepcoder_jax.records import Program, Report
from stepcoder_jax.similarity.codebleu import parts


def structure(program: Program, report: Report, extras: Extras) -> float:
    """R_ast + R_dfg of the whole source, each from 0 to 1, on the last token.

    Source: arXiv:2301.13816, eqs. 7 and 8; both weigh 1 there. They are the trees and the
    flow of `similarity.codebleu`, shares of both programs, where the released code asks how
    much of the reference is found, so that writing more costs nothing. A solution without
    edges has R_dfg = 0, as there; so has a text that does not parse, with R_ast = 0. What
    the curriculum gave of the solution is likeness too, the same for all rows of a stage.
    """
    del report, extras
    found = parts(program.source, program.problem.solution)
    return found.trees + (found.flow or 0.0)
