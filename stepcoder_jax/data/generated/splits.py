"""The splits of the embedded benchmark: their names, and how each tier mixes one."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Literal

import numpy as np

from stepcoder_jax.records import Problem

Split = Literal["sft", "train", "validation", "test"]


def split_key(split: Split) -> int:
    """The number of a split, for random streams."""
    return typing.get_args(Split).index(split)


def mix(
    make: Callable[[Split, str, int, int], list[Problem]],
    split: Split,
    seed: int,
    sizes: dict[str, int],
) -> list[Problem]:
    """Problems of all difficulties in an order drawn from (seed, split) alone.

    `make(split, difficulty, seed, size)` gives those of one; `sizes` says how many.
    """
    flat = [x for name, size in sizes.items() for x in make(split, name, seed, size)]
    order = np.random.default_rng([seed, split_key(split)]).permutation(len(flat))
    return [flat[i] for i in order]
