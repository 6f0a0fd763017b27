"""What the records of runs allow one to compare: rates of one run, and pairs of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ablation_runner.record import DONE

from self_debug_runner.chain import DIRECT, INPUTS, SAMPLES, TEST
from self_debug_runner.record import outcomes
from stepcoder_jax.records import InputError
from stepcoder_jax.results.estimates import Difference
from stepcoder_jax.results.refinement import pair
from stepcoder_jax.results.seeds import holm, paired_seeds

Record = Mapping[str, Any]
MENDED = "after round 1, mended"  # of what both failed first, see results/refinement.py
EVALUATIONS = (TEST, "verdict", "none", "random", DIRECT)
_UNKNOWN = Difference(math.nan, math.nan, math.nan, math.nan)


class Runs(NamedTuple):
    """The records of a folder, by arm (without its scale) and seed."""

    done: dict[str, dict[int, Record]]
    failed: dict[str, dict[int, Record]]
    inputs: dict[str, dict[int, Record]]  # what arms share, done


class Compared(NamedTuple):
    """One comparison: within each seed over problems, and over seeds."""

    name: str
    arms: tuple[str, ...]
    by_seed: dict[int, Difference]
    over: Difference
    adjusted: float  # p by Holm


def collect(records: Sequence[Record]) -> Runs:
    """Sort records."""
    runs = Runs({}, {}, {})
    for record in records:
        arm = record["arm"].partition("@")[0]
        is_done = record["status"] == DONE
        into = (runs.inputs if arm in INPUTS else runs.done) if is_done else runs.failed
        into.setdefault(arm, {})[record["seed"]] = record
    return runs


def numbers(record: Record, evaluation: str, place: int, name: str) -> float:
    """A number of an evaluation after so many rounds; nan where it has none."""
    try:
        after = record["evaluations"][evaluation]["refinement"]["after"][place]
        value = after[name]["value"]
    except (KeyError, IndexError):
        return math.nan
    return math.nan if value is None else float(value)


def mended(record: Record, evaluation: str = TEST, place: int = 1) -> float:
    """The success refinement rate, the primary measure by default."""
    return numbers(record, evaluation, place, "mended")


def pair_runs(
    before: Record, after: Record, evaluations: tuple[str, str] = (TEST, TEST)
) -> Difference:
    """after - before: of what both failed first, the share mended after one round.

    InputError where they answered other problems.
    """
    sides = []
    for record, name in zip((before, after), evaluations):
        found = record["evaluations"].get(name)
        if found is None:
            return _UNKNOWN
        sides.append(found)
    for name in ("problems_sha256", "left_out"):
        if sides[0][name] != sides[1][name]:
            names = " and ".join(f"{x['arm']}-{x['seed']}" for x in (before, after))
            raise InputError(
                f"--results: {names} were evaluated on other problems ({name} differ); run "
                "both from one commit"
            )
    rows = pair(outcomes(sides[0]), outcomes(sides[1]), before["seed"])
    known = {row.name: row.difference for row in rows}
    return known.get(MENDED, _UNKNOWN)


def equal_budget(record: Record, rounds: int = 1, rule: str = "any") -> Difference:
    """The chain of so many rounds less as many independent samples."""
    found = record["evaluations"].get(SAMPLES)
    rows = found["refinement"]["equal_budget"]["rows"] if found else []
    for row in rows:
        if (row["rounds"], row["rule"]) == (rounds, rule):
            values = [row[name] for name in Difference._fields]
            return Difference(*(math.nan if x is None else x for x in values))
    return _UNKNOWN


def controls(record: Record, told: str) -> Difference:
    """Told the failing test less told something else, or mending without explaining."""
    return pair_runs(record, record, (told, TEST))


def compare_all(runs: Runs, pairs: Sequence[tuple[str, str]]) -> list[Compared]:
    """The comparisons that were named beforehand."""
    teachers = runs.done.get("teacher", {})
    found = {
        f"{one} - {other}": (
            (one, other),
            {
                seed: pair_runs(runs.done[other][seed], record)
                for seed, record in sorted(runs.done.get(one, {}).items())
                if seed in runs.done.get(other, {})
            },
        )
        for one, other in pairs
    }
    named = {
        "teacher: told the test - told nothing": lambda x: controls(x, "none"),
        "teacher: first + refinement - two samples": equal_budget,
    }
    for name, measure in named.items():
        by_seed = {seed: measure(x) for seed, x in sorted(teachers.items())}
        found[name] = (("teacher",), by_seed)
    overs = {name: over_seeds(by_seed) for name, (_, by_seed) in found.items()}
    adjusted = holm([over.p for over in overs.values()])
    return [
        Compared(name, arms, by_seed, overs[name], p)
        for (name, (arms, by_seed)), p in zip(found.items(), adjusted, strict=True)
    ]


def over_seeds(by_seed: Mapping[int, Difference]) -> Difference:
    """Student's interval of the differences of the seeds; those unknown are left out."""
    changes = [x.change for x in by_seed.values() if not math.isnan(x.change)]
    return paired_seeds([0.0] * len(changes), changes) if changes else _UNKNOWN
