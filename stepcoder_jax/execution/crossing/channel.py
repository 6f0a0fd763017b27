"""Calls between the test code's process and the program's, as encoded values.

Test code -> program: ("call", name or number, args, kwargs as pairs); of an object by its
number ("next", number, count) for an iterator's items, ("has", number, name) and ("text",
number, "str" or "repr"). Program -> test code: ("ready", ()) once its file has run, then
for each request one of
  ("return", value, changes)        with (place, items) of each container in the arguments
                                    that is not as it was
  ("items", values, whether that was the end, ())
  ("raise", told, changes)          see `errors.tell`
  ("large", message)                for an answer beyond a limit
Each message is its length and the bytes of messages.Writer, so what comes from the program
is decoded strictly, and what an object of the program would do is never asked. The ends are
`server` and `proxy`.
"""

from __future__ import annotations

import os
import struct

CHANNEL_FD = 5
_LENGTH = struct.Struct("!I")


def send(fd: int, data: bytes) -> None:
    """Send one encoded message; BrokenPipeError when nobody reads."""
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def receive(fd: int, limit: int) -> bytes | None:
    """Receive one message; None when the other side is gone or sends over `limit` bytes."""
    head = _read_exactly(fd, _LENGTH.size)
    if head is None or _LENGTH.unpack(head)[0] > limit:
        return None
    return _read_exactly(fd, _LENGTH.unpack(head)[0])


def _read_exactly(fd: int, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        try:
            part = os.read(fd, min(size, 1 << 20))
        except ConnectionError:  # it ended with a message of ours unread
            part = b""
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def say_limit(limit: int) -> str:
    """What is said of a message that is longer."""
    return f"more than {limit >> 20} MB (execution.output_mb)"
