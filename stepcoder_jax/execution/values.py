"""Plain Python values as tagged JSON, for arguments and returned values.

None, bool, str, finite floats and small ints stand for themselves; everything else is an
array whose first item is a tag: ["l", ...] list, ["t", ...] tuple, ["d", [key, value],
...] dict, ["s", ...] set, ["z", ...] frozenset, ["i", "-ff"] big int in hexadecimal,
["f", "nan"] other floats, ["c", re, im] complex, ["b", "00ff"] bytes. The decoder reads
bytes that an untrusted process wrote: no pickle, no eval, bounded depth and size.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100
MAX_NODES = 2_000_000
MAX_COMPOSITE_KEYS = 5000
MAX_INT_DIGITS = 1 << 20  # hexadecimal
_SMALL = 1 << 53


class ValueCodecError(ValueError):
    """A value that has no plain form, or bytes that are not an encoded value."""


def encode(value: object) -> bytes:
    """Encode a plain value; subclasses are reduced to their base value.

    Only slots of the base types are called, so an overridden `__eq__`, `__iter__` or
    `__int__` has no say. Raises ValueCodecError for other types, for nesting deeper than
    MAX_DEPTH (a list that holds itself) and for more than MAX_NODES items.
    """
    encoder = _Encoder()
    return _dumps(encoder.plain(value, 0)).encode("ascii")


def decode(data: bytes) -> Any:
    """Decode what `encode` wrote; ValueCodecError on anything else."""
    if data.count(b",") + data.count(b"[") > MAX_NODES:
        raise ValueCodecError(f"more than {MAX_NODES} items")
    try:
        raw = json.loads(
            data.decode("ascii"), parse_int=_small_int, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise ValueCodecError(f"not an encoded value: {str(error)[:80]}") from None
    return _build(raw, 0)


_dumps = json.JSONEncoder(ensure_ascii=True, check_circular=False, allow_nan=False).encode


class _Encoder:
    """Turns a value into JSON's own types while counting its nodes."""

    def __init__(self) -> None:
        self.nodes = 0

    def plain(self, value: Any, depth: int) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH:
            raise ValueCodecError(f"nested deeper than {MAX_DEPTH}")
        if self.nodes > MAX_NODES:
            raise ValueCodecError(f"more than {MAX_NODES} items")
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if issubclass(kind, int):
            number = int.__add__(value, 0)
            small = -_SMALL < number < _SMALL
            return number if small else ["i", format(number, "x")]
        if issubclass(kind, str):
            return str.__str__(value)
        if issubclass(kind, float):
            return _plain_float(float.__mul__(value, 1.0))
        return self._container(value, kind, depth + 1)

    def _container(self, value: Any, kind: type, depth: int) -> list[Any]:
        plain = self.plain
        if issubclass(kind, dict):
            items = dict.items(value)
            return ["d", *([plain(k, depth), plain(v, depth)] for k, v in items)]
        for base, tag in _SEQUENCES:
            if issubclass(kind, base):
                return [tag, *(plain(item, depth) for item in base.__iter__(value))]
        if issubclass(kind, (bytes, bytearray)):
            return ["b", bytes(memoryview(value)).hex()]
        if issubclass(kind, complex):
            # the slots themselves: a subclass may shadow them, arithmetic makes inf a nan
            parts = (complex.real.__get__(value), complex.imag.__get__(value))
            return ["c", *map(_plain_float, parts)]
        raise ValueCodecError(f"{kind.__name__} is not a plain value")


_SEQUENCES: tuple[tuple[Any, str], ...] = (
    (list, "l"),
    (tuple, "t"),
    (set, "s"),
    (frozenset, "z"),
)


def _plain_float(number: float) -> Any:
    if number - number == 0:
        return number
    return ["f", float.__repr__(number)]


def _small_int(text: str) -> int:
    if len(text) > 20:
        raise ValueCodecError("an int too long for its form")
    return int(text)


def _no_constant(text: str) -> Any:
    raise ValueCodecError(f"{text} is not allowed")


def _build(raw: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueCodecError(f"nested deeper than {MAX_DEPTH}")
    if not isinstance(raw, (list, dict)):
        return raw
    if not isinstance(raw, list) or not raw or not isinstance(raw[0], str):
        raise ValueCodecError("an array without a tag")
    build = _BUILDERS.get(raw[0])
    if build is None:
        raise ValueCodecError(f"unknown tag {raw[0][:10]!r}")
    try:
        return build(raw[1:], depth + 1)
    except (TypeError, ValueError) as error:
        raise ValueCodecError(f"bad {raw[0]!r} array: {str(error)[:80]}") from None


def _build_all(items: list[Any], depth: int) -> list[Any]:
    return [_build(item, depth) for item in items]


def _build_hashed(items: list[Any], depth: int) -> list[Any]:
    """Items that are to be hashed, few enough that colliding ones cost no time.

    Big ints and tuples can be chosen to share one hash value; strings and small numbers
    cannot.
    """
    if sum(isinstance(item, list) for item in items) > MAX_COMPOSITE_KEYS:
        raise ValueCodecError(f"more than {MAX_COMPOSITE_KEYS} composite keys")
    return _build_all(items, depth)


def _build_dict(items: list[Any], depth: int) -> dict[Any, Any]:
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in items):
        raise ValueCodecError("a dict item that is no pair")
    keys = _build_hashed([key for key, _ in items], depth)
    return dict(zip(keys, _build_all([value for _, value in items], depth)))


def _build_int(items: list[Any], depth: int) -> int:
    (text,) = items
    if not isinstance(text, str) or len(text) > MAX_INT_DIGITS or "_" in text:
        raise ValueCodecError("bad big int")
    return int(text, 16)


def _build_float(items: list[Any], depth: int) -> float:
    (text,) = items
    return {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[_known(text)]


def _known(text: Any) -> str:
    if text not in ("nan", "inf", "-inf"):
        raise ValueCodecError("bad float")
    return str(text)


def _build_complex(items: list[Any], depth: int) -> complex:
    real, imag = _build_all(items, depth)
    if not isinstance(real, float) or not isinstance(imag, float):
        raise ValueCodecError("bad complex")
    return complex(real, imag)


def _build_bytes(items: list[Any], depth: int) -> bytes:
    (text,) = items
    return bytes.fromhex(text)


_BUILDERS: dict[str, Callable[[list[Any], int], Any]] = {
    "l": _build_all,
    "t": lambda items, depth: tuple(_build_all(items, depth)),
    "s": lambda items, depth: set(_build_hashed(items, depth)),
    "z": lambda items, depth: frozenset(_build_hashed(items, depth)),
    "d": _build_dict,
    "i": _build_int,
    "f": _build_float,
    "c": _build_complex,
    "b": _build_bytes,
}
