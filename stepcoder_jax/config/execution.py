"""The judge; its defaults stand in execution/settings.py, which works without this."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from stepcoder_jax.config.ranges import COUNT, NATURAL, POSITIVE, Range, Ranges, Rules
from stepcoder_jax.config.section import Section
from stepcoder_jax.execution.settings import PoolSettings

if TYPE_CHECKING:
    from stepcoder_jax.config.whole import Config


@dataclasses.dataclass
class ExecutionConfig(Section):
    """The judge's pool: sandboxed workers on this machine, or a service elsewhere.

    The defaults are PoolSettings' own.
    """

    backend: Literal["local", "http"] = PoolSettings.backend  # http: weaker, see its README
    url: str = PoolSettings.url  # of a SandboxFusion service, for backend "http"
    # 0: one per core; with backend "http" requests at a time, 0: 16
    workers: int = PoolSettings.workers
    tests: Literal["early_exit", "run_all"] = PoolSettings.tests
    # of one test, for problems without a measured limit
    cpu_seconds: float = PoolSettings.cpu_seconds
    memory_mb: int = PoolSettings.memory_mb
    output_mb: int = PoolSettings.output_mb
    python: str = PoolSettings.python  # sandbox interpreter; "": the trainer's own
    # isolation level below which the pool refuses to start
    min_level: int = PoolSettings.min_level
    # start below min_level all the same, with a banner at each step
    allow_unsafe: bool = PoolSettings.allow_unsafe
    # reports kept for programs that are met again (about 10 kB each); 0: none
    cache_size: int = PoolSettings.cache_size

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("workers", "cache_size"), NATURAL),
        **dict.fromkeys(("memory_mb", "output_mb"), COUNT),
        "cpu_seconds": POSITIVE,
        "min_level": Range(0, 3),
    }


def rules(config: Config) -> Rules:
    """Of the address of a service."""
    yield (
        "execution.url",
        config.execution.backend == "local"
        or config.execution.url.startswith(("http://", "https://")),
        "the http:// or https:// address of a service (execution.backend is http)",
    )
