"""What is run: the arms of an experiment, their seeds, and the names of the runs."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import stepcoder_jax
from stepcoder_jax.config import Config
from stepcoder_jax.records import InputError

TUNING_SEEDS = (100, 101)  # not reported
GROUPS = ("claimed", "exploratory")
DIFFICULTIES = ("introductory", "interview", "competition")
_MOST_SEEDS, _MOST_DIGITS = 1000, 9


class Study(NamedTuple):
    """An experiment with arms, as its file says; the defaults are the ablation's."""

    file: Path
    summary: str  # its docstring
    get_config: Callable[[str], Config]
    claimed: tuple[str, ...]
    exploratory: tuple[str, ...]
    comparisons: tuple[tuple[str, str], ...]  # the first minus the second
    promised: tuple[int, int] = (8, 3)  # seeds of a claimed arm, and of another
    runners: tuple[str, ...] = ("ablation_runner",)  # folders whose sources count
    of_text: tuple[str, ...] = ()  # learn supervised text: by updates, not by tokens
    raft_samples: int = 0  # of each problem, for the arm raft
    tried: Mapping[str, tuple[float, ...]] = {}  # learning rates by arm
    chosen: Mapping[str, float] = {}  # of those
    # arms that begin with a head, its kind and the flag that takes it; it is learnt from
    # what the run of `judged` has judged
    heads: Mapping[str, tuple[str, str]] = {}
    judged: str = ""
    title: str = "Ablation"
    name: str = ""  # of the folders of runs and results; "": that of the file
    # what the curves of the primary measure are means over, of the three in DIFFICULTIES
    measured: tuple[str, ...] = DIFFICULTIES[-1:]
    sizes: tuple[str, str, str] = ("K = 3", "K = 6", "K = 9")  # their names
    # the arm that others are shown beside, and its name there
    plain: tuple[str, str] = ("", "")

    @property
    def primary(self) -> str:
        """What the curves are of, in words."""
        names = dict(zip(DIFFICULTIES, self.sizes, strict=True))
        return ", ".join(names[each] for each in self.measured)

    @property
    def root(self) -> Path:
        """The repository."""
        return self.file.parents[1]

    def arms(self, names: Sequence[str]) -> list[str]:
        """The arms that are named, alone or by group; InputError for one that is none."""
        known = (*self.claimed, *self.exploratory)
        found: list[str] = []
        for name in names:
            if name in GROUPS:
                found += getattr(self, name)
            elif name in known:
                found.append(name)
            else:
                near = difflib.get_close_matches(name, (*known, *GROUPS), 1)
                meant = f"did you mean {near[0]}? " if near else ""
                raise InputError(
                    f"--arms: there is no arm {name!r}; {meant}expected some of "
                    f"{', '.join(known)}, or a group: {', '.join(GROUPS)}"
                )
        return list(dict.fromkeys(found))

    def seeds(self, arm: str) -> range:
        """Those that an arm was promised."""
        return range(self.promised[arm not in self.claimed])


class Job(NamedTuple):
    """One run: an arm (ARM or ARM@RATE) and a seed."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


def is_own_package(file: Path) -> bool:
    """Whether the package beside an experiment is the one that is imported.

    If not, one line on standard error says so: the runs of an installed package would be
    of other sources than their digest says.
    """
    root, package = file.parents[1], Path(stepcoder_jax.__file__).parent
    if package.parent.resolve() == root:
        return True
    print(
        f"{file.name}: the package that is imported is {package}, not that of {root}: its "
        "runs would be of other sources than their digest says; set PYTHONPATH to the "
        "worktree of this file",
        file=sys.stderr,
    )
    return False


def parse_seeds(text: str) -> list[int]:
    """`0-7`, `3`, `0-2,5` -> the seeds; InputError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if not (low.isdecimal() and (high.isdecimal() or not dash)):
            raise InputError(f"--seeds: expected seeds such as 0-7 or 0,3, got {text!r}")
        if max(len(low), len(high)) > _MOST_DIGITS:
            raise InputError(f"--seeds: expected at most {_MOST_DIGITS} digits in a seed")
        more = range(int(low), int(high or low) + 1)
        if len(seeds) + len(more) > _MOST_SEEDS:
            raise InputError(f"--seeds: expected at most {_MOST_SEEDS} seeds, got {text}")
        seeds += more
    if not seeds:
        raise InputError(f"--seeds: {text!r} has no seed: the first is above the last")
    return list(dict.fromkeys(seeds))
