"""A value as one line of printable text, of bounded length and in bounded time.

Values may be a program's, so none of their own code is asked: built-in types are written
by their own slots, others by the name of their class. What does not fit is "...".
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
from collections.abc import Iterable
from typing import Any

MOST = 500  # characters
_MOST_BITS = 1500  # of an int whose digits are written
_STEPS = 4  # values looked at, for each character that there is room for
_MOST_DEPTH = 100  # as values.MAX_DEPTH; a list may hold itself
_MORE = "..."
_BY_REPR = frozenset(
    {
        *(type(None), bool, float, complex, type(...), datetime.timedelta, datetime.date),
        *(datetime.time, datetime.datetime, datetime.timezone),
    }
)
_BRACKETS: tuple[tuple[type, str, str], ...] = (
    (list, "[", "]"),
    (tuple, "(", ")"),
    (collections.deque, "deque([", "])"),
)


def show(value: Any, most: int = MOST) -> str:
    """The text of a plain value; a set's items in the order of their texts."""
    return Shower(most).show(value)


def show_call(name: str, arguments: Iterable[Any], most: int = MOST) -> str:
    """The text of a call of a function on plain values."""
    shower = Shower(most)
    shower.write_items(arguments, f"{name}(", ")")
    return shower.text()


class Shower:
    """Writes one value; `outside` is asked for what is of no built-in type."""

    def __init__(self, most: int = MOST) -> None:
        self.room = most
        self.steps = _STEPS * most
        self.depth = 0
        self.parts: list[str] = []

    def show(self, value: Any) -> str:
        """The text, of at most `most` characters and three dots."""
        self.write(value)
        return self.text()

    def text(self) -> str:
        """What has been written, cut where there was no more room."""
        text = "".join(self.parts)
        return text if self.room >= 0 else text[: self.room] + _MORE

    def add(self, text: str) -> None:
        """Write this; what is over the end is cut off at last."""
        self.parts.append(text)
        self.room -= len(text)

    def write(self, value: Any) -> None:
        """Write one value, if there is room."""
        self.steps -= 1
        if self.room < 0 or self.steps < 0:
            return
        if self.depth > _MOST_DEPTH:
            self.add(_MORE)
            return
        self.depth += 1
        self._write(value, type(value))
        self.depth -= 1

    def _write(self, value: Any, kind: type) -> None:
        if kind in _BY_REPR:
            self.add(repr(value))
        elif isinstance(value, int):
            self.add(_digits(int.__add__(value, 0)))
        elif isinstance(value, str):
            self.add(repr(str.__getitem__(value, slice(self.room + 1))))
        elif isinstance(value, (bytes, bytearray)):
            self.add(repr(bytes(memoryview(value)[: self.room + 1])))
        elif isinstance(value, dict):
            self.write_pairs(dict.items(value))
        elif isinstance(value, set):
            self.write_set(list(set.__iter__(value)))
        elif isinstance(value, frozenset):
            self.write_set(list(frozenset.__iter__(value)))
        else:
            self._write_other(value, kind)

    def _write_other(self, value: Any, kind: type) -> None:
        for base, opening, closing in _BRACKETS:
            if isinstance(value, base):
                items = list(base.__iter__(value))  # type: ignore[attr-defined]
                comma = "," * (base is tuple and len(items) == 1)
                self.write_items(items, opening, comma + closing)
                return
        if kind is decimal.Decimal:
            self.add(str(value))
        elif kind is fractions.Fraction:
            self.write_items((value.numerator, value.denominator), "Fraction(", ")")
        elif kind in (range, slice):
            ends = (value.start, value.stop, value.step)
            self.write_items(ends, f"{kind.__name__}(", ")")
        else:
            self.outside(value, kind)

    def outside(self, value: Any, kind: type) -> None:
        """Write a value of another type."""
        self.write_class(kind.__name__)

    def write_class(self, name: str) -> None:
        """Write the name of a class, which may be any text."""
        self.add(f"<{name}>" if name.isprintable() else f"<{name!r}>")

    def write_items(self, items: Iterable[Any], opening: str, closing: str) -> None:
        """Write items between brackets, as many as there is room for."""
        self.add(opening)
        for place, item in enumerate(items):
            if self.room < 0 or self.steps < 0:
                break
            self.add(", " * bool(place))
            self.write(item)
        self.add(closing if self.steps >= 0 else _MORE)

    def write_pairs(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Write the pairs of a dict."""
        self.add("{")
        for place, (key, item) in enumerate(pairs):
            if self.room < 0 or self.steps < 0:
                break
            self.add(", " * bool(place))
            self.write(key)
            self.add(": ")
            self.write(item)
        self.add("}" if self.steps >= 0 else _MORE)

    def write_set(self, items: list[Any]) -> None:
        """Write a set in the order of its items' texts; of one too large how many."""
        if not items:
            self.add("set()")
            return
        if len(items) > min(self.room, self.steps):
            self.add(f"<set of {len(items)} items>")
            return
        texts = []
        for item in items:
            inner = type(self)(self.room)
            inner.steps, inner.depth = self.steps, self.depth
            texts.append(inner.show(item))
            self.steps = inner.steps
        self.add(f"{{{', '.join(sorted(texts))}}}")


def _digits(number: int) -> str:
    bits = number.bit_length()
    return repr(number) if bits <= _MOST_BITS else f"<int of {bits} bits>"
