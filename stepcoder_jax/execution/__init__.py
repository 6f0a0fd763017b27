"""Running untrusted programs: standard library only, usable on its own."""

from stepcoder_jax.execution.pool import Pool
from stepcoder_jax.execution.settings import PoolSettings, SandboxError

__all__ = ["Pool", "PoolSettings", "SandboxError"]
