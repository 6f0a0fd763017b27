"""Running untrusted programs: standard library only, usable on its own.

README.md beside this file says what lives here and who may call it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepcoder_jax.execution.opening import open_pool
    from stepcoder_jax.execution.pool.pool import Pool
    from stepcoder_jax.execution.settings import PoolSettings, SandboxError

_HOMES = {
    "Pool": "pool.pool",
    "open_pool": "opening",
    "PoolSettings": "settings",
    "SandboxError": "settings",
}
__all__ = ["Pool", "PoolSettings", "SandboxError", "open_pool"]


def __getattr__(name: str) -> Any:
    """Load a name when it is asked for: a worker must not load the pool.

    The pool needs `threading`, whose hook in every forked child costs half a millisecond.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
