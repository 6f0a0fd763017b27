"""What a pool is told, and the error with which it refuses."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal

from stepcoder_jax.records import InputError

DEFAULT_MIN_LEVEL = 3
_SMALLEST_MEMORY_MB = 64
_REQUESTS = 16  # at a time, to a service
TEXT_KEPT = 4096


class SandboxError(InputError):
    """The sandbox cannot be had as asked; the message says why and the mend."""


@dataclasses.dataclass(frozen=True)
class PoolSettings:
    """How programs are run; the fields of config.ExecutionConfig, and three more.

    The defaults stand here, and config takes them from here: the judge works without it.
    `python`, `min_level`, `allow_unsafe` and `without` are of the local backend alone.
    `min_level` 3 means 3, or 2 where the kernel has no Landlock (then with a banner).
    `cache_size` reports are kept and given again to the same source on the same tests.
    `without` leaves layers of the sandbox out, to show what each of them is good for.
    `text_kept` is how many bytes of a test's output its result holds.
    `coverage` is what is noted of a run: nothing, statements, or also the expressions in
    them, which takes an interpreter of 3.12 or newer.
    """

    workers: int = 0  # 0: one per core; with backend "http" requests at a time, 0: 16
    tests: Literal["early_exit", "run_all"] = "early_exit"
    cpu_seconds: float = 6.0  # of one test, for problems without a measured limit
    memory_mb: int = 512
    output_mb: int = 8
    python: str = ""  # sandbox interpreter; "": this one
    min_level: int = DEFAULT_MIN_LEVEL
    allow_unsafe: bool = False
    backend: Literal["local", "http"] = "local"
    url: str = ""  # of the service, for backend "http"
    cache_size: int = 4096  # 0: off
    without: tuple[str, ...] = ()
    coverage: Literal["none", "statement", "expression"] = "statement"
    text_kept: int = TEXT_KEPT

    def __post_init__(self) -> None:
        if self.tests not in ("early_exit", "run_all"):
            raise SandboxError(
                f"execution.tests is {self.tests!r}: expected 'early_exit' or 'run_all'"
            )
        if self.backend not in ("local", "http"):
            raise SandboxError(
                f"execution.backend is {self.backend!r}: expected 'local' or 'http'"
            )
        if self.backend == "http" and not self.url.startswith(("http://", "https://")):
            raise SandboxError(
                f"execution.url is {self.url!r}: expected the http:// or https:// address "
                "of a SandboxFusion service; set --execution.url, or --execution.backend "
                "local"
            )
        if self.coverage not in ("none", "statement", "expression"):
            raise SandboxError(
                f"coverage is {self.coverage!r}: expected none, statement or expression"
            )
        if self.workers < 0 or not 0 <= self.min_level <= 3:
            raise SandboxError(
                f"execution.workers is {self.workers} and execution.min_level is "
                f"{self.min_level}: expected workers >= 0 and a level from 0 to 3"
            )
        if self.memory_mb < _SMALLEST_MEMORY_MB or self.output_mb < 1:
            raise SandboxError(
                f"execution.memory_mb is {self.memory_mb} and execution.output_mb is "
                f"{self.output_mb}: expected at least {_SMALLEST_MEMORY_MB} and 1"
            )
        if self.cache_size < 0:
            raise SandboxError(
                f"execution.cache_size is {self.cache_size}: expected 0 (off) or more"
            )
        if not self.cpu_seconds > 0:
            raise SandboxError(
                f"execution.cpu_seconds is {self.cpu_seconds}: expected more than 0"
            )

    @property
    def worker_count(self) -> int:
        """Workers to start: as asked, or one for each core we may use."""
        is_local = self.backend == "local"
        return self.workers or (len(os.sched_getaffinity(0)) if is_local else _REQUESTS)
