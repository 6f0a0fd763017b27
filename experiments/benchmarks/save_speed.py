"""Seconds that a run stands still for a save, beside the run and in its way.

    python experiments/benchmarks/save_speed.py [--gib 1] [--out FOLDER]

A state of so many GiB (parameters and both moments of Adam) is saved twice: by `Saver`,
while a thread of this process computes, and at once. Each in a process of its own, for
the peak of its memory. On a CPU a device's memory is the host's: nothing is copied, and
the arrays are only kept until they are written; an accelerator's are copied, so that there
the peak grows by the size of this host's part of the state.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from stepcoder_jax.pytrees import TextState
from stepcoder_jax.runs.disk import checkpoint
from stepcoder_jax.runs.disk.checkpoint import Saved
from stepcoder_jax.runs.disk.saver import Saver

LAYERS = 16


def make_state(gib: float) -> TextState:
    """Three trees of LAYERS matrices, `gib` in all."""
    side = int((gib * 2**30 / 4 / 3 / LAYERS) ** 0.5)
    make = jax.jit(lambda key: jax.random.normal(key, (side, side), jnp.float32))
    keys = iter(jax.random.split(jax.random.key(0), 3 * LAYERS))
    trained, mu, nu = (
        {f"layer_{i}": make(next(keys)) for i in range(LAYERS)} for _ in range(3)
    )
    return jax.block_until_ready(TextState(jnp.int32(1), trained, {"mu": mu, "nu": nu}))


def peak() -> float:
    """GiB of memory that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(gib: float, way: str, folder: str) -> dict[str, float]:
    """Save once to warm up and once for the figure."""
    saver = Saver()
    warm = Saved(make_state(0.001), {"best": np.zeros(1)}, {})
    checkpoint.save(Path(folder) / "warm", 1, warm, keep=1)
    saved = warm._replace(state=make_state(gib))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(saved.state)) / 2**30
    before, start = peak(), time.perf_counter()
    if way == "async":
        saver.start(lambda: checkpoint.begin(Path(folder) / "run", 1, saved, keep=1))
    else:
        checkpoint.save(Path(folder) / "run", 1, saved, keep=1)
    blocked = time.perf_counter() - start
    saver.wait()
    whole = time.perf_counter() - start
    return {
        "gib": size,
        "seconds_blocked": blocked,
        "seconds": whole,
        "peak_gib_before": before,
        "peak_gib": peak(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.0, help="of state; default: 1")
    parser.add_argument("--out", default="", help="where it is written; default: /tmp")
    parser.add_argument("--way", choices=("async", "sync"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.out or None) as folder:
        if given.way:
            print(json.dumps(measure(given.gib, given.way, folder)))
            return
        for way in ("async", "sync"):
            command = [sys.executable, __file__, "--gib", str(given.gib), "--way", way]
            done = subprocess.run(
                [*command, "--out", folder], capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            shown = "  ".join(f"{name} {number:.2f}" for name, number in found.items())
            print(f"{way:5s}  {shown}", flush=True)


if __name__ == "__main__":
    main()
