"""When the allocation that a run has will be taken from it, and when to save before."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

_TIMES = 3  # a save begins so many times its own duration before: it ends two before
# before a save was measured it is taken to last so long, or a share of what is left
_UNMEASURED, _SHARE = 60.0, 0.05


def process_age() -> float:
    """Seconds since this process was started."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22, since boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def end_of_allocation(minutes: float) -> float | None:
    """`find_end` of this process."""
    return find_end(minutes, os.environ, process_age(), time.time())


def find_end(
    minutes: float, environ: Mapping[str, str], age: float, now: float
) -> float | None:
    """When the allocation ends, in seconds since 1970; None where no one says so.

    `minutes` (0: not given) count from the allocation's start, which Slurm says; else from
    that of this process, `age` seconds ago. Without them Slurm says the end, too.
    """
    start, end = (
        _seconds(environ, f"SLURM_JOB_{which}_TIME") for which in ("START", "END")
    )
    if minutes:
        return (now - age if start is None else start) + 60 * minutes
    return end


def _seconds(environ: Mapping[str, str], name: str) -> float | None:
    said = environ.get(name, "")
    return float(said) if said.isdecimal() else None


def time_to_save(end: float, save_seconds: float | None, now: float) -> float:
    """Seconds from `now` until a save must begin: it ends twice its time before `end`."""
    left = end - now
    if save_seconds is None:
        save_seconds = min(_UNMEASURED, _SHARE * max(0.0, left))
    return left - _TIMES * save_seconds
