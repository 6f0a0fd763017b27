"""How far a run of RL is, in iterations and in generated tokens: its end, and what is due.

All hosts hold the whole batch, so they count the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stepcoder_jax.config import Config, ConfigError, EvaluationConfig, RunConfig


class Spent(NamedTuple):
    """What a run has spent since its start."""

    steps: int = 0  # iterations
    # completion tokens generated in them; None where an older version did not count
    tokens: int | None = 0
    latest: int = 0  # those of the latest iteration

    def after(self, generated: int) -> Spent:
        """One iteration later, which generated so many tokens."""
        total = None if self.tokens is None else self.tokens + generated
        return Spent(self.steps + 1, total, generated)

    def has_reached_multiple(self, every: int) -> bool:
        """Whether the latest iteration was the first to reach some multiple of `every`."""
        if self.tokens is None or every <= 0:
            return False
        return self.tokens // every > (self.tokens - self.latest) // every


def read(record: dict[str, Any], run: RunConfig) -> Spent:
    """What a checkpoint's record says; ConfigError where tokens are asked for in vain."""
    known = record.get("spent")
    if known is not None:
        return Spent(*known)
    if run.total_tokens:
        raise ConfigError(
            f"run.total_tokens: {run.total_tokens} is no end for the run in {run.folder}: "
            "the version that began it did not count its tokens; leave it at 0, and set "
            "--run.total_steps"
        )
    return Spent(record["step"], None)


def find_end(spent: Spent, run: RunConfig) -> str:
    """The field that ends the run here; "" where it goes on."""
    if run.total_tokens and spent.tokens is not None and spent.tokens >= run.total_tokens:
        return "run.total_tokens"
    return "run.total_steps" if spent.steps >= run.total_steps else ""


def is_save_due(spent: Spent, run: RunConfig) -> bool:
    """Whether a checkpoint is to be written after the latest iteration."""
    return spent.steps % run.save_every == 0 or bool(find_end(spent, run))


def is_validation_due(spent: Spent, config: Config) -> bool:
    """Whether the model is to be measured after the latest iteration."""
    evaluation: EvaluationConfig = config.evaluation
    if not evaluation.has_validation:
        return False
    if find_end(spent, config.run):
        return True
    if evaluation.every:
        return spent.steps % evaluation.every == 0
    return spent.has_reached_multiple(evaluation.every_tokens)
