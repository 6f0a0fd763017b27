"""What one iteration leaves for the log, and the rows of rollouts/STEP.jsonl."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from stepcoder_jax.pytrees import Experience, Feedback, Rollout
from stepcoder_jax.records import Program, Report, Task


class Iteration(NamedTuple):
    """What one iteration leaves for the log."""

    step: int
    tasks: list[Task]
    programs: list[Program]
    reports: list[Report]
    rollout: Rollout
    feedback: Feedback
    experience: Experience
    metrics: dict[str, Any]


class Stopwatch:
    """Seconds of each part of an iteration."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[f"seconds/{name}"] = time.perf_counter() - start


def rollout_rows(done: Iteration) -> Iterator[dict[str, Any]]:
    """The rows of rollouts/STEP.jsonl; token arrays end with the row's completion."""
    for i, (task, program, judged) in enumerate(
        zip(done.tasks, done.programs, done.reports, strict=True)
    ):
        count = int(done.rollout.mask[i].sum())
        source = program.source.encode()
        row = {
            "problem": task.problem.id,
            "stage": task.stage,
            "head": task.head,
            "completion": source[program.generated_from :].decode(),
            "verdict": judged.verdict,
            "tests": [test.verdict for test in judged.tests],
            "message": judged.message,
            "reward": float(done.feedback.rewards[i].sum()),
            "valid": bool(done.feedback.valid[i]),
            "truncated": bool(done.rollout.truncated[i]),
            "spans": program.token_spans,
            "executed": done.feedback.executed[i, :count].astype(int).tolist(),
            "advantages": done.experience.advantages[i, :count].tolist(),
        }
        if done.experience.old_values is not None:
            row["values"] = done.experience.old_values[i, :count].tolist()
        yield row
