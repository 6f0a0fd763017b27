"""What crosses between test code and the program, and how: one table, KINDS.

Fates in mode assert_proxy, where test code gets what the program returned, and the program
what test code passes:

  carried   an equal value of the same type, built anew on the other side
  reduced   an equal value of a plainer type: a subclass becomes its base
  mirrored  the object stays in its process, which is asked for one item after the other
  refused   only its truth and its identity cross: it equals nothing but itself, and any
            other use ends the test as unfaithful (records.TestResult)

In mode call, what is returned is compared with a plain value: it is carried or reduced to
a plain value, or refused, for it equals no plain value: an error of the program.

The program's own `__eq__`, `__len__` and their like are never asked: whatever it returns
is compared with the code of built-in types alone.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import importlib
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from stepcoder_jax.execution.crossing import values

_MAX_FIELDS = 100
_MAX_ARRAY_DIMENSIONS = 32
_MAX_DIGITS = 10_000  # of a decimal that becomes an int
_DECIMAL = re.compile(
    r"-?(?:[0-9]+(?:\.[0-9]+)?(?:E[+-]?[0-9]{1,20})?|Infinity|s?NaN[0-9]*)"
)
_NUMBER_ARRAY = re.compile(r"[?bhilqpBHILQPefdFD]")  # numpy's letters


class Fate(enum.StrEnum):
    """What becomes of a value on its way, as the module says."""

    CARRIED = "carried"
    REDUCED = "reduced"
    MIRRORED = "mirrored"
    REFUSED = "refused"


class Unfaithful(BaseException):
    """Test code does with a value what the judge cannot do as plain Python would."""


class Kind(NamedTuple):
    """A row of the table.

    `take` gives the parts of a value, which are encoded behind `tag`; `build` makes it of
    them again. A mutable one is built empty by `empty` and filled with the items behind
    the parts: so the other side knows it when it is met again, in itself too.
    """

    name: str
    proxy: Fate
    call: Fate
    tag: str = ""
    take: Callable[[Any], list[Any]] | None = None
    build: Callable[..., Any] | None = None
    empty: Callable[..., Any] | None = None
    reduce: Callable[[Any], Any] | None = None  # to a plainer value
    parts: int = 0  # of a mutable one, before its items


def _take_time(value: Any) -> list[Any]:
    return [value.hour, value.minute, value.second, value.microsecond, value.fold]


def _zone_of(value: Any) -> Any:
    """The offset of its time zone; ValueCodecError for one with rules of its own."""
    if value.tzinfo is None:
        return None
    if type(value.tzinfo) is not datetime.timezone:
        raise values.ValueCodecError("a time zone with rules is not carried")
    return value.tzinfo.utcoffset(None)


def _build_zone(offset: Any) -> Any:
    return None if offset is None else datetime.timezone(offset)


def _build_time(*parts: Any) -> datetime.time:
    *clock, fold, zone = parts
    return datetime.time(*clock).replace(fold=fold, tzinfo=_build_zone(zone))


def _build_datetime(*parts: Any) -> datetime.datetime:
    *clock, fold, zone = parts
    return datetime.datetime(*clock).replace(fold=fold, tzinfo=_build_zone(zone))


def _build_decimal(text: Any) -> decimal.Decimal:
    if not isinstance(text, str) or not _DECIMAL.fullmatch(text):
        raise ValueError("not a decimal number")
    return decimal.Decimal(text)


def _build_fraction(numerator: Any, denominator: Any) -> fractions.Fraction:
    if type(numerator) is not int or type(denominator) is not int:
        raise ValueError("not two ints")
    return fractions.Fraction(numerator, denominator)


def _reduce_fraction(value: Any) -> int | float:
    try:
        return value.numerator if value.denominator == 1 else float(value)
    except OverflowError:  # beyond every float
        return math.nan


def _reduce_decimal(value: Any) -> int | float:
    if value.is_snan():
        return math.nan
    whole = value.is_finite() and abs(value.adjusted()) < _MAX_DIGITS
    return int(value) if whole and value == int(value) else float(value)


def _empty_default_dict(name: Any) -> collections.defaultdict[Any, Any]:
    factory = None if name is None else _FACTORIES.get(name, _refuse_default)
    return collections.defaultdict(factory)


def _take_factory(value: Any) -> list[Any]:
    factory = value.default_factory
    known = [name for name, kind in TYPES.items() if kind is factory]
    return [None if factory is None else (known or ["?"])[0]]


def _refuse_default() -> Any:
    raise Unfaithful("the default of a defaultdict that is made by the program's own code")


def _take_named(value: Any) -> list[Any]:
    kind = type(value)
    return [kind.__name__[:80], tuple(kind._fields), tuple(tuple.__iter__(value))]


def _build_named(name: Any, fields: Any, items: Any) -> Any:
    """A tuple with names; no code is made of them, as collections.namedtuple does."""
    if len(fields) != len(items) or len(fields) > _MAX_FIELDS:
        raise ValueError("other fields than items")
    for field in fields:
        if not isinstance(field, str) or not field.isidentifier() or field[0] == "_":
            raise ValueError("a field without a name")
    body: dict[str, Any] = {
        field: property(operator.itemgetter(place)) for place, field in enumerate(fields)
    }
    body |= {
        "__slots__": (),
        "__repr__": lambda self: (
            f"{name}({', '.join(map('{}={!r}'.format, fields, self))})"
        ),
        "_fields": tuple(fields),
        "_asdict": lambda self: dict(zip(fields, self)),
        "_replace": lambda self, **new: type(self)(
            new.pop(field, item) for field, item in zip(fields, self)
        ),
    }
    return type(str(name), (tuple,), body)(items)


def _take_array(value: Any) -> list[Any]:
    """Of numpy: an array, or a scalar that Python's own numbers do not equal."""
    if not _NUMBER_ARRAY.fullmatch(value.dtype.char) and value.dtype.kind not in "US":
        raise values.ValueCodecError(f"an array of {value.dtype} is not carried")
    letters = value.dtype.str if value.dtype.kind in "US" else value.dtype.char
    is_array = hasattr(value, "__setitem__")
    return [letters, tuple(value.shape), tuple(value.ravel().tolist()), is_array]


def _build_array(letters: Any, shape: Any, items: Any, is_array: Any) -> Any:
    if not isinstance(letters, str) or len(shape) > _MAX_ARRAY_DIMENSIONS:
        raise ValueError("an array of another form")
    if not _NUMBER_ARRAY.fullmatch(letters) and not re.fullmatch(
        r"[<>|=]?[US][0-9]{1,6}", letters
    ):
        raise ValueError("an array of other items")
    if math.prod(shape) != len(items):
        raise ValueError("an array of another size")
    try:
        numpy = importlib.import_module("numpy")  # where the program has it, test code has
    except ImportError:
        raise Unfaithful("a numpy array, without numpy in the test's process") from None
    array = numpy.array(items, dtype=letters).reshape(shape)
    return array if is_array is True else array[()]


def _take_bytes(value: Any) -> list[Any]:
    return [bytes(memoryview(value)).hex()]


# Types that test code and program may name to each other; calling one runs no code.
TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(int, float, complex, bool, str, bytes, bytearray, list, tuple, dict, set),
        *(frozenset, range, object, type, type(None)),
    )
}
_FACTORIES = {name: kind for name, kind in TYPES.items() if kind is not type}
_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))

_C, _R, _M, _X = Fate.CARRIED, Fate.REDUCED, Fate.MIRRORED, Fate.REFUSED

# By type. The order does not matter: a value's row is that of its nearest base.
KINDS: dict[Any, Kind] = {
    type(None): Kind("None", _C, _C),
    bool: Kind("bool", _C, _C),
    int: Kind("int, and subclasses: IntEnum", _R, _R),
    float: Kind("float, and subclasses: numpy.float64", _R, _R),
    str: Kind("str, and subclasses: StrEnum, numpy.str_", _R, _R),
    complex: Kind("complex", _R, _R),
    bytes: Kind("bytes", _R, _R),
    tuple: Kind("tuple", _R, _R),
    frozenset: Kind("frozenset", _R, _R),
    list: Kind("list", _R, _R, "l", lambda _: [], empty=list),
    set: Kind("set", _R, _R, "s", lambda _: [], empty=set),
    dict: Kind("dict", _R, _R, "d", lambda _: [], empty=dict),
    bytearray: Kind("bytearray", _R, _R, "y", lambda _: [], empty=bytearray),
    collections.deque: Kind(
        "deque", _C, _X, "q", lambda value: [value.maxlen],
        empty=lambda most: collections.deque(maxlen=most), parts=1,
    ),
    collections.defaultdict: Kind(
        "defaultdict, of a type as int or list", _C, _R, "dd", _take_factory,
        empty=_empty_default_dict, parts=1,
    ),
    collections.Counter: Kind(
        "Counter", _C, _R, "dc", lambda _: [], empty=collections.Counter
    ),
    collections.OrderedDict: Kind(
        "OrderedDict", _C, _R, "do", lambda _: [], empty=collections.OrderedDict
    ),
    range: Kind("range", _C, _X, "r", lambda x: [x.start, x.stop, x.step], range),
    slice: Kind("slice", _C, _X, "sl", lambda x: [x.start, x.stop, x.step], slice),
    _VIEWS[0]: Kind(
        "dict keys", _C, _R, "vk", lambda view: [tuple(view)],
        lambda items: _spread_dict((item, None) for item in items).keys(), reduce=set,
    ),
    _VIEWS[1]: Kind(
        "dict values", _C, _X, "vv", lambda view: [tuple(view)],
        lambda items: dict(enumerate(items)).values(),
    ),
    _VIEWS[2]: Kind(
        "dict items", _C, _X, "vi", lambda view: [tuple(view)],
        lambda pairs: _spread_dict(pairs).items(),
    ),
    fractions.Fraction: Kind(
        "Fraction", _C, _R, "F", lambda x: [x.numerator, x.denominator], _build_fraction,
        reduce=_reduce_fraction,
    ),
    decimal.Decimal: Kind(
        "Decimal", _C, _R, "D", lambda x: [str(x)], _build_decimal, reduce=_reduce_decimal
    ),
    datetime.timedelta: Kind(
        "timedelta", _C, _X, "tl", lambda x: [x.days, x.seconds, x.microseconds],
        datetime.timedelta,
    ),
    datetime.date: Kind(
        "date", _C, _X, "td", lambda x: [x.year, x.month, x.day], datetime.date
    ),
    datetime.time: Kind(
        "time, of no zone or one with a fixed offset", _C, _X, "tt",
        lambda x: [*_take_time(x), _zone_of(x)], _build_time,
    ),
    datetime.datetime: Kind(
        "datetime, of no zone or one with a fixed offset", _C, _X, "tm",
        lambda x: [x.year, x.month, x.day, *_take_time(x), _zone_of(x)], _build_datetime,
    ),
    type: Kind(
        "built-in types as int", _C, _X, "T", lambda each: [_name_of_type(each)],
        TYPES.__getitem__,
    ),
    type(...): Kind("...", _C, _X, "e", lambda _: [], lambda: ...),
}  # fmt: skip

NAMED_TUPLE = Kind("named tuple", _C, _R, "n", _take_named, _build_named)
ARRAY = Kind(
    "numpy array, and numpy.float32", _C, _R, "A", _take_array, _build_array,
    reduce=lambda value: value.tolist(),
)  # fmt: skip
SCALAR = Kind(
    "numpy int64, bool_ and their like", _R, _R, reduce=lambda value: value.item()
)
ITERATOR = Kind("iterator: generator, map, zip, a list's", _M, _X)
OBJECT = Kind("all else: own classes, Enum, functions, re.Match", _X, _X)
_NUMPY = {"ndarray": ARRAY, "generic": SCALAR}
_EXACT = "?bhilqpBHILQPdDUS"  # numpy's letters of what Python's own types equal

TABLE = (*KINDS.values(), NAMED_TUPLE, ARRAY, SCALAR, ITERATOR, OBJECT)
BY_TAG = {row.tag: row for row in TABLE if row.tag}


def _spread_dict(pairs: Iterable[Any]) -> dict[Any, Any]:
    pairs = list(pairs)
    values.require_spread([key for key, _ in pairs])
    return dict(pairs)


def _name_of_type(kind: type) -> str:
    if TYPES.get(kind.__name__) is not kind:
        raise values.ValueCodecError(f"the class {kind.__name__[:80]} is not carried")
    return kind.__name__


def mro_of(kind: type) -> tuple[type, ...]:
    """Its bases, nearest first, whatever its metaclass says of them."""
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(kind)
    return found


def row_of(value: Any, kind: type) -> Kind:
    """The row of a value of this type."""
    row = KINDS.get(kind)
    return row if row is not None else _row_of_subclass(value, kind)


def _row_of_subclass(value: Any, kind: type) -> Kind:
    for base in mro_of(kind):
        if base.__module__ == "numpy" and base.__name__ in _NUMPY:
            row = _NUMPY[base.__name__]
            return ARRAY if row is SCALAR and value.dtype.char not in _EXACT else row
        if base is tuple and isinstance(getattr(kind, "_fields", None), tuple):
            return NAMED_TUPLE
        if base in KINDS and base is not type:  # a metaclass is no type to be named
            return KINDS[base]
    if hasattr(kind, "__next__") and hasattr(kind, "__iter__"):
        return ITERATOR
    return OBJECT


_ITERABLES: tuple[Any, ...] = (list, set, collections.deque)


def items_of(container: Any) -> list[Any]:
    """What a mutable container holds now, in one list that `fill` takes."""
    if isinstance(container, dict):
        return list(itertools.chain.from_iterable(dict.items(container)))
    if isinstance(container, bytearray):
        return _take_bytes(container)
    for base in _ITERABLES:
        if isinstance(container, base):
            return list(base.__iter__(container))
    return container.ravel().tolist()  # type: ignore[no-any-return]


def fill(container: Any, items: list[Any]) -> None:
    """Make a container hold these items and nothing else."""
    if isinstance(container, dict):
        values.require_spread(items[::2])
        container.clear()
        for key, item in zip(items[::2], items[1::2]):
            container[key] = item
    elif isinstance(container, bytearray):
        container[:] = bytes.fromhex(*items)
    elif isinstance(container, list):
        container[:] = items
    elif isinstance(container, set):
        values.require_spread(items)
        container.clear()
        container.update(items)
    elif isinstance(container, collections.deque):
        container.clear()
        container.extend(items)
    else:
        container.flat[:] = items


def is_unchanged(before: list[Any], after: list[Any]) -> bool:
    """Whether a container holds the very items that it held."""
    return len(before) == len(after) and all(map(operator.is_, before, after))


class Reducer(values.Encoder):
    """Encodes what a function returned in mode call: plain values and what becomes one."""

    def container(self, value: Any, kind: type, depth: int) -> list[Any]:
        """As a plain encoder does; ValueCodecError, with its class, for what is refused."""
        row = row_of(value, kind)
        if row.call is Fate.REFUSED:
            raise values.ValueCodecError(kind.__name__)
        if row.reduce is None:
            return super().container(value, kind, depth)
        plain: list[Any] = self.plain(row.reduce(value), depth)
        return plain
