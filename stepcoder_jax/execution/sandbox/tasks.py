"""How many tasks a program may have: its worker is asked before each of its threads starts.

No resource limit counts the tasks of one program alone: RLIMIT_NPROC counts all that a user
runs. So a worker puts its filter on with a listener (seccomp_unotify(2), Linux 5.5 or
newer, no privilege asked), and the kernel holds every thread's `clone` until the worker has
said yes, or EAGAIN: then Python raises "RuntimeError: can't start new thread". A program
without threads pays nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

MOST_TASKS = 64  # of a program, its main thread included
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp: id, val, error, flags

_question = ctypes.create_string_buffer(80)  # struct seccomp_notif; its id comes first
_answer = ctypes.create_string_buffer(_ANSWER.size)
_ioctl = ctypes.CDLL(None, use_errno=True).ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


def answer(listener: int, pid: int, granted: int) -> int:
    """Answer the question that waits; return how many threads `pid` was granted by now.

    Threads that start at the same moment are asked for before they are counted: with all
    of them at it, a program gets to less than twice the limit, and no further.
    """
    ctypes.memset(_question, 0, len(_question))  # else the kernel refuses
    if _ioctl(listener, _RECEIVE, _question) != 0:
        return granted  # who asked is no longer there
    allowed = count(pid, granted) < MOST_TASKS
    error, flags = (0, _CONTINUE) if allowed else (-errno.EAGAIN, 0)
    _ANSWER.pack_into(_answer, 0, *struct.unpack_from("=Q", _question), 0, error, flags)
    _ioctl(listener, _SEND, _answer)
    return granted + allowed


def count(pid: int, granted: int) -> int:
    """The tasks that a process has; all that it ever had, where /proc does not show it."""
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 1 + granted
