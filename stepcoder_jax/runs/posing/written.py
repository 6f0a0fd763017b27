"""Written programs behind the rollouts of a batch: what CodeRL learns text from.

They are canonical solutions of problems drawn for themselves, each behind the head that the
curriculum gives at its present stage, so that the model learns to write the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepcoder_jax.config import CCCSConfig
from stepcoder_jax.feedback import cccs
from stepcoder_jax.feedback.cccs import CurriculumState
from stepcoder_jax.feedback.sft_rows import Example
from stepcoder_jax.pytrees import Feedback, Rollout
from stepcoder_jax.records import Problem, Task

STREAM = 12  # last word of default_rng([seed, epoch, stream]), beside those of cccs


def choose(
    problems: Sequence[Problem],
    state: CurriculumState,
    count: int,
    place: tuple[int, int],
    config: CCCSConfig,
) -> list[Task]:
    """The tasks whose solutions an iteration learns, `place` being (seed, step)."""
    seed, step = place
    rows = cccs.window(len(problems), step * count, count, seed, STREAM)
    return [cccs.pose(problems[i], i, int(state.stage[i]), config) for i in rows]


def add(
    rollout: Rollout, feedback: Feedback, examples: Sequence[Example | None]
) -> tuple[Rollout, Feedback]:
    """A batch with written programs behind its rollouts; numpy arrays.

    All their tokens are kept; a program that is None is a row that teaches nothing.
    """
    rows, columns = len(examples), rollout.mask.shape[1]
    tokens = np.zeros((rows, rollout.tokens.shape[1]), np.int32)
    mask = np.zeros((rows, columns), bool)
    prompt, length = np.ones(rows, np.int32), np.ones(rows, np.int32)
    for row, example in enumerate(examples):
        if example is not None:
            tokens[row, : len(example.ids)] = example.ids
            prompt[row], length[row] = example.prompt_length, len(example.ids)
            mask[row, : length[row] - prompt[row]] = True
    zeros = np.zeros(mask.shape, np.float32)
    whole = np.zeros(rows, bool)
    sampled = feedback._replace(written=np.zeros(len(rollout.length), bool))
    written = Feedback(
        rewards=zeros,
        executed=mask,
        valid=mask.any(axis=1),
        baseline=_like(feedback.baseline, np.zeros(rows, np.float32)),
        token_values=_like(feedback.token_values, zeros),
        written=np.ones(rows, bool),
    )
    kept = mask.astype(np.float32)
    rollouts = rollout, Rollout(tokens, prompt, length, mask, zeros, kept, whole)
    return Rollout(*map(_stack, *rollouts)), Feedback(*map(_stack, sampled, written))


def _like(known: np.ndarray | None, new: np.ndarray) -> np.ndarray | None:
    return None if known is None else new


def _stack(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None else np.concatenate([np.asarray(first), second])
