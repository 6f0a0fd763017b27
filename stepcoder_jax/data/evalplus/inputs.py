"""Arguments of MBPP+ as its functions take them: JSON has no tuples, sets, complex.

Which problems are meant is a table of EvalPlus itself (`mbpp_deserialize_inputs` in its
data/formats/mbpp.py, v0.3.1); nothing in a row says it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Arguments = list[Any]


def _tuples(items: Any) -> list[Any]:
    return [tuple(item) for item in items]


def _deep(value: Any) -> Any:
    return tuple(map(_deep, value)) if isinstance(value, list) else value


def _nested(given: Arguments) -> Arguments:
    return [_tuples(argument) for argument in given]


def _first_of_tuples(given: Arguments) -> Arguments:
    return [_tuples(given[0]), given[1]]


def _second(given: Arguments) -> Arguments:
    return [given[0], tuple(given[1])]


def _first(given: Arguments) -> Arguments:
    return [tuple(given[0]), *given[1:]]


def _tuples_of_tuples(given: Arguments) -> Arguments:
    return [tuple(_tuples(argument)) for argument in given]


def _mixed(given: Arguments) -> Arguments:
    return [
        tuple(tuple(item) if isinstance(item, list) else item for item in argument)
        for argument in given[:1]
    ]


def _sets(given: Arguments) -> Arguments:
    return [[set(item) if isinstance(item, list) and item else {} for item in given[0]]]


def _complex_second(given: Arguments) -> Arguments:
    return [float(given[0]), complex(given[1])]


def _complex(given: Arguments) -> Arguments:
    return [complex(given[0])]


def _values_of_dict(given: Arguments) -> Arguments:
    return [{key: tuple(value) for key, value in given[0].items()}, *given[1:]]


def _all_deep(given: Arguments) -> Arguments:
    return [_deep(argument) for argument in given]


_TABLE: dict[Callable[[Arguments], Arguments], tuple[int, ...]] = {
    _tuples: (
        2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616,
        630, 726, 740, 744, 809,
    ),
    _nested: (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    _first_of_tuples: (75, 413, 444, 753),
    _second: (106, 750),
    _sets: (115,),
    _complex_second: (124,),
    _first: (250, 307, 405, 446, 617, 720, 763, 808),
    _tuples_of_tuples: (259, 401, 445),
    _mixed: (278,),
    _values_of_dict: (722,),
    _complex: (252,),
    _all_deep: (580, 615, 791),
}  # fmt: skip
_RESTORE = {task: restore for restore, tasks in _TABLE.items() for task in tasks}


def restore(task: int, given: Arguments) -> Arguments:
    """The arguments of one call of MBPP+'s problem `task`.

    TypeError, ValueError, IndexError or AttributeError where they are of another shape than
    that problem's.
    """
    return _RESTORE.get(task, list)(given)
