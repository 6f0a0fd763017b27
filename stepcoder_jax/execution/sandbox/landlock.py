"""Landlock through ctypes: which files a process may read; none may it write.

See https://docs.kernel.org/userspace-api/landlock.html; the call numbers are the same on
every architecture.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# file system rights known to each ABI version: 13 bits, then REFER, TRUNCATE, IOCTL_DEV
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_BOTH = 0b11  # bind and connect TCP, ABI 4
_SCOPE_BOTH = 0b11  # abstract Unix sockets and signals, ABI 6

_libc = ctypes.CDLL(None, use_errno=True)
# Declared once: made anew for each call, arguments cost a child ten pages.
_restrict = ctypes.CDLL(None, use_errno=True).syscall
_restrict.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_uint)


def _syscall(number: int, *arguments: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def abi_version() -> int:
    """The kernel's Landlock ABI, 0 where there is none."""
    try:
        return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    except OSError:
        return 0


def create_ruleset(readable: Iterable[str]) -> int:
    """Return the descriptor of a ruleset that allows reading below `readable` only."""
    abi = abi_version()
    fs_rights = (1 << _FS_BITS[min(abi, 5)]) - 1
    attributes = struct.pack("=Q", fs_rights)
    if abi >= 4:
        attributes += struct.pack("=Q", _NET_BOTH)
    if abi >= 6:
        attributes += struct.pack("=Q", _SCOPE_BOTH)
    ruleset = _syscall(
        _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)
    )
    for path in readable:
        _allow_reading(ruleset, path)
    return ruleset


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a place that this machine does not have needs no rule
    try:
        folder = stat.S_ISDIR(os.fstat(target).st_mode)
        rights = _READ_FILE | (_READ_DIR if folder else 0)
        rule = struct.pack("=Qi", rights, target)
        _syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, ctypes.c_uint(0))
    finally:
        os.close(target)


def restrict_self(ruleset: int) -> None:
    """Put this thread and its descendants under `ruleset`; needs no_new_privs."""
    if _restrict(_RESTRICT_SELF, ruleset, 0) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock_restrict_self: {os.strerror(code)}")
