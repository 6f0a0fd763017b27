"""The codec of arguments and results: exact for plain values, strict for hostile bytes."""

import contextlib
import gc
import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepcoder_jax.execution.crossing import values

key = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
plain = st.recursive(
    key | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(key, inner, max_size=4)
        | st.sets(key, max_size=4)
        | st.frozensets(key, max_size=4)
    ),
    max_leaves=15,
)


def same(a, b):
    """Equality that also sees types and the sign of zero."""
    return repr(a) == repr(b) or (type(a) is type(b) and a == b)


@given(plain)
@example(complex(0, math.inf))
@example(complex(-0.0, 1))
def test_plain_values_survive_the_round_trip(value):
    assert same(values.decode(values.encode(value)), value)


@given(st.binary(max_size=60) | st.text('[]{},"ltdszifcb0123-.eE null', max_size=60))
def test_arbitrary_bytes_give_a_value_or_the_one_error(data):
    raw = data if isinstance(data, bytes) else data.encode()
    with contextlib.suppress(values.ValueCodecError):
        values.decode(raw)


def test_special_floats_and_big_ints():
    big = -(7**5000)
    back = values.decode(values.encode([math.nan, math.inf, -math.inf, -0.0, big]))
    assert math.isnan(back[0])
    assert back[1:3] == [math.inf, -math.inf]
    assert math.copysign(1, back[3]) == -1
    assert back[4] == big


def test_subclasses_are_reduced_to_their_base_without_asking_them():
    class Liar(int):
        def __int__(self):
            return 99

        __add__ = __index__ = __repr__ = __int__

    class LyingList(list):
        def __iter__(self):
            return iter([99])

    back = values.decode(values.encode([Liar(3), LyingList([1, 2])]))
    assert back == [3, [1, 2]]
    assert type(back[0]) is int and type(back[1]) is list


def test_depth_is_bounded_to_the_level():
    value: list = []
    for _ in range(values.MAX_DEPTH - 1):
        value = [value]
    assert values.decode(values.encode([value])) == [value]
    with pytest.raises(values.ValueCodecError, match="nested deeper"):
        values.encode([[value]])


def test_what_is_not_plain_is_refused():
    cycle: list = []
    cycle.append(cycle)
    for value in (object(), (x for x in ()), cycle, range(3), print):
        with pytest.raises(values.ValueCodecError):
            values.encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'["q", 1]',
        b'["f", "nan", 1]',
        b'["f", []]',
        b'["i", "1_0"]',
        b'["i", 5]',
        b'["d", [1]]',
        b'["d", "ab"]',
        b'["d", [["l"], 1]]',
        b'["s", ["l"]]',
        b'["b", "zz"]',
        b'["c", 1, 2]',
        b"NaN",
        b"1" * 5000,
        b"[" * 100_000,
        b'["l",' * 200 + b"1" + b"]" * 200,
        "é".encode(),
        b"\xff\xfe",
    ],
)
def test_malformed_bytes_are_refused(data):
    with pytest.raises(values.ValueCodecError):
        values.decode(data)


def test_size_and_colliding_keys_are_bounded():
    with pytest.raises(values.ValueCodecError, match="items"):
        values.decode(b'["l"' + b",1" * (values.MAX_NODES + 1) + b"]")
    step = (1 << 61) - 1  # ints that all share the hash 0
    keys = range(step, step * 20_000, step)
    data = b",".join(b'["i","%x"]' % k for k in keys)
    with pytest.raises(values.TooLarge, match="one hash"):
        values.decode(b'["s",' + data + b"]")
    many = {(i, i / 2) for i in range(20_000)}
    assert values.decode(values.encode(many)) == many


def hostile_keys(count):
    """Text of a dict whose keys all have one hash value: as long as `count` asks."""
    step = (1 << 61) - 1
    pairs = b",".join(b'[["i","%x"],1]' % (step * k) for k in range(1, count))
    return b'["d",' + pairs + b"]"


@pytest.mark.parametrize(
    "text",
    [
        hostile_keys,
        lambda count: b'["l"' + b",[" * count,
        lambda count: b'["l"' + b',["t",1,2]' * count + b"]",
        lambda count: b'["i","' + b"f" * count + b'"]',
        lambda count: b'["s"' + b',["t",["t",["i","fffffffffffffffff"]]]' * count + b"]",
    ],
)
def test_the_work_on_hostile_bytes_grows_as_they_do(text):
    def seconds(data):
        times = []
        for _ in range(3):
            start = time.thread_time()
            with contextlib.suppress(values.ValueCodecError):
                values.decode(data)
            times.append(time.thread_time() - start)
        return min(times)

    gc.disable()  # its passes over all the objects of the tests are not the decoder's
    try:
        assert seconds(text(40_000)) <= 8 * seconds(text(10_000)) + 1e-3
    finally:
        gc.enable()


@given(st.lists(st.none() | st.booleans() | st.integers() | st.text() | st.floats()))
def test_long_lists_are_written_as_short_ones_are(items):
    spread = [values.decode(values.encode([item]))[0] for item in items]
    assert same(values.decode(values.encode(items * 9)), spread * 9)


@given(plain, st.data())
def test_damaged_encodings_give_a_value_or_the_one_error(value, data):
    encoded = bytearray(values.encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(encoded) - 1))
        encoded[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b"[", b"]", b",", b'"', b"9", b'"d"'])
        )
        encoded = encoded or bytearray(b"[")
    with contextlib.suppress(values.ValueCodecError):
        values.decode(bytes(encoded))
