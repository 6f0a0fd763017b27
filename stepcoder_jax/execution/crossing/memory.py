"""Whether a program ended because there was no memory."""

from __future__ import annotations

import errno


def ran_out(error: BaseException) -> bool:
    """Whether it says that there was no memory; a group, whether one in it says so."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(ran_out, error.exceptions))
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return refused or isinstance(error, MemoryError)
