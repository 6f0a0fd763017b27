"""Frames: what was written is read, and all else is the one error."""

import json
import os
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder_jax.execution import frames


def read(data: bytes):
    """What read_frame makes of a pipe that holds `data` and is then closed."""
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        return frames.read_frame(reader, time.monotonic() + 5)
    finally:
        os.close(reader)


def pack(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("!II", len(header), len(body)) + header + body


headers = st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=4)


@given(headers, st.binary(max_size=2000))
def test_frames_survive_the_round_trip(header, body):
    assert read(pack(json.dumps(header).encode(), body)) == (header, body)


@given(st.binary(max_size=60) | st.binary(max_size=40).map(pack))
def test_arbitrary_bytes_are_a_frame_or_the_one_error(data):
    try:
        header, _ = read(data)
    except frames.FrameError:
        return
    assert isinstance(header, dict)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "closed"),
        (pack(b'{"kind": 1}', b"body")[:-1], "closed"),
        (pack(b"{"), "no JSON"),
        (pack(b"\xff"), "no JSON"),
        (pack(b"[" * 50_000), "no JSON"),
        (pack(b"[1]"), "a list, not an object"),
        (struct.pack("!II", frames.MAX_HEADER + 1, 0), "over the limit"),
        (struct.pack("!II", 2, frames.MAX_BODY + 1), "over the limit"),
    ],
)
def test_what_is_no_frame_is_named(data, message):
    with pytest.raises(frames.FrameError, match=message):
        read(data)
