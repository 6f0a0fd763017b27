"""EXPERIMENT and its overrides, read, checked and agreed upon by all hosts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from stepcoder_jax.cli.flags import fill_in, parse_flags

if TYPE_CHECKING:
    from stepcoder_jax.config import Config


def parse_config(command: str, argv: list[str]) -> Config:
    """EXPERIMENT and its overrides -> a validated Config."""
    from stepcoder_jax.config import Config, ConfigError
    from stepcoder_jax.models import hf_config
    from stepcoder_jax.runs.experiment import load_experiment

    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):  # the flags with the config's own defaults
            parse_flags(Config, ["--help"], f"stepcoder {command} EXPERIMENT", Config())
        raise ConfigError(
            f"EXPERIMENT: expected a Python file first, as in `stepcoder {command} "
            "experiments/quickstart.py`"
        )
    prog = f"stepcoder {command} {argv[0]}"
    flags = fill_in(argv[1:], "--run.resume", "yes")
    config: Config = parse_flags(Config, flags, prog, load_experiment(argv[0], command))
    if config.model.checkpoint:  # its context length, before lengths are compared with it
        folder = hf_config.checkpoint_folder(config.model.checkpoint)
        if (folder / hf_config.FILE).is_file():  # the checks to come name what is missing
            shape = hf_config.read_shape(folder)
            config.model = dataclasses.replace(config.model, **shape)
    config.validate()
    return config


def prepare(command: str, argv: list[str]) -> Config:
    """As `parse_config`; hosts compare it, its files are looked at, and JAX starts."""
    from stepcoder_jax.runs.disk import common, preflight

    config = parse_config(command, argv)
    common.agree(config)
    preflight.check_config(config)
    start_devices(minutes=config.run.join_minutes)
    return config


def start_devices(**join: float) -> None:
    """Load JAX, find the other hosts, and refuse a machine without the devices that were
    asked for; see `join_hosts`."""
    from stepcoder_jax.devices import joining

    joining.join_hosts(**join)
