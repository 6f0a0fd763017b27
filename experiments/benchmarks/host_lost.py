"""Nothing is lost but the iteration under way: a trial of host_trials.py.

A run of 5 iterations, of one process or of two, is hit in one of its parts by SIGKILL or
SIGTERM, and started again with `--run.resume auto` until it ends well. Its metrics (clocks
left out), rollouts and final parameters must be those of the undisturbed run to the bit.
After SIGTERM at most one iteration was run again, after SIGKILL at most `save_every`.
"""

from __future__ import annotations

import functools
import random
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from experiments.benchmarks.host_runs import AT, PARTS, Hosts
from experiments.benchmarks.host_same import (
    FLAGS,
    STEPS,
    Layout,
    Made,
    execute,
    look_at,
    run_on,
)

TRIALS = 25
SAVE_EVERY = 2  # as FLAGS has it
# iterations after which there is something to save or to validate
DUE = {"save": (1, 3), "validate": (1, 3)}


@functools.cache
def undisturbed(processes: int, cache: Path) -> Made:
    return run_on(Layout(processes, 1), cache)


def run_trial(number: int, seed: int, cache: Path) -> dict:
    """One moment; what came of it."""
    draw = random.Random(f"{seed} lost {number}")
    part, processes = PARTS[number % len(PARTS)], 1 + number // len(PARTS) % 2
    kill = draw.choice((signal.SIGKILL, signal.SIGTERM))
    iteration = draw.choice(DUE.get(part, range(1, STEPS)))
    # what comes at the end of iteration i is counted by the state, which is at i + 1
    at = f"{part}:{iteration + (part in DUE)}:{draw.random() * 0.2:.3f}:{int(kill)}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hosts = Hosts(folder, processes)
        hosts.flags += [*FLAGS, "--run.compilation_cache", str(cache.absolute())]
        victim = draw.randrange(processes)
        hosts.environ_of[victim] = {AT: at}
        codes = hosts.run()
        done, kept = hosts.iterations, saved_in(folder / "run")
        execute(Hosts(folder, processes), cache, *FLAGS, "--run.resume", "auto")
        made = look_at(folder / "run", 1)
    base = undisturbed(processes, cache)
    begun = max(iteration + 1, done)
    return {
        "at": at,
        "processes": processes,
        "host": victim,
        "signal": kill.name,
        "codes": codes,
        "said": {} if set(codes) == {75} else hosts.errors(),
        "again": begun - kept,
        "metrics_equal": made.metrics == base.metrics,
        "rollouts_equal": made.rollouts == base.rollouts,
        "parameters_equal": made.parameters == base.parameters,
    }


def saved_in(run: Path) -> int:
    """Iterations that are in the newest whole checkpoint."""
    from stepcoder_jax.runs.disk import checkpoint

    return checkpoint.latest_step(run / "checkpoints") or 0


def complaints(row: dict) -> Iterator[str]:
    """What is wrong with a trial."""
    for what in ("metrics", "rollouts", "parameters"):
        if not row[f"{what}_equal"]:
            yield f"other {what}"
    most = 1 if row["signal"] == "SIGTERM" else SAVE_EVERY
    if row["again"] > most:
        yield f"{row['again']} iterations were run again, at most {most}"
    if 0 in row["codes"]:
        yield f"it was not hit: {row['codes']}"


def describe(rows: list[dict]) -> list[str]:
    """Lines on the trials."""
    lines = []
    for name in ("SIGTERM", "SIGKILL"):
        chosen = [row for row in rows if row["signal"] == name]
        if chosen:
            again = max(row["again"] for row in chosen)
            wrong = sum(any(complaints(row)) for row in chosen)
            lines.append(
                f"lost, {name}: {len(chosen)} moments, {wrong} wrong, at most {again} "
                "iterations run again"
            )
    return lines
