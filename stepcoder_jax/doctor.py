"""`stepcoder doctor`: what this machine offers to a run."""

from __future__ import annotations

import jax

from stepcoder_jax.config import ExecutionConfig
from stepcoder_jax.execution import Pool, PoolSettings
from stepcoder_jax.run_folder import versions


def doctor() -> int:
    """Print versions, devices, and the isolation that the judge measured."""
    print(
        "versions   " + ", ".join(f"{name} {found}" for name, found in versions().items())
    )
    print("devices    " + ", ".join(str(device) for device in jax.devices()))
    settings = PoolSettings(**vars(ExecutionConfig(workers=1, min_level=0)))
    with Pool(settings) as pool:
        print(f"isolation  level L{pool.level}")
        for name, seen in [*pool.layers.items(), *pool.canaries.items()]:
            print(f"  {name:12s} {seen}")
    return 0
