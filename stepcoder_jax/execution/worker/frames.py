"""Length-prefixed frames between the pool and its workers: a JSON header and a body."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

_PREFIX = struct.Struct("!II")
MAX_HEADER = 1 << 20
MAX_BODY = 1 << 30
Frame = tuple[dict[str, Any], bytes]  # header and body
_AT_ONCE, _AT_MOST = 1 << 16, 1 << 20  # bytes of a read


class FrameError(Exception):
    """The other side closed the pipe, fell silent, or sent what is not a frame."""


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """One frame."""
    head = json.dumps(header).encode()
    return _PREFIX.pack(len(head), len(body)) + head + body


def send(fd: int, packed: bytes) -> None:
    """Write frames whole; BrokenPipeError when the reader is gone."""
    view = memoryview(packed)
    while view:
        view = view[os.write(fd, view) :]


class Reader:
    """Reads frames from a pipe of which it is the only reader.

    It takes at once what is there, mostly a whole frame, and not its three parts by a wait
    and a read each.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._left = b""  # of the next frame
        self._poller = select.poll()
        self._poller.register(fd, select.POLLIN)

    def read(self, deadline: float | None = None) -> Frame:
        """One frame; `deadline` is a time.monotonic() value, None waits for ever."""
        if len(self._left) < _PREFIX.size:
            self._fill(_PREFIX.size, deadline)
        head_size, body_size = _PREFIX.unpack_from(self._left)
        if head_size > MAX_HEADER or body_size > MAX_BODY:
            raise FrameError(f"frame of {head_size} + {body_size} bytes is over the limit")
        body_start = _PREFIX.size + head_size
        end = body_start + body_size
        if len(self._left) < end:
            self._fill(end, deadline)
        data, self._left = self._left, self._left[end:]
        return _parse_header(data[_PREFIX.size : body_start]), data[body_start:end]

    def _fill(self, size: int, deadline: float | None) -> None:
        """Read until there are `size` bytes of the next frame, or more."""
        parts, missing = [self._left], size - len(self._left)
        while missing > 0:
            if deadline is not None:
                self._wait(deadline)
            part = os.read(self.fd, min(max(missing, _AT_ONCE), _AT_MOST))
            if not part:
                raise FrameError("the pipe was closed")
            parts.append(part)
            missing -= len(part)
        self._left = b"".join(parts)

    def _wait(self, deadline: float) -> None:
        if not self._poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise FrameError("no answer in time")


def _parse_header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the header is no JSON: {str(error)[:80]}") from None
    if not isinstance(header, dict):
        raise FrameError(f"the header is a {type(header).__name__}, not an object")
    return header
