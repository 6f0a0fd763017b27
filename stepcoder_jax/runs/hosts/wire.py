"""Messages between processes: one JSON object a line, with its `kind`."""

from __future__ import annotations

import json
import socket
from typing import Any

Message = dict[str, Any]
_LONGEST = 1 << 22  # bytes of a line; a config and its problem files are a hundredth of it
_READ = 1 << 16


def pack(message: Message) -> bytes:
    """A message as a line."""
    return json.dumps(message).encode() + b"\n"


class Lines:
    """Bytes in as they come, whole messages out.

    What is no message, as a stranger's bytes on an open port, raises ValueError.
    """

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, read: bytes) -> list[Message]:
        *lines, self.rest = (self.rest + read).split(b"\n")
        if len(self.rest) > _LONGEST:
            raise ValueError("a line without end")
        messages = [json.loads(line) for line in lines]
        if not all(isinstance(x, dict) and "kind" in x for x in messages):
            raise ValueError("a line that is no message")
        return messages


class Link:
    """A socket of messages that never blocks; `is_open` until the other side has gone."""

    def __init__(self, end: socket.socket) -> None:
        self.end, self.lines = end, Lines()
        self.waiting = b""  # what could not be sent yet
        self.is_open = True
        end.setblocking(False)

    def send(self, message: Message) -> None:
        self.waiting += pack(message)
        self.flush()

    def flush(self) -> None:
        try:
            while self.waiting and self.is_open:
                self.waiting = self.waiting[self.end.send(self.waiting) :]
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False

    def read(self) -> list[Message]:
        """What has come; closes itself at the end and for what is no message."""
        found: list[Message] = []
        try:
            while read := self.end.recv(_READ):
                found += self.lines.feed(read)
            self.is_open = False
        except BlockingIOError:
            pass
        except (OSError, ValueError, RecursionError):  # a stranger may send anything
            self.is_open = False
        return found

    def close(self) -> None:
        self.is_open = False
        self.end.close()
