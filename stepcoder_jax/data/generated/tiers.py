"""The tiers of the generated benchmark, by the names that `data.path` takes."""

from __future__ import annotations

from stepcoder_jax.data.generated import benchmark, dialect, guarded
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.records import Problem

TIERS = {"builtin": benchmark.load, "guarded": guarded.load, "dialect": dialect.load}


def load(tier: str, split: Split) -> list[Problem]:
    """The problems of one split of a tier, the same on every machine."""
    return TIERS[tier](split)
