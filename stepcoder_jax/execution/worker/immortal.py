"""Objects whose reference counts stand still, so that forked children share their pages.

A child that only looks at an object counts its references, and so copies the page that it
lies in: a third of the pages that a short program costs. From CPython 3.12 on an object
with a certain count is immortal (PEP 683), and nobody writes to its count. The worker makes
everything that it holds immortal, once, before it forks: nothing of it is ever freed
anyway. It is done by hand, for Python has no call for it, and only where the layout of
objects is found to be as expected; elsewhere (3.11) nothing is done, and pages are copied.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import types
from collections.abc import Iterable

_IMMORTAL = 0xFFFFFFFF  # the lower half of ob_refcnt, of 3.12 and 3.13 on 64 bits
_VERSIONS = ((3, 12), (3, 13))


def supported() -> bool:
    """Whether counts are where, and mean what, they are taken for."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in _VERSIONS:
        return False
    if sys.maxsize < 1 << 32 or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    mortal = [object()]
    counted = sys.getrefcount(mortal) - 1  # without the argument
    return _count(None).value == _IMMORTAL and _count(mortal).value == counted


def keep_all() -> None:
    """Keep all that this process holds as it is, for it and for all its children.

    What it holds no more goes back to the kernel: each page makes each fork dearer.
    """
    gc.collect()
    make_immortal()
    gc.freeze()
    with contextlib.suppress(AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def make_immortal() -> int:
    """Make all objects that the garbage collector reaches immortal; return how many.

    Before `gc.freeze`, which hides objects from it.
    """
    if not supported():
        return 0
    # What has been seen is told by its count. A table of all objects would leave garbage, a
    # fifth of the worker's memory, for each fork to copy.
    pending: list[object] = gc.get_objects()
    made = sum(map(_make, pending))
    while pending:
        fresh = [each for each in _held_by(pending.pop()) if _make(each)]
        made += len(fresh)
        pending += fresh
    return made


def _make(each: object) -> bool:
    """Make an object immortal; False for one that was."""
    count = _count(each)
    if count.value == _IMMORTAL:
        return False
    count.value = _IMMORTAL
    return True


def _held_by(owner: object) -> Iterable[object]:
    """What an object refers to, the parts of code objects included, which gc leaves out."""
    if isinstance(owner, types.CodeType):
        return (
            *(owner.co_consts, owner.co_names, owner.co_filename, owner.co_name),
            *(owner.co_qualname, owner.co_linetable, owner.co_exceptiontable),
        )
    return gc.get_referents(owner)


def _count(each: object) -> ctypes.c_uint32:
    return ctypes.c_uint32.from_address(id(each))
