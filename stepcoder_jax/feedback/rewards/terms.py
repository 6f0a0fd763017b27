"""What a reward is given, what it returns, and a weighted sum of rewards on tokens.

    r_t = sum_k w_k r_k,t        of the terms k of `reward.terms`, with weights w

A reward is a pure function of (program, report, extras). It returns a number, which stands
on the row's last completion token, or a number for each completion token. A report that
training may not learn from (`Report.is_valid`) is asked about by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from stepcoder_jax import own_code
from stepcoder_jax.config import RewardConfig
from stepcoder_jax.config.feedback import LARGEST
from stepcoder_jax.records import InputError, Program, Report, Span


class Extras(NamedTuple):
    """What a reward may read beside the program and its report."""

    reward: RewardConfig
    tokens: int  # of the completion, the ending one included
    limit: int  # tokens that a completion may have, T
    truncated: bool = False  # ended by the limit


Reward = Callable[[Program, Report, Extras], float | Sequence[float] | np.ndarray]
R = TypeVar("R", bound=Callable[..., Any])


class Term(NamedTuple):
    """One term of the sum."""

    name: str  # in the metrics: reward/NAME
    weight: float
    reward: Reward
    file: str = ""  # the user's own; "": it is in the table


class OwnRewardError(InputError):
    """A reward of the user's own failed: neither the model's fault nor the trainer's."""


def needs_all_tests(reward: R) -> R:
    """Mark a reward that counts tests: it is refused under execution.tests early_exit."""
    reward.needs_all_tests = True  # type: ignore[attr-defined]
    return reward


def tokens_on(program: Program, span: Span) -> np.ndarray:
    """bool[tokens]: the completion tokens with a byte in this span of the source."""
    places = [(0, 0) if each is None else each for each in program.token_spans]
    start, stop = np.array(places, int).reshape(-1, 2).T
    return (start < span[1]) & (stop > span[0]) & (stop > start)


def values_on(
    term: Term, program: Program, report: Report, extras: Extras, row: int
) -> np.ndarray:
    """The term's values f64[tokens], weight included.

    Raises OwnRewardError, which names the row, where a user's reward fails or returns what
    is no number for each token; for one of the table that is a ValueError.
    """
    try:
        found = term.reward(program, report, extras)
    except (Exception, SystemExit) as error:
        if not term.file:
            raise
        said = own_code.describe(error, term.file)
        raise _refuse(term, program, row, f"failed: {said}") from error
    try:
        values = np.asarray(found, np.float64)
    except (TypeError, ValueError):
        raise _refuse(term, program, row, f"returned a {type(found).__name__}") from None
    if values.shape == ():
        last = np.arange(extras.tokens) == extras.tokens - 1
        values = np.where(last, values, 0.0)
    if values.shape != (extras.tokens,):
        raise _refuse(term, program, row, f"returned the shape {values.shape}")
    if not (np.abs(values) <= LARGEST).all():
        far = f"returned what is not finite, or is beyond {LARGEST:g}"
        raise _refuse(term, program, row, far)
    return term.weight * values


def _refuse(term: Term, program: Program, row: int, what: str) -> ValueError:
    kind = OwnRewardError if term.file else ValueError
    return kind(
        f"reward.terms: {term.name} {what}, for row {row} of the batch, problem "
        f"{program.problem.id!r}; expected a finite number, or one for each of the row's "
        f"{len(program.token_spans)} tokens{f'; mend {term.file}' * bool(term.file)}"
    )
