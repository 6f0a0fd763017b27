"""What each field of a config may hold by itself: its type, its choices, its range.

The ranges stand in the sections, and so do the rules that join fields. A number is finite,
whatever its range.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Numbers from `low` to `high`; an end that is open does not belong to them."""

    low: float = -math.inf
    high: float = math.inf
    is_open: str = ""  # "(" for the low end, ")" for the high one

    def holds(self, number: float) -> bool:
        above = number > self.low if "(" in self.is_open else number >= self.low
        below = number < self.high if ")" in self.is_open else number <= self.high
        return math.isfinite(number) and above and below

    def __str__(self) -> str:
        if self.high < math.inf:
            left = "(" if "(" in self.is_open else "["
            right = ")" if ")" in self.is_open else "]"
            return f"a number in {left}{self.low:g}, {self.high:g}{right}"
        if self.low == -math.inf:
            return "a finite number"
        return f"{'more than' if '(' in self.is_open else 'at least'} {self.low:g}"


FINITE = Range()
POSITIVE = Range(0, is_open="(")
NATURAL = Range(0)  # 0 is off, or all
COUNT = Range(1)
SHARE = Range(0, 1)
BELOW_ONE = Range(0, 1, is_open=")")  # 0 is off
WITHIN = Range(0, 1, is_open="()")
ABOVE_ZERO = Range(0, 1, is_open="(")

Ranges = dict[str, Range]  # field of a section -> the range of its numbers
# Of each rule that joins fields: the one to name, whether its value can work, what would.
Rules = Iterator[tuple[str, bool, str]]


def divides(part: int, whole: int) -> tuple[bool, str]:
    """The end of a rule: whether `part` divides `whole`, and what would."""
    return part >= 1 and whole % part == 0, f"a divisor of {whole}"


class Field(NamedTuple):
    """A field of a config, by its dotted name."""

    name: str
    kind: Any  # its annotation
    value: Any
    wanted: Range  # of its numbers


def fields_of(config: Any, prefix: str = "") -> Iterator[Field]:
    """All fields of a config and of the sections in it."""
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{name}.")
        else:
            wanted = config.ranges.get(field.name, FINITE)
            yield Field(name, kinds[field.name], value, wanted)


def check_field(field: Field) -> str:
    """What the field was expected to hold, where it does not; "" where it does."""
    kind = field.kind
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        known = [x for x in choices if type(x) is type(field.value) and x == field.value]
        return "" if known else f"one of {', '.join(map(str, choices))}"
    if typing.get_origin(kind) is tuple:
        each = typing.get_args(kind)[0]
        if not isinstance(field.value, (tuple, list)):
            return f"a tuple of {each.__name__}"
        return next(filter(None, (_check(field.wanted, each, x) for x in field.value)), "")
    return _check(field.wanted, kind, field.value)


def _check(wanted: Range, kind: Any, value: Any) -> str:
    if kind in (int, float):
        is_number = type(value) is int or (kind is float and isinstance(value, float))
        said = "a whole number, " if kind is int else ""
        return "" if is_number and wanted.holds(value) else f"{said}{wanted}"
    return "" if isinstance(value, kind) else f"a value of type {kind.__name__}"
