"""Curves of other runs, to be seen beside this one's: `evaluation.beside`.

A file is one JSON object of the keys name, metric and runs; each of `runs` is an object of
the keys seed, tokens and values. `metric` is one of metrics.jsonl, measured when so many
`tokens` had been generated since the start of that run, which are 0 or more and rise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.config import ConfigError

TOKENS = "tokens/generated"  # of metrics.jsonl
KEYS, OF_A_RUN = {"name", "metric", "runs"}, {"seed", "tokens", "values"}


class Curve(NamedTuple):
    """One run: `values` of the metric after so many generated `tokens`, both [N]."""

    seed: int
    tokens: np.ndarray
    values: np.ndarray


class Beside(NamedTuple):
    """Runs of one kind, by the metric that they are compared by."""

    name: str
    metric: str
    runs: tuple[Curve, ...]

    @property
    def seeds(self) -> str:
        """How many runs these are, in words."""
        return f"{len(self.runs)} seed{'s' * (len(self.runs) > 1)}"

    def at(self, tokens: float) -> float:
        """The mean over runs after so many tokens, by linear interpolation [].

        nan beyond the end of the shortest run, where fewer runs would be averaged.
        """
        if tokens > min(run.tokens[-1] for run in self.runs):
            return math.nan
        return float(
            np.mean([np.interp(tokens, run.tokens, run.values) for run in self.runs])
        )

    def tell(self, tokens: float, value: float) -> str:
        """One line: this run's value after so many tokens, and theirs."""
        theirs = self.at(tokens)
        told = "ended before" if math.isnan(theirs) else f"had {theirs:.3f}"
        return (
            f"{self.metric} {value:.3f} after {tokens / 1000:.0f} thousand tokens; "
            f"{self.name} {told} ({self.seeds})"
        )


def read(path: str | Path) -> Beside:
    """The curves of a file. Raises ConfigError, which names the file and what is wrong."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "no JSON"
        raise ConfigError(f"evaluation.beside: {path} cannot be read ({said})") from None
    if not isinstance(found, dict) or found.keys() != KEYS:
        raise _wrong(path, f"an object of {', '.join(sorted(KEYS))}", found)
    if not (isinstance(found["runs"], list) and found["runs"]):
        raise _wrong(path, "at least one of `runs`", found["runs"])
    runs = tuple(_curve(path, i, run) for i, run in enumerate(found["runs"]))
    return Beside(str(found["name"]), str(found["metric"]), runs)


def _curve(path: str | Path, place: int, run: Any) -> Curve:
    if not isinstance(run, dict) or run.keys() != OF_A_RUN:
        raise _wrong(path, f"runs[{place}] with {', '.join(sorted(OF_A_RUN))}", run)
    try:
        tokens, values = (np.asarray(run[key], float) for key in ("tokens", "values"))
    except (TypeError, ValueError):
        raise _wrong(path, f"numbers in runs[{place}]", run) from None
    is_right = tokens.ndim == 1 and tokens.shape == values.shape and tokens.size
    if not is_right or not np.isfinite([tokens, values]).all():
        raise _wrong(path, f"as many finite tokens as values in runs[{place}]", run)
    if tokens[0] < 0 or (np.diff(tokens) <= 0).any():
        raise _wrong(path, f"tokens that rise from 0 or more in runs[{place}]", run)
    if not isinstance(run["seed"], int):
        raise _wrong(path, f"a whole number as seed of runs[{place}]", run["seed"])
    return Curve(run["seed"], tokens, values)


def _wrong(path: str | Path, expected: str, got: Any) -> ConfigError:
    return ConfigError(f"evaluation.beside: {path}: expected {expected}, got {got!r:.80}")


def own(
    rows: Sequence[Mapping[str, Any]], start: Mapping[str, Any], metric: str
) -> tuple[list[float], list[float]]:
    """This run's tokens and values of the metric, from before learning to the end."""
    points = [(0, start.get(metric)), *((row.get(TOKENS), row.get(metric)) for row in rows)]
    known = [(x, y) for x, y in points if x is not None and y is not None]
    return [x for x, _ in known], [y for _, y in known]
