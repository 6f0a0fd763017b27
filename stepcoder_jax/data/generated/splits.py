"""The names of the splits of the embedded benchmark, and of its tiers."""

from __future__ import annotations

import typing
from typing import Literal

Split = Literal["sft", "train", "validation", "test"]


def split_key(split: Split) -> int:
    """The number of a split, for random streams."""
    return typing.get_args(Split).index(split)
