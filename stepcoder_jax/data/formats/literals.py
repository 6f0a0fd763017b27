"""Python values as Python source, the same text in every process."""

from __future__ import annotations

import cmath
import math
from typing import Any

from stepcoder_jax.data.formats.rows import DataError

_LONG_BITS = (
    10_000  # of an int; its decimal digits would take quadratic time, or be refused
)


def source_of(value: Any, *, as_code: bool = False) -> str:
    """The source of a plain value; sets are in the order of their items' text.

    A literal, as `ast.literal_eval` reads it, which has no word for NaN and frozensets; or
    `as_code`, an expression that has. DataError for any other value.
    """

    def every(values: Any) -> list[str]:
        return [source_of(item, as_code=as_code) for item in values]

    kind = type(value)
    if kind is list:
        return f"[{', '.join(every(value))}]"
    if kind is tuple:
        comma = "," if len(value) == 1 else ""
        return f"({', '.join(every(value))}{comma})"
    if kind is dict:
        pairs = zip(every(value), every(value.values()))
        return f"{{{', '.join(f'{key}: {item}' for key, item in pairs)}}}"
    if kind is set:
        return f"{{{', '.join(sorted(every(value)))}}}" if value else "set()"
    if kind is frozenset and as_code:
        return f"frozenset([{', '.join(sorted(every(value)))}])"
    if kind in (float, complex) and not cmath.isfinite(value):
        return _not_finite(value, as_code)
    if kind is int and value.bit_length() > _LONG_BITS:
        return hex(value)
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return repr(value)
    raise _unfit(value)


def _not_finite(value: float | complex, as_code: bool) -> str:
    if isinstance(value, float) and not math.isnan(value):
        return "1e999" if value > 0 else "-1e999"
    if not as_code:
        raise _unfit(value)
    if isinstance(value, float):
        return "float('nan')"
    return f"complex({_part(value.real)}, {_part(value.imag)})"


def _part(number: float) -> str:
    return source_of(number, as_code=True)


def _unfit(value: Any) -> DataError:
    return DataError(
        "expected values of None, bool, int, float, complex, str, bytes, list, tuple, dict "
        f"and set, and no NaN inside of others, got {type(value).__name__} "
        f"{str(value)[:40]}"
    )
