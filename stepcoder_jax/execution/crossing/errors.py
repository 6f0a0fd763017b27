"""How an exception of the program crosses to the test code that called it.

Test code may catch it as what it is: by its class where that is built in, by its built-in
bases where the program made the class. What steers the caller instead of telling it of an
error crosses as ProgramError, which ends the test: `all(map(f, items))` takes a
StopIteration that f raises for the end of the items, and would pass.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from stepcoder_jax.execution.crossing import kinds, values
from stepcoder_jax.execution.crossing.memory import ran_out

_TEXT_CAP = 4096
_NAME_CAP = 80
_MOST_BASES = 8
# These too are Exceptions, but callers take them for the end of what they ask for.
_STEERING = (StopIteration, StopAsyncIteration)


class ProgramError(BaseException):
    """The program raised what is no error to handle, or sent nonsense."""


def tell(error: BaseException, line_of: Callable[[BaseException], int]) -> tuple[Any, ...]:
    """In the program's process: (class name, built-in bases, args, text, line, ran out).

    Whether memory ran out is told, as what says so does not cross: an `errno` that the
    program set, the errors of a group.
    """
    kind = type(error)
    name = type.__dict__["__name__"].__get__(kind)[:_NAME_CAP]
    text = text_of(error)
    try:
        args = BaseException.args.__get__(error)  # type: ignore[attr-defined]
        if len(values.encode(args)) > _TEXT_CAP:
            args = (text,)
    except values.ValueCodecError:
        args = (text,)
    return name, _built_in_bases(kind), args, text, line_of(error), ran_out(error)


def text_of(error: BaseException) -> str:
    """What it says; nothing where its own code fails to."""
    try:
        return str.__str__(str(error))[:_TEXT_CAP]
    except BaseException:
        return ""


def _built_in_bases(kind: type) -> tuple[str, ...]:
    """Its nearest bases that are built in, each once: (its own name,) if it is one."""
    found: list[type] = []
    for base in kinds.mro_of(kind):
        is_ours = vars(builtins).get(base.__name__) is base and base is not object
        if is_ours and not any(base in kinds.mro_of(other) for other in found):
            found.append(base)
    return tuple(base.__name__ for base in found)


def rebuild(told: Any) -> BaseException:
    """In the test code's process: the exception to raise, with its `program_note`.

    That is its class, its line, and whether memory ran out.
    """
    if not isinstance(told, tuple) or len(told) != 6:
        return ProgramError("a message of another form")
    name, bases, args, text, line, has_run_out = told
    if not (isinstance(name, str) and isinstance(text, str) and isinstance(args, tuple)):
        return ProgramError("a message of another form")
    error = _error_of(name, _known_bases(bases), args, text)
    error.program_note = (name, line, has_run_out is True)  # type: ignore[attr-defined]
    return error


def _known_bases(names: Any) -> list[Any]:
    """The built-in classes, none of which steers a caller; [] where one does."""
    if not isinstance(names, tuple) or not 0 < len(names) <= _MOST_BASES:
        return []
    found = [vars(builtins).get(each) for each in names if isinstance(each, str)]
    if len(found) == len(names) and all(map(_tells_of_an_error, found)):
        return found
    return []


def _tells_of_an_error(kind: Any) -> bool:
    return (
        isinstance(kind, type)
        and issubclass(kind, Exception)
        and not issubclass(kind, _STEERING)
    )


def _error_of(name: str, bases: list[Any], args: Any, text: str) -> BaseException:
    """An instance of the very class, else of a class of that name with these bases.

    One that cannot be made, as an ExceptionGroup without its errors, which have not
    crossed, is made of a base that can.
    """
    own = {"__str__": lambda self: text, "__getattr__": _refuse_attribute}
    bases_of_one = [(kind,) for base in bases for kind in kinds.mro_of(base)[:-2]]
    for chosen in [tuple(bases), *bases_of_one] if bases else []:
        is_itself = len(chosen) == 1 and chosen[0].__name__ == name
        try:
            kind: Any = chosen[0] if is_itself else type(name, chosen, own)
            return kind(*args)  # type: ignore[no-any-return]
        except Exception:
            continue
    return ProgramError(f"{name}: {text}")


def _refuse_attribute(error: Any, name: str) -> Any:
    """What the program gave its own exception beside its arguments has not crossed."""
    if name[:2] == "__":
        raise AttributeError(name)
    raise kinds.Unfaithful(f"attribute {name!r} of the program's exception")
