"""How large a study of self-debugging is: its problems, its updates, what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stepcoder_jax.data.generated import dialect
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.records import Problem

SPLITS: tuple[Split, ...] = ("sft", "train", "test")  # of records, contexts, figures
Sizes = tuple[int, int, int]  # problems of each difficulty


class Scale(NamedTuple):
    """The whole tier, or the first problems of each of its splits."""

    problems: Mapping[Split, Sizes]  # {}: all that the tier has
    epochs: float  # of SFT
    updates: int  # of reinforcement
    samples: int = 2  # programs that are drawn of a problem for records
    contexts: int = 4  # the same, for contexts
    answers: int = 1  # of a model that teaches itself, to a wrong program in each variant
    explanations: int = 4  # of a model to a wrong program, whose rewards are looked at
    rounds: int = 3
    told: tuple[str, ...] = ("none", "verdict", "random")  # controls of the feedback
    with_others: bool = True  # the variant direct, and samples for an equal budget

    def load(self, split: Split) -> list[Problem]:
        """The problems of a split."""
        sizes = self.problems.get(split, dialect.SIZES[split])
        return dialect.generate(split, dialect.SEED, sizes)
