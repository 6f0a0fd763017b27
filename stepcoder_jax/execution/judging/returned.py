"""What a program returned, read without a table of its keys.

Whoever chooses the keys of a dict or a set can choose ints along the way that CPython
looks for a free place: each then passes all those before it, and a table of n keys takes
n^2 steps. So a dict stands as its pairs and a set as its items; `grading` looks these up in
what is expected, a table of our own, and puts none of them into another.
"""

from __future__ import annotations

import cmath
import hashlib
import itertools
import math
import operator
from collections.abc import Hashable, Iterable
from typing import Any

from stepcoder_jax.execution.crossing import showing, values

_SCALARS = frozenset({int, float, str, bool, type(None)})
_REAL, _TEXT = frozenset({int, float, bool}), frozenset({str})


class Pairs:
    """A dict's keys and values in order; a key that comes twice has its last value."""

    __slots__ = ("held", "keys")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, keys: list[Any], held: list[Any]) -> None:
        self.keys = keys
        self.held = held


class Items:
    """A set's items in order, repeated ones too; a frozenset may be a key."""

    __slots__ = ("is_frozen", "items")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, items: list[Any], is_frozen: bool) -> None:
        self.items = items
        self.is_frozen = is_frozen


class _Decoder(values.Decoder):
    """Builds Pairs and Items where the codec's own builds dicts and sets."""

    def build_hashed(self, items: list[Any], depth: int) -> list[Any]:
        """Keys, none of which is hashed."""
        built = self.build_all(items, depth)
        if built is not items:  # else scalars
            _require_hashable(built)
        return built


def _require_hashable(keys: Iterable[Any]) -> None:
    for key in keys:
        if isinstance(key, tuple):
            if not _SCALARS.issuperset(map(type, key)):
                _require_hashable(key)
        elif isinstance(key, (list, Pairs)) or (
            isinstance(key, Items) and not key.is_frozen
        ):
            raise values.ValueCodecError("a key of a type that has no hash value")


_Decoder.builders = {
    **values.Decoder.builders,
    "d": lambda decoder, items, depth: Pairs(*decoder.build_pairs(items, depth)),
    "s": lambda decoder, items, depth: Items(decoder.build_hashed(items, depth), False),
    "z": lambda decoder, items, depth: Items(decoder.build_hashed(items, depth), True),
}


def decode(data: bytes) -> Any:
    """As `values.decode`, with Pairs for dicts and Items for sets."""
    return _Decoder().decode(data)


def form_of(key: Any) -> Hashable:
    """Equal forms for equal keys, and for no others; made without a table of the key's.

    Of keys that hold frozensets, which have no hash value without one.
    """
    if isinstance(key, tuple):
        return "t", *map(form_of, key)
    if isinstance(key, (Items, frozenset)):
        items = list(key.items if isinstance(key, Items) else key)
        known = _in_order(
            list(map(_as_real, items)) if complex in map(type, items) else items
        )
        return "z", *([_digest_key(key)] if known is None else known)
    return "k", key


def _in_order(items: list[Any]) -> list[Any] | None:
    """What a set of these is known by, each once; None of what has no order."""
    kinds = set(map(type, items))
    if not kinds <= _TEXT and not kinds <= _REAL:
        return None
    if float in kinds and any(type(item) is float and math.isnan(item) for item in items):
        return None
    items.sort()
    if any(map(operator.eq, items, items[1:])):
        return [item for item, _ in itertools.groupby(items)]
    return items


def _digest_key(key: Any) -> bytes:
    """The same as bytes, of whatever can be a key; linear in its size."""
    if isinstance(key, (int, float, complex)):
        return _of_number(key)
    if isinstance(key, str):
        return b"s" + key.encode("utf-8", "surrogatepass")
    if isinstance(key, (bytes, bytearray)):
        return b"b" + key
    if isinstance(key, tuple):
        return b"t" + _digest([_digest_key(item) for item in key])
    if isinstance(key, (Items, frozenset)):
        items = key.items if isinstance(key, Items) else key
        return b"z" + _digest(sorted({_digest_key(item) for item in items}))
    return b"o" + repr(key).encode()  # None


def _as_real(item: Any) -> Any:
    """The item; the real number that a complex one equals."""
    return item.real if isinstance(item, complex) and not item.imag else item


def _of_number(number: complex) -> bytes:
    if isinstance(number, int):
        return b"i%x" % number
    if cmath.isnan(number):
        return b"n%d" % id(number)  # a NaN equals itself alone
    number = _as_real(number)
    if isinstance(number, complex):
        return b"c" + _of_number(number.real) + b" " + _of_number(number.imag)
    return b"i%x" % int(number) if number.is_integer() else b"f%r" % number


def _digest(parts: list[bytes]) -> bytes:
    total = hashlib.blake2b(digest_size=32)
    for part in parts:
        total.update(b"%d " % len(part) + part)
    return total.digest()


class _Shower(showing.Shower):
    """Writes Pairs and Items as the dicts and sets that they stand for."""

    def outside(self, value: Any, kind: type) -> None:
        if isinstance(value, Pairs):
            self.write_pairs(zip(value.keys, value.held))
        elif isinstance(value, Items):
            self.write_set(value.items)
        else:
            super().outside(value, kind)


def show(value: Any) -> str:
    """As `showing.show`, of what `decode` gave."""
    return _Shower().show(value)
