"""How many workers judge on this host: processes on one machine share its cores."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stepcoder_jax.config import ExecutionConfig
from stepcoder_jax.devices import gathers
from stepcoder_jax.execution import PoolSettings

_MOST_CORES = 8192
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # the same in all containers of a machine


def pool_settings(execution: ExecutionConfig, **more: Any) -> PoolSettings:
    """What the pool of this host is told; every host must call it.

    `execution.workers` 0 is a worker for each core that this process may run on, over the
    processes that may run on it too.
    """
    settings = PoolSettings(**vars(execution), **more)
    if jax.process_count() == 1 or settings.workers or settings.backend != "local":
        return settings
    machines, masks = gathers.stack((_machine(), _mask(os.sched_getaffinity(0))))
    ours = share_of_cores(jax.process_index(), machines, masks)
    return dataclasses.replace(settings, workers=ours)


def share_of_cores(host: int, machines: np.ndarray, masks: np.ndarray) -> int:
    """Whole cores of a host, at least 1: one that n hosts of its machine share is 1/n.

    `machines` is u8[N, ...], equal for hosts of one machine, and `masks` bool[N, cores].
    """
    on_it = [i for i in range(len(machines)) if (machines[i] == machines[host]).all()]
    sharers = masks[on_it].sum(axis=0)[masks[host]]
    return max(1, int((1 / sharers).sum() + 1e-6))


def _machine() -> np.ndarray:
    try:
        name = _BOOT.read_text()
    except OSError:
        name = socket.gethostname()
    return np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint8)


def _mask(cores: Sequence[int] | set[int]) -> np.ndarray:
    mask = np.zeros(_MOST_CORES, bool)
    mask[[core for core in cores if core < _MOST_CORES]] = True
    return mask
