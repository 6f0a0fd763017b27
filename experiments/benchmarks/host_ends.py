"""Whatever ends one host ends all: a trial of host_trials.py, and what is wrong with it.

One of the processes of a run, at random, is killed (`kill`: SIGKILL of its trainer or of
its watcher), asked to stop (`term`: SIGTERM), stopped (`stop`: SIGSTOP, with a stall limit
of 20 seconds), raises an exception (`error`), fails in a reward of the user's own
(`reward`, which saves first), is not started (`absent`, with 3 seconds to join), or has
another config (`differ`).
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.host_runs import FAILS, HERE, Hosts, descendants, end_all

STALL_SECONDS = 20


class Kind(NamedTuple):
    """How a trial must end: seconds after the event, and the code."""

    seconds: float
    code: int


# an error is everyone's within 10 s; 30 s are run.lost_seconds, and the rest is the end
KINDS = {
    "kill": Kind(30, 75),
    "term": Kind(60, 75),
    "stop": Kind(STALL_SECONDS + 30, 75),
    "error": Kind(60, 1),  # from the iteration before it
    "reward": Kind(60, 2),  # the same
    "absent": Kind(60, 75),  # from the start
    "differ": Kind(60, 2),  # from the start
}
FROM_START = ("absent", "differ")


def run_trial(kind: str, processes: int, draw: random.Random, cache: Path) -> dict:
    """One trial; what it did and saw."""
    victim, is_watcher = draw.randrange(processes), draw.random() < 0.5
    with tempfile.TemporaryDirectory() as name:
        absent = victim if kind == "absent" else -1
        hosts = Hosts(Path(name), processes, absent=absent)
        # a limit of 20 s holds for compilation, too
        hosts.flags += ["--run.compilation_cache", str(cache.absolute())]
        if kind == "absent":
            hosts.flags += ["--run.join_minutes", "0.05"]
        elif kind == "differ":
            hosts.flags_of[victim] = ["--run.seed", "7"]
        elif kind == "error":
            hosts.environ_of[victim] = {FAILS: kind}
        elif kind == "reward":
            hosts.flags += ["--reward.terms", "stepcoder", f"{HERE}:fail_once"]
            hosts.environ_of[victim] = {FAILS: kind}
        elif kind == "stop":
            hosts.flags += ["--run.stall_minutes", str(STALL_SECONDS / 60)]
        try:
            hosts.start()
            if kind not in FROM_START:
                hosts.wait_for_iterations(2)
            seen = descendants(*(process.pid for process in hosts.all))
            event = hosts.started if kind in FROM_START else time.monotonic()
            if kind in ("kill", "term", "stop"):
                time.sleep(draw.random() * 2)
                seen = descendants(*(process.pid for process in hosts.all))
                number = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
                target = hosts.trainer_of(victim)
                if is_watcher and kind != "stop":
                    target = hosts.running[victim].pid
                event = time.monotonic()
                os.kill(target, number.get(kind, signal.SIGSTOP))
            ended = hosts.wait_for_end(4 * KINDS[kind].seconds)
            seconds = time.monotonic() - event
            time.sleep(1)
            left = [process.number for process in seen if process.lives]
            codes = [process.poll() for process in hosts.all]
            said = hosts.errors()
        finally:
            end_all(hosts.all)
    of = "watcher" if is_watcher and kind in ("kill", "term") else "trainer"
    row = {"kind": kind, "host": victim, "of": of, "seconds": round(seconds, 1)}
    return row | {"ended": ended, "codes": codes, "left": left, "said": said}


def complaints(row: dict) -> Iterator[str]:
    """What is wrong with a trial."""
    wanted = KINDS[row["kind"]]
    if not row["ended"] or row["seconds"] > wanted.seconds:
        yield f"took {row['seconds']} s of {wanted.seconds:g}"
    # who was killed has the code of that
    if set(row["codes"]) - {wanted.code, -signal.SIGKILL}:
        yield f"codes {row['codes']}"
    if row["left"]:
        yield f"left {row['left']}"
    last = [lines[-1] for lines in row["said"].values() if lines]
    words = "\n".join(line for lines in row["said"].values() for line in lines)
    if "Check failure" in words or not last:
        yield "a stack of C++, or no word"
