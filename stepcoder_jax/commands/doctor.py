"""`stepcoder doctor`: what this machine offers to a run."""

from __future__ import annotations

import shutil
import sys

import jax

from stepcoder_jax.devices import joining
from stepcoder_jax.execution import Pool, PoolSettings, SandboxError
from stepcoder_jax.records import InputError
from stepcoder_jax.runs.disk.run_folder import versions

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
