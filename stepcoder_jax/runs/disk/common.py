"""What all hosts of a run must have in common, looked at before anything is built."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Any

from stepcoder_jax.config import Config, flatten, is_url
from stepcoder_jax.config.paths import SHIPPED, has_problems
from stepcoder_jax.data.problems import digest
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback.rewards import own
from stepcoder_jax.runs.disk.preflight import find_parent
from stepcoder_jax.runs.hosts import channel
from stepcoder_jax.runs.hosts.comparing import commit_of, require_same

_PACKAGE = Path(__file__).parent
_SEEN = 10.0  # seconds that a shared disk may take to show a new file


def agree(config: Config) -> None:
    """Refuse hosts that are not of one run; a process that is alone agrees with itself.

    Compared: the config, the commit, versions, the problem files, and that all see the
    same run folder. Raises DifferError, the same on every host.
    """
    limits = config.run
    waits = (60 * limits.join_minutes, limits.lost_seconds, 60 * limits.stall_minutes)
    hosts = channel.active()
    if hosts is None:
        return
    hosts.send({"kind": "limits", "limits": waits, "folder": limits.folder})
    require_same(hosts.gather("comparison", facts(config)))
    if not is_url(limits.folder):
        see_one_folder(hosts, limits.folder)


def require_same_level(pool: Pool) -> None:
    """Refuse hosts whose judges are isolated to another level."""
    hosts = channel.active()
    if hosts is not None:
        levels = hosts.gather("isolation level", pool.level)
        require_same([{"the judge's isolation level": level} for level in levels])


def facts(config: Config) -> dict[str, Any]:
    """What is compared, by name."""
    # it loads JAX, which a process that is alone does only after its cheap checks
    from stepcoder_jax.runs.disk.run_folder import versions

    data, sft = config.data, config.sft
    files = [data.path, data.validation, data.test, *data.contexts]
    files += [*sft.samples, *sft.records, *map(str, own.files_of(config.reward.terms))]
    return {
        **flatten(config.to_dict()),
        "the commit": commit_of(_PACKAGE),
        **{f"the version of {name}": version for name, version in versions().items()},
        **{f"the digest of {file}": _digest(file) for file in dict.fromkeys(files) if file},
    }


def _digest(file: str) -> str:
    if file in SHIPPED or not (Path(file).is_file() or has_problems(file)):
        return "nothing"  # part of the commit; or missing, which is said later
    return digest(file)[:12]


def see_one_folder(hosts: channel.Channel, folder: str) -> None:
    """Refuse hosts that do not see the same run folder: process 0 leaves a file there.

    In the nearest folder above that exists, since the run's own is not made yet.
    """
    place = Path(folder) if Path(folder).is_dir() else find_parent(Path(folder))
    mark = place / f".stepcoder-{secrets.token_hex(8)}"

    def take_away() -> None:
        with contextlib.suppress(OSError):  # none was made, or its place is a file
            mark.unlink()

    # at_end: another host may have more to say of the folder, and all end meanwhile
    with contextlib.ExitStack() as stack, channel.at_end(take_away):
        stack.callback(take_away)
        if hosts.number == 0:
            with contextlib.suppress(OSError):  # refused later, in its own words
                mark.touch()
        first = hosts.gather("run folder", mark.name if mark.exists() else "")[0]
        # in this host's own folder: a relative one may be another elsewhere
        sees = hosts.number == 0 or not first or _is_seen(place / first)
        seen = hosts.gather("run folder's mark", sees)
    own = [folder if sees else "another one" for sees in seen]
    require_same([{"the disk of run.folder": each} for each in own])


def _is_seen(mark: Path) -> bool:
    until = time.monotonic() + _SEEN
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if mark.name in os.listdir(mark.parent):  # a look-up may be remembered
                return True
        time.sleep(0.2)
    return False
