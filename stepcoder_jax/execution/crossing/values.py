"""Plain Python values as tagged JSON, for arguments and returned values.

None, bool, str, finite floats and small ints stand for themselves; everything else is an
array whose first item is a tag: ["l", ...] list, ["t", ...] tuple, ["d", [key, value],
...] dict, ["s", ...] set, ["z", ...] frozenset, ["i", "-ff"] big int in hexadecimal,
["f", "nan"] other floats, ["c", re, im] complex, ["b", "00ff"] bytes. The decoder reads
bytes that an untrusted process wrote: no pickle, no eval, bounded depth and size.
`messages` adds tags for what else passes between test code and program.
"""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

MAX_DEPTH = 100
MAX_NODES = 2_000_000
MAX_EQUAL_HASHES = 64
MAX_INT_DIGITS = 1 << 20  # hexadecimal
_SMALL = 1 << 53
_FEW = 8  # items that are written faster one by one than looked at together
_SCALARS = frozenset({int, float, str, bool, type(None)})
_AS_THEY_ARE = frozenset({str, bool, type(None)})


class ValueCodecError(ValueError):
    """A value that has no plain form, or bytes that are not an encoded value."""


class TooLarge(ValueCodecError):
    """A value beyond a limit of the codec, which the message names."""


class TooDeep(TooLarge):
    """A value nested deeper than the codec goes, as a list in itself is."""


def encode(value: object) -> bytes:
    """Encode a plain value; subclasses are reduced to their base value.

    Only slots of the base types are called, so an overridden `__eq__`, `__iter__` or
    `__int__` has no say. Raises ValueCodecError for other types, and TooLarge for nesting
    deeper than MAX_DEPTH (a list that holds itself) and for more than MAX_NODES items.
    """
    return Encoder().encode(value)


def decode(data: bytes) -> Any:
    """Decode what `encode` wrote; ValueCodecError on anything else."""
    return Decoder().decode(data)


_dumps = json.JSONEncoder(ensure_ascii=True, check_circular=False, allow_nan=False).encode


class Encoder:
    """Turns a value into JSON's own types while counting its nodes."""

    def __init__(self) -> None:
        self.nodes = 0

    def encode(self, value: object) -> bytes:
        """The bytes of one value, as `values.encode` says."""
        return _dumps(self.plain(value, 0)).encode("ascii")

    def plain(self, value: Any, depth: int) -> Any:
        """The value as JSON's own types."""
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            self._refuse()
        kind = type(value)
        if kind in _AS_THEY_ARE or (kind is int and -_SMALL < value < _SMALL):
            return value
        if issubclass(kind, int):
            return _plain_int(int.__add__(value, 0))
        if issubclass(kind, str):
            return str.__str__(value)
        if issubclass(kind, float):
            return _plain_float(float.__mul__(value, 1.0))
        return self.container(value, kind, depth + 1)

    def container(self, value: Any, kind: type, depth: int) -> list[Any]:
        """The array of a value that does not stand for itself."""
        plain = self.plain
        if kind in _TAGS:
            return [_TAGS[kind], *self.all_plain(list(value), depth)]
        if issubclass(kind, dict):
            items = dict.items(value)
            return ["d", *([plain(k, depth), plain(v, depth)] for k, v in items)]
        for base, tag in _SEQUENCES:
            if issubclass(kind, base):
                return [tag, *self.all_plain(list(base.__iter__(value)), depth)]
        if issubclass(kind, (bytes, bytearray)):
            return ["b", bytes(memoryview(value)).hex()]
        if issubclass(kind, complex):
            # the slots themselves: a subclass may shadow them, arithmetic makes inf a nan
            parts = (complex.real.__get__(value), complex.imag.__get__(value))
            return ["c", *map(_plain_float, parts)]
        raise ValueCodecError(f"{kind.__name__} is not a plain value")

    def all_plain(self, items: list[Any], depth: int) -> list[Any]:
        """Each of the items as JSON's own types."""
        if len(items) > _FEW and _stand_for_themselves(items):
            self.nodes += len(items)
            if self.nodes > MAX_NODES:
                self._refuse()
            return items
        return [self.plain(item, depth) for item in items]

    def _refuse(self) -> NoReturn:
        if self.nodes > MAX_NODES:
            raise TooLarge(f"more than {MAX_NODES} items")
        raise TooDeep(f"nested deeper than {MAX_DEPTH}")


_SEQUENCES: tuple[tuple[Any, str], ...] = (
    (list, "l"),
    (tuple, "t"),
    (set, "s"),
    (frozenset, "z"),
)
_TAGS = dict(_SEQUENCES)


def _stand_for_themselves(items: list[Any]) -> bool:
    """Whether JSON's encoder may have the items as they are; told without a loop."""
    kinds = set(map(type, items))
    if not kinds <= _SCALARS:
        return False

    def of(kind: type) -> list[Any]:
        if kind not in kinds:
            return []
        return items if len(kinds) == 1 else [x for x in items if type(x) is kind]

    ints = of(int) or [0]
    small = min(ints) > -_SMALL and max(ints) < _SMALL
    return small and all(map(math.isfinite, of(float)))


def _plain_int(number: int) -> Any:
    if -_SMALL < number < _SMALL:
        return number
    if number.bit_length() > 4 * MAX_INT_DIGITS:
        raise TooLarge(f"an int of more than {4 * MAX_INT_DIGITS} bits")
    return ["i", format(number, "x")]


def _plain_float(number: float) -> Any:
    if number - number == 0:
        return number
    return ["f", float.__repr__(number)]


class Decoder:
    """Builds values of JSON's own types again; `builders` makes one of each tag."""

    builders: dict[str, Callable[[Any, list[Any], int], Any]]

    def decode(self, data: bytes) -> Any:
        """The value that the bytes stand for, as `values.decode` says."""
        if data.count(b",") + data.count(b"[") > MAX_NODES:
            raise TooLarge(f"more than {MAX_NODES} items")
        try:
            # An int is as long as Python reads from text, 4300 digits: `_build_int`'s are
            # hexadecimal, which is read in linear time.
            raw = _loads(data.decode("ascii"))
        except (ValueError, RecursionError) as error:
            raise ValueCodecError(f"not an encoded value: {str(error)[:80]}") from None
        return self.build(raw, 0)

    def build(self, raw: Any, depth: int) -> Any:
        """The value of what JSON's decoder made."""
        if depth > MAX_DEPTH:
            raise TooDeep(f"nested deeper than {MAX_DEPTH}")
        if not isinstance(raw, (list, dict)):
            return raw
        if not isinstance(raw, list) or not raw or not isinstance(raw[0], str):
            raise ValueCodecError("an array without a tag")
        builder = self.builders.get(raw[0])
        if builder is None:
            raise ValueCodecError(f"unknown tag {raw[0][:10]!r}")
        try:
            return builder(self, raw[1:], depth + 1)
        except ValueCodecError:
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ValueCodecError(f"bad {raw[0]!r} array: {str(error)[:80]}") from None

    def build_all(self, items: list[Any], depth: int) -> list[Any]:
        """The value of each."""
        is_shallow = depth <= MAX_DEPTH or len(items) > _FEW
        if is_shallow and _SCALARS.issuperset(map(type, items)):
            return items
        return [self.build(item, depth) for item in items]

    def build_hashed(self, items: list[Any], depth: int) -> list[Any]:
        """Values that are to be hashed, of which colliding ones cost no time.

        Big ints and tuples can be chosen to share one hash value; strings and small
        numbers cannot.
        """
        built = self.build_all(items, depth)
        if any(isinstance(item, list) for item in items):
            require_spread(built)
        return built

    def build_pairs(self, items: list[Any], depth: int) -> tuple[list[Any], list[Any]]:
        """The keys and the values of a dict's pairs."""
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in items):
            raise ValueCodecError("a dict item that is no pair")
        keys = self.build_hashed([key for key, _ in items], depth)
        return keys, self.build_all([value for _, value in items], depth)


def require_spread(keys: Sequence[Any]) -> None:
    """TooLarge where more than MAX_EQUAL_HASHES keys share one hash value."""
    counts = collections.Counter(map(hash, keys))
    if counts and max(counts.values()) > MAX_EQUAL_HASHES:
        raise TooLarge(f"more than {MAX_EQUAL_HASHES} keys of one hash value")


def _no_constant(text: str) -> Any:
    raise ValueCodecError(f"{text} is not allowed")


_loads = json.JSONDecoder(parse_constant=_no_constant).decode


def _build_dict(decoder: Decoder, items: list[Any], depth: int) -> dict[Any, Any]:
    return dict(zip(*decoder.build_pairs(items, depth)))


def _build_int(decoder: Decoder, items: list[Any], depth: int) -> int:
    (text,) = items
    if not isinstance(text, str) or len(text) > MAX_INT_DIGITS or "_" in text:
        raise ValueCodecError("bad big int")
    return int(text, 16)


def _build_float(decoder: Decoder, items: list[Any], depth: int) -> float:
    (text,) = items
    return {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[_known(text)]


def _known(text: Any) -> str:
    if text not in ("nan", "inf", "-inf"):
        raise ValueCodecError("bad float")
    return str(text)


def _build_complex(decoder: Decoder, items: list[Any], depth: int) -> complex:
    real, imag = decoder.build_all(items, depth)
    if not isinstance(real, float) or not isinstance(imag, float):
        raise ValueCodecError("bad complex")
    return complex(real, imag)


def build_bytes(decoder: Decoder, items: list[Any], depth: int) -> bytes:
    """Bytes of their hexadecimal digits."""
    (text,) = items
    return bytes.fromhex(text)


Decoder.builders = {
    "l": Decoder.build_all,
    "t": lambda decoder, items, depth: tuple(decoder.build_all(items, depth)),
    "s": lambda decoder, items, depth: set(decoder.build_hashed(items, depth)),
    "z": lambda decoder, items, depth: frozenset(decoder.build_hashed(items, depth)),
    "d": _build_dict,
    "i": _build_int,
    "f": _build_float,
    "c": _build_complex,
    "b": build_bytes,
}
