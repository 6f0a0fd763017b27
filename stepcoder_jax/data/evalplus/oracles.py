"""How EvalPlus compares what a program returns (eval/__init__.py, v0.3.1), as test code.

A result that equals the expected one passes; else it passes where a tolerance holds, `atol`
of the row, or 1e-6 where the row has none and a float, or a list or tuple of floats, is
expected: of the expected one's type and length, and nowhere further from it than atol +
1e-7 times its size. Some problems have an oracle of their own (eval/_special_oracle.py).
"""

from __future__ import annotations

COMPARE = """
class _LongText:
    def __init__(self, sha256):
        self._sha256 = sha256

    def __eq__(self, other):
        import hashlib

        if not isinstance(other, str):
            return False
        text = other.encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).hexdigest() == self._sha256


def _is_near(got, expected, atol):
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(got, (list, tuple))
            and len(got) == len(expected)
            and all(_is_near(g, e, atol) for g, e in zip(got, expected))
        )
    numbers = (int, float, complex)
    if isinstance(expected, numbers) and isinstance(got, numbers):
        return got == expected or abs(got - expected) <= atol + 1e-7 * abs(expected)
    return got == expected


def _has_floats(value):
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _compare(given, got, expected, atol):
    atol = atol or 1e-6 * _has_floats(expected)
    if got == expected or not atol:
        return got == expected
    return type(got) == type(expected) and _is_near(got, expected, atol)

"""
_AS_SETS = """
def _judge(given, got, expected, atol):
    return set(got) == set(expected)
"""
_IS_NONE = """
def _judge(given, got, expected, atol):
    if isinstance(got, bool):
        return got == expected
    return expected == (got is not None)
"""
_PLAIN = """
_judge = _compare
"""
_FIND_ZERO = """
import math

def _judge(given, got, expected, atol):
    (coefficients,) = given
    value = sum(c * math.pow(got, i) for i, c in enumerate(coefficients))
    return abs(value) <= atol
"""
_ANYTHING = """
def _judge(given, got, expected, atol):
    return True
"""
_OR_ZERO = """
def _judge(given, got, expected, atol):
    return got == 0 or _compare(given, got, expected, atol)
"""
_SURFACE = """
import math

def _judge(given, got, expected, atol):
    base, height = given
    slant = math.sqrt((base / 2) ** 2 + height**2)
    other = round(base**2 + 4 * (base * slant) / 2)
    return abs(got - other) <= atol or _compare(given, got, expected, atol)
"""
_DIGITS = """
def _judge(given, got, expected, atol):
    first, second = map(str, given)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width))
    other = sum(abs(int(a) - int(b)) for a, b in pairs)
    return got == other or _compare(given, got, expected, atol)
"""
# Entry points of MBPP+ whose canonical solution returns what is no plain value.
NOT_NONE = frozenset({"check_str", "text_match_three", "text_starta_endb"})
_SETS = (
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly",
    "larg_nnum", "intersection_array", "find_dissimilar", "Diff",
)  # fmt: skip
_MBPP = {
    **dict.fromkeys(NOT_NONE, _IS_NONE),
    **dict.fromkeys(_SETS, _AS_SETS),
    "are_equivalent": _ANYTHING,
    "sum_div": _OR_ZERO,
    "surface_Area": _SURFACE,
    "digit_distance_nums": _DIGITS,
}
_HUMANEVAL = {"find_zero": _FIND_ZERO}


def oracle(entry_point: str, *, is_mbpp: bool) -> str:
    """The source of `_judge(given, got, expected, atol)` for a problem."""
    return (_MBPP if is_mbpp else _HUMANEVAL).get(entry_point, _PLAIN)
