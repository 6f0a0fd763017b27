"""A network and a System V IPC namespace for a worker and all its children, where allowed.

An outer wall, put up once per worker: inside there is no network device that is up, no
abstract Unix socket and no shared memory of anybody else. The layers inside hold all this
too, so nothing is asked of it: containers and some distributions forbid namespaces.
"""

from __future__ import annotations

import ctypes
import os

_NEW_IPC, _NEW_USER, _NEW_NETWORK = 0x08000000, 0x10000000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Move this process into namespaces of its own; OSError where that is not allowed.

    An ordinary user needs a user namespace around them, in which every capability is held:
    the caller is to drop them. Root must not: it could no longer take another uid.
    """
    wanted = _NEW_IPC | _NEW_NETWORK
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(wanted if uid == 0 else wanted | _NEW_USER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code)}")
    if uid != 0:
        _write("setgroups", "deny")
        _write("uid_map", f"{uid} {uid} 1")
        _write("gid_map", f"{gid} {gid} 1")


def _write(name: str, text: str) -> None:
    # without pathlib: its pages, and those of what it loads, each fork would pay for
    with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
        file.write(text)
