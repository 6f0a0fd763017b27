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


class FrameError(Exception):
    """The other side closed the pipe, fell silent, or sent what is not a frame."""


def write_frame(fd: int, header: dict[str, Any], body: bytes = b"") -> None:
    """Write one frame whole; BrokenPipeError when the reader is gone."""
    head = json.dumps(header).encode()
    view = memoryview(_PREFIX.pack(len(head), len(body)) + head + body)
    while view:
        view = view[os.write(fd, view) :]


def read_frame(fd: int, deadline: float | None = None) -> tuple[dict[str, Any], bytes]:
    """Read one frame; `deadline` is a time.monotonic() value, None waits for ever."""
    head_size, body_size = _PREFIX.unpack(_read_exactly(fd, _PREFIX.size, deadline))
    if head_size > MAX_HEADER or body_size > MAX_BODY:
        raise FrameError(f"frame of {head_size} + {body_size} bytes is over the limit")
    header = _parse_header(_read_exactly(fd, head_size, deadline))
    return header, _read_exactly(fd, body_size, deadline)


def _parse_header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the header is no JSON: {str(error)[:80]}") from None
    if not isinstance(header, dict):
        raise FrameError(f"the header is a {type(header).__name__}, not an object")
    return header


def _read_exactly(fd: int, size: int, deadline: float | None) -> bytes:
    parts: list[bytes] = []
    while size:
        if deadline is not None:
            _wait_readable(fd, deadline)
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise FrameError("the pipe was closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _wait_readable(fd: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise FrameError("no answer in time")
