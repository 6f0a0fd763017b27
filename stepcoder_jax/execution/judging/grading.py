"""Whether what a program produced is what was expected; pure functions.

Tokens must be equal, or, where the *expected* one is a decimal fraction, close to 1e-6:
integers are always exact, a NaN is near nothing. Order, multiplicity and lines count.
"""

from __future__ import annotations

import math
import re
from typing import Any

from stepcoder_jax.execution.judging.returned import Items, Pairs, form_of

TOLERANCE = 1e-6
# Possessive: what a part has taken it never gives back, so that each digit is read once.
_NUMBER = re.compile(r"[+-]?(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?+\d++)?+", re.ASCII)
_LISTS = (list, tuple)
_SETS = (set, frozenset)
_NUMBERS = (int, float, complex)
_MISSING = object()


def stdout_matches(got: str, expected: str) -> bool:
    """Compare standard output line by line and token by token.

    White space at the ends of lines, its amount between tokens, and blank lines at the
    end do not count. No more lines and tokens are made of `got` than were expected: those
    of megabytes of hostile output would take gigabytes.
    """
    if got == expected:
        return True
    expected_lines = expected.rstrip().split("\n")
    got_lines = got.rstrip().split("\n", len(expected_lines))
    return len(got_lines) == len(expected_lines) and all(
        map(_line_matches, got_lines, expected_lines)
    )


def _line_matches(got: str, expected: str) -> bool:
    expected_tokens = expected.split()
    got_tokens = got.split(None, len(expected_tokens))
    return len(got_tokens) == len(expected_tokens) and all(
        map(_token_matches, got_tokens, expected_tokens)
    )


def _token_matches(got: str, expected: str) -> bool:
    if got == expected:
        return True
    if not any(mark in expected for mark in ".eE"):
        return False
    if not _NUMBER.fullmatch(got) or not _NUMBER.fullmatch(expected):
        return False
    return _close(float(got), float(expected))


def _close(got: float, expected: float) -> bool:
    """|got - expected| <= 1e-6 max(1, |expected|), both finite."""
    if not (math.isfinite(got) and math.isfinite(expected)):
        return False
    return abs(got - expected) <= TOLERANCE * max(1.0, abs(expected))


def result_matches(got: Any, expected: Any) -> bool:
    """Compare a returned value; an expected `[x]` also matches x (APPS+ wraps results)."""
    if value_matches(got, expected):
        return True
    wrapped = isinstance(expected, _LISTS) and len(expected) == 1
    return wrapped and value_matches(got, expected[0])


def value_matches(got: Any, expected: Any) -> bool:
    """Recursive equality of plain values.

    A tuple equals a list of the same items, True equals 1 as in Python; a float expected
    is met within 1e-6, an int exactly; sets are compared as sets, dicts in any order.
    `got` may hold Pairs and Items in their places (see `returned`); no table is made of
    its keys, which a program can choose so that this takes n^2 steps.
    """
    if isinstance(expected, _NUMBERS):
        return isinstance(got, _NUMBERS) and _number_matches(got, expected)
    if isinstance(expected, _LISTS):
        return (
            isinstance(got, _LISTS)
            and len(got) == len(expected)
            and all(map(value_matches, got, expected))
        )
    if isinstance(expected, dict):
        pairs = _pairs_of(got)
        return pairs is not None and _dict_matches(*pairs, expected)
    if isinstance(expected, _SETS):
        items = _items_of(got)
        return items is not None and _set_matches(items, expected)
    return type(got) is type(expected) and bool(got == expected)


def _pairs_of(got: Any) -> tuple[list[Any], list[Any]] | None:
    """Keys and values; None of what is no dict."""
    if isinstance(got, dict):
        return list(got), list(got.values())
    return (got.keys, got.held) if isinstance(got, Pairs) else None


def _items_of(got: Any) -> list[Any] | None:
    """The items; None of what is no set."""
    if isinstance(got, _SETS):
        return list(got)
    return got.items if isinstance(got, Items) else None


def _dict_matches(keys: list[Any], held: list[Any], expected: dict[Any, Any]) -> bool:
    """Each key is looked up in what is expected, until one is not there."""
    try:
        if not all(map(expected.__contains__, keys)):
            return False
    except TypeError:  # a frozenset in a key
        named = {form_of(key): value for key, value in expected.items()}
        return _dict_matches(list(map(form_of, keys)), held, named)
    found = dict.fromkeys(expected, _MISSING)
    found.update(zip(keys, held))
    return all(
        found[key] is not _MISSING and value_matches(found[key], value)
        for key, value in expected.items()
    )


def _set_matches(items: list[Any], expected: set[Any] | frozenset[Any]) -> bool:
    """As of a dict's keys; `difference` makes no set of a list either."""
    try:
        return all(map(expected.__contains__, items)) and not expected.difference(items)
    except TypeError:  # a frozenset in an item
        named = frozenset(map(form_of, expected))
        return _set_matches(list(map(form_of, items)), named)


def _number_matches(got: complex, expected: complex) -> bool:
    if got == expected:
        return True
    if not isinstance(expected, float) or isinstance(got, complex):
        return False
    try:
        return _close(float(got), expected)
    except OverflowError:  # an int beyond every float
        return False
