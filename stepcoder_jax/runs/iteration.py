"""What one iteration leaves for the log, and the rows of rollouts/STEP.jsonl."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.feedback.turns import describe_results
from stepcoder_jax.pytrees import Experience, Feedback, Rollout
from stepcoder_jax.records import Attempt, Report, Task
from stepcoder_jax.runs.posing.buffer import Buffer
from stepcoder_jax.runs.posing.dynamic import Own


class Iteration(NamedTuple):
    """What one iteration leaves for the log."""

    step: int
    tasks: list[Task]
    own: Own  # this host's rows
    reports: list[Report]  # of all rows, as far as all hosts know them
    rollout: Rollout
    feedback: Feedback
    experience: Experience
    # i64[B], row of `rollout` -> row of `experience`, -1: it was not learnt from
    places: np.ndarray
    metrics: dict[str, Any]
    counts: dict[str, float]  # what this host's pool counted
    posed: list[Task]  # of all rollouts, those that nothing was learnt from as well
    judged: list[Report]  # theirs
    dropped: list[dict[str, Any]]  # the groups of these, see posing.dynamic
    generated: int  # completion tokens
    complaint: str  # what is to be said aloud; "": nothing
    kept_back: Buffer | None  # rollouts that later iterations may learn from


class Stopwatch:
    """Seconds of each part of an iteration."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds of a part, which may come more than once."""
        key = f"seconds/{name}"
        self.seconds[key] = self.seconds.get(key, 0.0) + seconds


def rollout_rows(done: Iteration) -> Iterator[dict[str, Any]]:
    """This host's rows of rollouts/STEP.jsonl; token arrays end with the completion.

    Numbers of tokens have five digits. `rewards` are those above or below 0, each behind
    the token that carries it; `shown` is what some tests asked, expected and got; `turns`,
    where there are any, are the programs and the feedback that the prompt held, and of a
    run in contexts `explained` is how many tokens the explanation has. `advantages` and
    `values` are empty for a rollout that `sampling.buffer` has left for later.
    """
    ours = done.own
    for i, answer, program, judged in zip(
        ours.rows, ours.answers, ours.programs, ours.reports, strict=True
    ):
        task = done.tasks[i]
        count, place = int(done.rollout.mask[i].sum()), int(done.places[i])
        source = program.source.encode()
        rewards = np.asarray(done.feedback.rewards[i, :count])
        row = {
            "problem": task.problem.id,
            "difficulty": task.problem.difficulty,
            "stage": task.stage,
            "head": task.head,
            "completion": source[program.generated_from :].decode(),
            "verdict": judged.verdict,
            "tests": [test.verdict for test in judged.tests],
            "shown": describe_results(program, judged),
            "message": judged.message,
            "reward": float(rewards.sum()),
            "rewards": [[int(t), _short(rewards[t])] for t in np.flatnonzero(rewards)],
            "valid": bool(done.feedback.valid[i]),
            "truncated": bool(done.rollout.truncated[i]),
            "spans": program.token_spans,
            "executed": done.feedback.executed[i, :count].astype(int).tolist(),
            "logprobs": [_short(x) for x in done.rollout.logprobs[i, :count]],
            "advantages": _row_of(done.experience.advantages, place, count),
        }
        if done.experience.old_values is not None:
            row["values"] = _row_of(done.experience.old_values, place, count)
        if task.before:
            row["turns"] = [_turn(attempt) for attempt in task.before]
        if done.feedback.explained is not None:
            row["explanation"] = answer.explanation
            row["explained"] = int(done.feedback.explained[i])
        yield row


def _row_of(column: np.ndarray, place: int, count: int) -> list[float]:
    return [] if place < 0 else [_short(x) for x in column[place, :count]]


def _short(value: Any) -> float:
    """A number of a token with the digits that a reader looks at."""
    return float(f"{value:.5g}")


def _turn(attempt: Attempt) -> dict[str, Any]:
    return {
        "source": attempt.source,
        "verdict": attempt.verdict,
        "test": attempt.test,
        "feedback": attempt.feedback,
    }
