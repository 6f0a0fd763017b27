"""What hosts must have in common, told apart in one line before anything is built."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcoder_jax.records import InputError
from stepcoder_jax.runs.hosts.parts import name_hosts

_MOST_NAMED = 3  # of what differs


class DifferError(InputError):
    """Hosts that are not of one run."""


def require_same(facts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse hosts that differ; DifferError says which of them, and in what.

    `facts` are those of each host, by name; a host without one has "nothing".
    """
    names = dict.fromkeys(name for each in facts for name in each)
    wrong = [
        f"{name} is {_tell(values)}"
        for name in names
        for values in [[str(each.get(name, "nothing")) for each in facts]]
        if len(set(values)) > 1
    ]
    if wrong:
        more = f"; and {len(wrong) - _MOST_NAMED} more" * (len(wrong) > _MOST_NAMED)
        raise DifferError(
            f"the hosts differ: {'; '.join(wrong[:_MOST_NAMED])}{more}; start all with the "
            "same"
        )


def _tell(values: Sequence[str]) -> str:
    hosts: dict[str, list[int]] = {}
    for host, value in enumerate(values):
        hosts.setdefault(value, []).append(host)
    return ", ".join(f"{value} on {name_hosts(each)}" for value, each in hosts.items())


def commit_of(folder: Path) -> str:
    """The commit of a checkout, and whether it was changed; "none" outside of one."""
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "none"
    return head + " with changes" * bool(changed)


def _git(folder: Path, *words: str) -> str:
    ended = subprocess.run(
        ["git", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return ended.stdout.strip()
