"""Whether what a program produced is what was expected; pure functions.

Tokens must be equal, or, where the *expected* one is a decimal fraction, close to 1e-6:
integers are always exact, a NaN is near nothing. Order, multiplicity and lines count.
"""

from __future__ import annotations

import math
import re
from typing import Any

TOLERANCE = 1e-6
# Possessive: what a part has taken it never gives back, so that each digit is read once.
_NUMBER = re.compile(r"[+-]?(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?+\d++)?+", re.ASCII)
_LISTS = (list, tuple)
_SETS = (set, frozenset)
_NUMBERS = (int, float, complex)


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
        return (
            isinstance(got, dict)
            and got.keys() == expected.keys()
            and all(value_matches(got[key], value) for key, value in expected.items())
        )
    if isinstance(expected, _SETS):
        return isinstance(got, _SETS) and got == expected
    return type(got) is type(expected) and bool(got == expected)


def _number_matches(got: complex, expected: complex) -> bool:
    if got == expected:
        return True
    if not isinstance(expected, float) or isinstance(got, complex):
        return False
    try:
        return _close(float(got), expected)
    except OverflowError:  # an int beyond every float
        return False
