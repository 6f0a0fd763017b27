"""The comparison rules: what counts as equal, and what never does."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder_jax.execution.crossing import values
from stepcoder_jax.execution.judging import returned
from stepcoder_jax.execution.judging.grading import (
    TOLERANCE,
    result_matches,
    stdout_matches,
    value_matches,
)

SAME_OUTPUT = [
    ("3\n", "3"),
    ("3 \n\n", "3\n"),
    ("3\r\n4\r\n", "3\n4\n"),
    ("1  2\t3\n", "1 2 3\n"),
    ("", "\n"),
    ("0.30000000000000004\n", "0.3\n"),
    ("1e3\n", "1000.0\n"),
    ("2\n", "2.0\n"),
    ("1000 2000\n", "1e3 2E3\n"),
    ("Hello. 2.0", "Hello. 2.0000001"),
]
OTHER_OUTPUT = [
    ("3 2 1\n", "1 2 3\n"),  # order
    ("1 2\n", "1 1 2 2 2\n"),  # multiplicity
    ("12 3\n", "1 23\n"),  # spaces
    ("1 2\n", "1\n2\n"),  # lines
    ("1\n\n2\n", "1\n2\n"),  # a blank line inside
    ("1\n2\n3\n", "1\n2\n"),  # more
    ("1\n", "1\n2\n"),  # less
    ("", "1\n"),
    ("100000000000000001\n", "100000000000000000\n"),  # ints are exact
    ("3.0\n", "3\n"),  # an int expected
    ("1000001.0000005\n", "1000000.0\n"),  # relative to what is expected, not to what came
    ("nan\n", "1.0\n"),
    ("1_0.0\n", "10.0\n"),  # Python's own spelling of numbers
    ("inf\n", "1e999\n"),
    ("YES\n", "Yes\n"),
]


@pytest.mark.parametrize(("got", "expected"), SAME_OUTPUT)
def test_outputs_that_are_the_same(got, expected):
    assert stdout_matches(got, expected)


@pytest.mark.parametrize(("got", "expected"), OTHER_OUTPUT)
def test_outputs_that_differ(got, expected):
    assert not stdout_matches(got, expected)


SAME_VALUE = [
    ((1, 2), [1, 2]),
    ([(1, 2)], [[1, 2]]),
    (True, 1),
    (0.1 + 0.2, 0.3),
    (3, 3.0),
    (3.0, 3),
    ({"a": [1]}, {"a": (1,)}),
    ({1, 2}, {2, 1}),
    (-0.0, 0.0),
    (math.inf, math.inf),
    (None, None),
    ("a\0b", "a\0b"),
]
OTHER_VALUE = [
    ([1, 2], [2, 1]),
    ([1], [1, 1]),
    ({1, 2}, [1, 2]),
    ("1", 1),
    (1, "1"),
    (None, 0),
    (10**17 + 1, 10**17),
    (3.0000001, 3),
    (math.nan, math.nan),
    ([math.nan], [math.nan]),
    (-math.inf, math.inf),
    (10**400, 1.0),
    ({"a": 1}, {"a": 1, "b": 2}),
    ({"a": 1, "b": 2}, {"a": 1}),
    ({1, 2}, {1}),
    (b"a", "a"),
]


@pytest.mark.parametrize(("got", "expected"), SAME_VALUE)
def test_values_that_are_the_same(got, expected):
    assert value_matches(got, expected)


@pytest.mark.parametrize(("got", "expected"), OTHER_VALUE)
def test_values_that_differ(got, expected):
    assert not value_matches(got, expected)


def test_a_wrapped_result_matches_what_it_wraps_but_not_the_reverse():
    assert result_matches(5, [5])
    assert result_matches([5], [5])
    assert result_matches([1, 2], [[1, 2]])
    assert not result_matches([5], 5)
    assert not result_matches(5, [5, 5])
    assert not result_matches(5, [[5]])


token = st.text(st.characters(categories=("L", "N"), max_codepoint=0x2FF), min_size=1)
lines = st.lists(st.lists(token, min_size=1, max_size=4), min_size=1, max_size=5)


@given(lines, st.sampled_from([" ", "  ", "\t"]), st.sampled_from(["", "\n", " \n\n"]))
def test_white_space_never_matters_and_equality_is_reflexive(rows, space, end):
    expected = "\n".join(" ".join(row) for row in rows) + "\n"
    got = " \r\n".join(space.join(row) for row in rows) + end
    assert stdout_matches(expected, expected)
    assert stdout_matches(got, expected)


@given(lines)
def test_a_missing_or_an_additional_line_is_never_accepted(rows):
    text = "\n".join(" ".join(row) for row in rows)
    assert not stdout_matches(text + "\nmore", text)
    assert not stdout_matches("\n".join(text.split("\n")[:-1]), text)


@given(st.integers(), st.integers())
def test_ints_match_exactly(a, b):
    assert stdout_matches(str(a), str(b)) == (a == b)
    assert value_matches(a, b) == (a == b)


@given(st.floats(-1e9, 1e9), st.floats(0, 10))
def test_floats_match_within_the_tolerance_alone(expected, factor):
    allowed = TOLERANCE * max(1.0, abs(expected))
    got = expected + factor * allowed
    if abs(factor - 1) > 1e-3:  # the edge itself is a matter of rounding
        assert value_matches(got, expected) == (factor < 1)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(plain)
def test_values_match_themselves_and_no_wrapper(value):
    assert value_matches(value, value)
    assert not value_matches([value], value)


@given(st.text(), st.text())
def test_outputs_match_themselves_and_texts_without_floats_match_both_ways(a, b):
    assert stdout_matches(a, a)
    if not any(mark in a + b for mark in ".eE"):
        assert stdout_matches(a, b) == stdout_matches(b, a)


@given(plain, plain)
def test_values_without_floats_match_both_ways(a, b):
    if "." not in repr((a, b)) and "e" not in repr((a, b)):
        assert value_matches(a, b) == value_matches(b, a)


@given(
    st.lists(st.integers(), min_size=2, unique=True).flatmap(
        lambda row: st.tuples(st.just(row), st.permutations(row))
    )
)
def test_another_order_never_matches(rows):
    row, other = rows
    same = list(other) == row
    assert value_matches(other, row) == same
    for space in (" ", "\n"):
        assert (
            stdout_matches(space.join(map(str, other)), space.join(map(str, row))) == same
        )


@given(plain)
def test_nan_matches_nothing(value):
    assert not value_matches(math.nan, value)
    assert not value_matches([value, math.nan], [value, math.nan])


@pytest.mark.parametrize(
    "got", ["\n" * 8_000_000 + "1", "11 " * 2_700_000, "1." + "1" * 8_000_000]
)
def test_megabytes_of_hostile_output_are_compared_in_little_time(got):
    started = time.process_time()
    assert not stdout_matches(got, "2.5\n")
    assert time.process_time() - started < 3


keys = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from(
        [0.0, -0.0, 1.0, 0.5, math.inf, 2.0**70, 2**70, 9**2000, 1j, 1 + 0j, "", "1"]
    )
    | st.sampled_from([b"", b"1", math.nan]),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
containers = st.dictionaries(keys, keys, max_size=3) | st.sets(keys, max_size=3)


def same_by_tables(a, b):
    """The rule that Python's own tables give."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(value_matches(a[key], b[key]) for key in b)
    return type(a) is type(b) and not isinstance(a, dict) and a == b


@given(containers, containers)
def test_what_is_read_without_tables_matches_as_a_table_would(a, b):
    for got, expected in ((a, b), (a, a)):
        data = values.encode(got)
        answer = value_matches(returned.decode(data), expected)
        assert answer == same_by_tables(values.decode(data), expected)


def test_a_key_that_comes_again_counts_once_and_a_dict_has_its_last_value():
    twice = b'["d",[1,2],[1,3]]'
    assert value_matches(returned.decode(twice), {1: 3})
    assert not value_matches(returned.decode(twice), {1: 2})
    assert not value_matches(returned.decode(twice), {1: 3, 2: 3})
    assert value_matches(returned.decode(b'["s",1,1.0,true]'), {1})
    assert not value_matches(returned.decode(b'["s",1,1]'), {1, 2})
    nested = b'["s",["z",1,2],["z",2,1,2]]'
    assert value_matches(returned.decode(nested), {frozenset({1, 2})})


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        ({1, 2.0}, {True, 2 + 0j}),
        ({"b", "a"}, {"a", "b"}),
        (set(), set()),
        ({2**70, 0.5}, {2.0**70, 0.5 + 0j}),
        ({1, None}, {None, True}),
        ({(1, 2), "a"}, {"a", (1.0, 2 + 0j)}),
    ],
)
def test_equal_frozensets_are_known_by_one_form(got, expected):
    key, other = frozenset(got), frozenset(expected)
    assert value_matches(returned.decode(values.encode({key})), {other})
    assert value_matches(returned.decode(values.encode({(key, 0): 1})), {(other, False): 1})
    more = frozenset({*expected, "more"})
    assert not value_matches(returned.decode(values.encode({key})), {more})
    assert not value_matches(returned.decode(values.encode({key})), {tuple(expected)})


@pytest.mark.parametrize("key", [b'["l"]', b'["d"]', b'["s"]', b'["t",["t",["l"]]]'])
def test_a_key_without_a_hash_value_is_no_key(key):
    for data in (b'["s",%b]' % key, b'["z",%b]' % key, b'["d",[%b,1]]' % key):
        for decode in (values.decode, returned.decode):
            with pytest.raises(values.ValueCodecError):
                decode(data)
