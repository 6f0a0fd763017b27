"""`stepcoder doctor`: what this machine offers to a run; --hosts: who is there of one."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stepcoder_jax.config import ConfigError
from stepcoder_jax.devices import joining, sharding
from stepcoder_jax.execution import Pool, PoolSettings, SandboxError
from stepcoder_jax.records import InputError
from stepcoder_jax.runs.disk import common
from stepcoder_jax.runs.disk.preflight import find_parent
from stepcoder_jax.runs.disk.run_folder import versions
from stepcoder_jax.runs.hosts import channel
from stepcoder_jax.runs.hosts.comparing import commit_of, require_same
from stepcoder_jax.runs.hosts.parts import tell
from stepcoder_jax.runs.hosts.place import WANTED

_NEWER = ("python3.11", "python3.12", "python3.13", "python3.14")
_LANDLOCK = "boot a kernel of 5.13 or newer with Landlock in CONFIG_LSM or lsm="
_SECCOMP = "allow seccomp filters (x86_64 and aarch64 have a table)"
# canary -> what holds it
_MENDS = {
    **dict.fromkeys(
        ("read a system file", "write to /tmp", "write to the working folder"), _LANDLOCK
    ),
    **dict.fromkeys(
        ("TCP", "UDP", "fork", "exec", "signal the worker", "read the worker's memory"),
        _SECCOMP,
    ),
    "memory above the limit": "allow setrlimit(RLIMIT_AS)",
}
# beside the versions, what is to be the same on all hosts
_ALIKE = ("the commit", "the isolation level")


def interpreters() -> list[str]:
    """This interpreter, then those on PATH that could run programs in its stead."""
    found = [path for name in _NEWER if (path := shutil.which(name))]
    return list(dict.fromkeys(["", *found]))


def heading(name: str, pool: Pool) -> str:
    """One line on an interpreter: the level its sandbox reached, and what it can note."""
    version = ".".join(map(str, pool.interpreter))
    finest = "expression" if pool.interpreter >= (3, 12) else "statement"
    where = name or sys.executable
    return f"level L{pool.level} of 3, Python {version}, coverage by {finest}: {where}"


def details(pool: Pool) -> list[str]:
    """Layers, what each canary saw, and how to mend what is open."""
    seen = [*pool.layers.items(), *pool.canaries.items()]
    opened = [canary for canary, saw in pool.canaries.items() if saw == "open"]
    mends = dict.fromkeys(_MENDS[canary] for canary in opened)
    return [
        *(f"  {name:28s} {state}" for name, state in seen),
        *(f"  mend: {mend}" for mend in mends),
    ]


def doctor() -> int:
    """Print versions, devices, and the isolation measured for each interpreter found.

    Returns the exit code: 2 where the devices that were asked for are not there.
    """
    print(
        "versions   " + ", ".join(f"{name} {found}" for name, found in versions().items())
    )
    code = 0
    try:
        joining.require_devices()
        print("devices    " + ", ".join(str(device) for device in jax.devices()))
    except InputError as error:
        print(f"devices    none: {error}")
        code = 2
    last: list[str] = []
    for name in interpreters():
        try:
            with Pool(PoolSettings(python=name, workers=1, min_level=0)) as pool:
                print(f"isolation  {heading(name, pool)}")
                lines = details(pool)
        except SandboxError as error:
            print(f"isolation  none: {error}")
            continue
        print("\n".join(lines) if lines != last else "  as above")
        last = lines
    return code


def survey(folder: str) -> dict[str, Any]:
    """What is said of this host, and compared as far as a run needs it to be alike."""
    path = Path(folder) if Path(folder).is_dir() else find_parent(Path(folder))
    return {
        "name": socket.gethostname(),
        "cores": len(os.sched_getaffinity(0)),
        "free": shutil.disk_usage(path).free,
        "the commit": commit_of(Path(__file__).parent),
        "the isolation level": measure_level(),
        "versions": versions(),
    }


def measure_level() -> str:
    """The isolation that a judge reaches here: L0 to L3, or "none"."""
    try:
        with Pool(PoolSettings(workers=1, min_level=0)) as pool:
            return f"L{pool.level}"
    except SandboxError:
        return "none"


def describe(surveys: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each host, then the versions."""
    lines = [
        f"host {number:<5d} {of['name']}: {of['cores']} cores, isolation "
        f"{of['the isolation level']}, {of['free'] / 1e9:.1f} GB free, commit "
        f"{of['the commit']}"
        for number, of in enumerate(surveys)
    ]
    found = {
        number: ", ".join(f"{name} {version}" for name, version in of["versions"].items())
        for number, of in enumerate(surveys)
    }
    alike = len(set(found.values())) == 1
    return [*lines, "versions   " + (found[0] if alike else tell(found))]


def compared(of: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same on all hosts."""
    named = {f"the version of {name}": version for name, version in of["versions"].items()}
    return {**{name: of[name] for name in _ALIKE}, **named}


def own_devices() -> str:
    """The devices of this process, as `4 TPU v5 lite`."""
    kinds = Counter(device.device_kind for device in jax.local_devices())
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def doctor_hosts(folder: str, minutes: float) -> int:
    """Look at all hosts of a run whose folder is to be `folder`.

    Returns 0; raises DifferError, the same on every host, where they are not of one run,
    and what `join_hosts` raises.
    """
    hosts = channel.active()
    if hosts is None:
        raise ConfigError(f"--hosts: this process is alone; {WANTED}")
    # its lost_seconds and stall_minutes are those of a run by default
    limits = [60 * minutes, 30.0, 900.0]
    hosts.send({"kind": "limits", "limits": limits, "folder": ""})
    surveys = hosts.gather("who is there", survey(folder))

    def say(*lines: str) -> None:
        if hosts.number == 0:
            print("\n".join(lines), flush=True)

    say(*describe(surveys))
    require_same([compared(of) for of in surveys])
    common.see_one_folder(hosts, folder)
    say(f"run folder {folder}: the same for all")
    joining.join_hosts(minutes)
    devices = hosts.gather("devices", own_devices())
    say("devices    " + tell({number: f"has {of}" for number, of in enumerate(devices)}))
    require_same([{"the kind and number of devices": of} for of in devices])
    if int(sharding.from_first(np.asarray(hosts.number))):
        raise ConfigError("what the devices of host 0 send is not what arrives")
    say(f"together   {jax.device_count()} devices on {len(devices)} hosts hear each other")
    return 0
