"""Messages between test code and program: values, and objects that stay where they are.

A mutable container has a place, by the order in which the containers of a call are met: met
again, in itself too, it is ["a", place]. So what is one object on one side is one on the
other, and what the program does to a container that it was given can be done to the one
that test code gave. An object that no value stands for stays in the program's process
(`Held`), and is known to the other by a number; test code gives it back by that number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepcoder_jax.execution.crossing import kinds, values
from stepcoder_jax.execution.crossing.kinds import Fate

_NAME_CAP = 80
READY = values.encode(("ready", ()))
_ELSEWHERE = (Fate.MIRRORED, Fate.REFUSED)


class Writer(values.Encoder):
    """Encodes by the table of `kinds`; `outside` is asked for the rest.

    `containers` are those that have a place already; further ones are added to it.
    """

    def __init__(
        self, containers: list[Any], outside: Callable[[Any, type], list[Any]]
    ) -> None:
        super().__init__()
        self.containers = containers
        self.places = {id(each): place for place, each in enumerate(containers)}
        self.outside = outside

    def container(self, value: Any, kind: type, depth: int) -> list[Any]:
        """As of a plain encoder, with the table's tags beside its own."""
        row = kinds.row_of(value, kind)
        if row.proxy in _ELSEWHERE:
            return self.outside(value, kind)
        if row.take is None:
            if row.reduce is not None:
                return self.plain(row.reduce(value), depth)  # type: ignore[no-any-return]
            return super().container(value, kind, depth)
        place = self.places.get(id(value))
        if place is not None:
            return ["a", place]
        try:
            parts = row.take(value)
        except values.TooLarge:
            raise
        except values.ValueCodecError:  # the table's, and yet not: a class of its own
            return self.outside(value, kind)
        if row.empty is None and row is not kinds.ARRAY:
            return [row.tag, *self.all_plain(parts, depth)]
        self.places[id(value)] = len(self.containers)
        self.containers.append(value)
        if row.empty is None:
            return [row.tag, *self.all_plain(parts, depth)]
        if isinstance(value, dict):
            return [row.tag, *self.all_plain(parts, depth), *self._pairs(value, depth)]
        items = self.all_plain(kinds.items_of(value), depth)
        return [row.tag, *self.all_plain(parts, depth), *items]

    def _pairs(self, value: dict[Any, Any], depth: int) -> list[Any]:
        plain = self.plain
        return [[plain(k, depth), plain(v, depth)] for k, v in dict.items(value)]


class Reader(values.Decoder):
    """Builds what a Writer wrote; `inside` makes what stands behind a number or name."""

    def __init__(
        self, containers: list[Any], inside: Callable[[str, list[Any]], Any]
    ) -> None:
        self.containers = containers
        self.inside = inside


def _at_place(reader: Reader, items: list[Any], depth: int) -> Any:
    """The container that was met before."""
    (place,) = items
    if type(place) is not int or not 0 <= place < len(reader.containers):
        raise ValueError("no such place")
    return reader.containers[place]


def _outsider(tag: str) -> Callable[[Reader, list[Any], int], Any]:
    """The builder of what `inside` makes."""
    return lambda reader, items, depth: reader.inside(tag, items)


def _builder_of(row: kinds.Kind) -> Callable[[Reader, list[Any], int], Any]:
    """How the table's row is built, its parts being built first."""

    def build(reader: Reader, items: list[Any], depth: int) -> Any:
        assert row.build is not None
        made = row.build(*reader.build_all(items, depth))
        if row is kinds.ARRAY:
            reader.containers.append(made)
        return made

    def build_mutable(reader: Reader, items: list[Any], depth: int) -> Any:
        assert row.empty is not None
        parts = reader.build_all(items[: row.parts], depth)
        made = row.empty(*parts)
        reader.containers.append(made)
        rest = items[row.parts :]
        if isinstance(made, dict):
            keys, held = reader.build_pairs(rest, depth)
            for key, value in zip(keys, held):
                made[key] = value
        elif isinstance(made, set):
            made.update(reader.build_hashed(rest, depth))
        else:
            kinds.fill(made, reader.build_all(rest, depth))
        return made

    return build_mutable if row.empty is not None else build


# What has no row: by number, by name; an object and an iterator of the program.
BY_NUMBER, BY_NAME, OBJECT, ITERATOR = "h", "p", "o", "g"
Reader.builders = {
    **values.Decoder.builders,
    **{tag: _builder_of(row) for tag, row in kinds.BY_TAG.items()},
    **{tag: _outsider(tag) for tag in (BY_NUMBER, BY_NAME, OBJECT, ITERATOR)},
    "a": _at_place,
}


class Held:
    """In the program's process: the objects that test code knows by number alone."""

    def __init__(self, find: Callable[[str], Any]) -> None:
        self.find = find
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}

    def write(self, value: Any, kind: type) -> list[Any]:
        """The array of an object that stays here (Writer's `outside`)."""
        number = self.numbers.setdefault(id(value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)
        name = type.__dict__["__name__"].__get__(kind)[:_NAME_CAP]
        if kinds.row_of(value, kind) is kinds.ITERATOR:
            return [ITERATOR, number, name]
        return [OBJECT, number, name, _truth_of(value), kind.__eq__ is object.__eq__]

    def read(self, tag: str, items: list[Any]) -> Any:
        """The object, or the program's function, that test code passes (`inside`)."""
        (known,) = items
        if tag == BY_NAME:
            return self.find(known)
        return self.objects[known]


def _truth_of(value: Any) -> bool | None:
    """Whether it is true; None where that cannot be told."""
    try:
        return bool(value)
    except Exception:
        return None
