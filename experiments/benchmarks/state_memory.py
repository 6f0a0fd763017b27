"""How many GiB of each device an experiment's run takes, part by part, before it is run.

python experiments/benchmarks/state_memory.py EXPERIMENT[:ARG] [...] [--devices N]
    [--compile]

Prints a Markdown row per experiment, of the mesh of N devices that need not be there; what
the columns are stands in stepcoder_jax/planning/counting.py; `stepcoder plan` says more.
--compile asks XLA what the update needs beside its inputs (one device, of the kind at hand;
a CPU widens bfloat16 and tells too much).
"""

from __future__ import annotations

import argparse

import jax
import numpy as np

from stepcoder_jax.config import Config
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.planning.counting import GIB, Parts, count
from stepcoder_jax.pytrees import Experience
from stepcoder_jax.runs.experiment import load_experiment


def compiled(config: Config) -> int:
    """Bytes that the update needs beside its inputs, as XLA says for one device."""
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    steps = Steps(config, mesh, (0,))
    rows, columns = config.batch_size, config.sampling.max_completion_length
    length = config.prompt.max_prompt_length + columns
    number = jax.ShapeDtypeStruct((rows,), np.int32)
    array = jax.ShapeDtypeStruct((rows, columns), np.float32)
    mask = jax.ShapeDtypeStruct((rows, columns), bool)
    values = array if steps.abstract_state.critic is not None else None
    tokens = jax.ShapeDtypeStruct((rows, length), np.int32)
    experience = Experience(
        tokens, number, number, mask, mask, array, array, values, array, values
    )
    program = steps.update_program.lower(steps.abstract_state, experience).compile()
    return program.memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("experiments", nargs="+")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    flags = parser.parse_args()
    names = [*Parts._fields[:6], "at most", *(["XLA's update"] if flags.compile else [])]
    print(f"| GiB on each of {flags.devices} | {' | '.join(names)} |")
    print("|" + "---|" * (len(names) + 1))
    for name in flags.experiments:
        config = load_experiment(name)
        config.validate()
        parts = count(config, flags.devices)
        sizes = [*parts[:6], parts.at_most]
        if flags.compile:
            sizes.append(compiled(config))
        shown = " | ".join(f"{size / GIB:.1f}" for size in sizes)
        print(f"| {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
