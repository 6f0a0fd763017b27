"""StepCoder's reward: by the class of the outcome, on the last token (eq. 3)."""

from __future__ import annotations

from stepcoder_jax.config import RewardConfig
from stepcoder_jax.feedback.rewards.terms import Extras
from stepcoder_jax.records import Program, Report, Verdict

# The verdicts that a program can have; INFRA is not the program's.
OUTCOMES = (
    Verdict.PASS,
    Verdict.WRONG,
    Verdict.RUNTIME,
    Verdict.TIMEOUT,
    Verdict.MEMORY,
    Verdict.OUTPUT,
    Verdict.COMPILE,
)


def stepcoder(program: Program, report: Report, extras: Extras) -> float:
    """`outcome_reward` of the report, on the last token."""
    del program
    return outcome_reward(report, extras.reward)


def outcome_reward(report: Report, config: RewardConfig) -> float:
    """Return the program's reward.

    r = +1 all tests pass, -0.3 a wrong answer, -0.6 a runtime error, -1 no compilation
    (arXiv:2402.01391, eq. 3); the first test that did not pass settles which. Exceeded
    time, memory or output counts as a runtime error, which the paper leaves open. A report
    of INFRA, or a weak or unfaithful one, is worth 0. These are also the rewards of CodeRL
    (arXiv:2207.01780, eq. 4) and the coarse ones of RLTF (arXiv:2307.04349, eq. 4).
    """
    if not report.is_valid:
        return 0.0
    if report.verdict not in OUTCOMES:
        raise ValueError(f"expected the verdict of a whole program, got {report.verdict!r}")
    rewards = {
        Verdict.PASS: config.passed,
        Verdict.WRONG: config.wrong,
        Verdict.COMPILE: config.compile,
    }
    return rewards.get(report.verdict, config.runtime)
