"""The one string that a pickle may hold, read without running any of it.

A pickle is a program for a stack machine, and loading it runs what it says. Here it may say
one thing: protocol, frames, one text, its place in the memo, stop.
"""

from __future__ import annotations

import struct

from stepcoder_jax.data.formats.rows import DataError

_PROTO, _FRAME, _STOP, _MEMOIZE = 0x80, 0x95, ord("."), 0x94
_TEXTS = {0x8C: "<B", ord("X"): "<I", 0x8D: "<Q"}  # opcode: form of the length
_MEMOS = {ord("q"): 1, ord("r"): 4}  # opcode: bytes of its argument
_NEWEST = 5


def read_text(data: bytes) -> str:
    """The text of a pickle that holds one text and nothing else; DataError if not."""
    try:
        return _read(data)
    except (struct.error, IndexError):
        raise DataError("expected a pickled text, got a pickle that is cut off") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"expected a pickled text, got bytes that are not UTF-8 at {error.start}"
        ) from None


def _read(data: bytes) -> str:
    place = 0
    if data[0] == _PROTO:
        if not 2 <= data[1] <= _NEWEST:
            raise DataError(f"expected a pickle of protocol 2 to 5, got {data[1]}")
        place = 2
    text: str | None = None
    has_memo = False
    while (opcode := data[place]) != _STOP:
        place += 1
        if opcode == _FRAME:
            (length,) = struct.unpack_from("<Q", data, place)
            place += 8
            if place + length > len(data):
                raise IndexError
        elif opcode in _TEXTS and text is None:
            (length,) = struct.unpack_from(_TEXTS[opcode], data, place)
            place += struct.calcsize(_TEXTS[opcode])
            text = data[place : place + length].decode("utf-8")
            place += length
        elif opcode == _MEMOIZE and text is not None and not has_memo:
            has_memo = True
        elif opcode in _MEMOS and text is not None and not has_memo:
            place += _MEMOS[opcode]
            has_memo = True
        else:
            raise DataError(
                "expected a pickle of one text and nothing else, got one with the "
                f"instruction {bytes([opcode])!r} at byte {place - 1}: it is not loaded, "
                "for it could run anything; write the tests as JSON"
            )
    if text is None or place + 1 != len(data):
        raise DataError("expected a pickle of one text and nothing else")
    return text
