"""Who opens a pool: the one on this machine, or the one on a service."""

from __future__ import annotations

from stepcoder_jax.execution.pool.pool import Pool
from stepcoder_jax.execution.settings import PoolSettings


def open_pool(settings: PoolSettings) -> Pool:
    """The pool of `settings.backend`; SandboxError when it cannot be had."""
    if settings.backend == "http":
        # here, since few need it and what speaks HTTP is dear
        from stepcoder_jax.execution.remote.pool import RemotePool

        return RemotePool(settings)
    return Pool(settings)
