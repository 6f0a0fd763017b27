"""Frames: what was written is read, and all else is the one error."""

import array
import json
import os
import re
import struct
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder_jax.execution.judging import verdicts
from stepcoder_jax.execution.worker import child, frames, tracer
from stepcoder_jax.records import Mode, TestCase, Verdict


def read(data: bytes):
    """What a Reader makes of a pipe that holds `data` and is then closed."""
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        return frames.Reader(reader).read(time.monotonic() + 5)
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


# what the child's `head` and result say; the bytes of a result are the program's own


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_map_is_read_within_its_legend(legend, hits):
    executed, expressions = tracer.read_map(legend, hits)
    numbers = len(legend) // 4
    assert 2 * len(executed) <= numbers and 4 * len(expressions) <= numbers
    assert len(executed) <= sum(map(bool, hits))
    assert set(map(type, expressions.values())) <= {bool}


@given(
    st.lists(st.tuples(st.integers(1, 9999), st.integers(0, 99)), unique=True, max_size=9),
    st.lists(st.tuples(*[st.integers(0, 9999)] * 4), unique=True, max_size=9),
    st.data(),
)
def test_a_legend_names_what_the_bytes_say(statements, positions, data):
    flat = [n for place in (*statements, *positions) for n in place]
    count = len(statements) + len(positions)
    ran = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    legend = array.array("I", [len(statements), *flat]).tobytes()
    executed, expressions = tracer.read_map(legend, bytes(ran))
    assert executed == {place for place, hit in zip(statements, ran) if hit}
    assert expressions == dict(zip(positions, ran[len(statements) :]))
    # a cut legend says less, never anything else
    less, fewer = tracer.read_map(legend[: data.draw(st.integers(0, 80))], bytes(ran))
    assert less <= executed and fewer.items() <= expressions.items()


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_kept_program_is_cut_from_the_head_whole(legend, packed):
    length = len(packed).to_bytes(4, sys.byteorder)
    head, kept = child.split_head(b"SK" + legend + packed + length)
    assert (head, kept) == (b"SC" + legend, (legend, packed))
    assert child.split_head(head) == (head, None)


@given(st.binary(max_size=99) | st.text().map(str.encode))
def test_any_note_of_a_program_is_one_word_and_a_line(note):
    error, line = verdicts._read_note(note)
    assert re.fullmatch(r"\w{1,80}", error)
    assert line is None or 0 < line < 10**9
    assert "\n" not in error and error in (note.decode("utf-8", "replace") + "SystemExit")


@given(st.from_regex(r"\A[A-Za-z_]\w{0,79}\Z"), st.integers(1, 10**9 - 1))
def test_the_note_of_an_error_is_read_back(error, line):
    assert verdicts._read_note(f"{error}\n{line}".encode()) == (error, line)
    assert verdicts._read_note(f"{error}\n0".encode()) == (error, None)
    assert verdicts._read_note(f"{error}\n{line}x".encode()) == (error, None)


@given(st.sampled_from([*Mode]), st.binary(max_size=40), st.just(0) | st.integers(-70, 255))
def test_any_result_of_a_program_gets_a_verdict(mode, result, code):
    answer = {"exit": code, "killed": "", "largest": len(result), "cpu": 0.0}
    answer |= {"wall": 0.0, "memory": 0}
    parts = {"head": b"SC", "hits": b"", "out": result, "err": b"", "result": result}
    seen = verdicts.Seen(answer, parts, 1 << 20)
    test = TestCase("", "never") if mode is not Mode.CALL else TestCase((), "never")
    judged, why = verdicts.judge_test(mode, test, seen)
    forged = mode is Mode.ASSERT_INPROC and result == b"true"  # weak, and marked as such
    assert judged.verdict is not Verdict.PASS or forged or b"never" in result
    assert judged.verdict is not Verdict.INFRA and why == ""


@given(st.sampled_from([b"", b"S", b"SE", b"SC"]), st.binary(max_size=40))
def test_a_head_without_a_kept_program_stays_as_it_is(start, rest):
    head = start + (rest if len(start) > 1 else b"")
    assert child.split_head(head) == (head, None)
