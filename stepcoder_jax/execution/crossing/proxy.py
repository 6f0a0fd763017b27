"""The program's functions and objects, as test code holds them."""

from __future__ import annotations

from collections import deque
from typing import Any

from stepcoder_jax.execution.crossing import (
    channel,
    errors,
    kinds,
    messages,
    showing,
    values,
)
from stepcoder_jax.execution.crossing.codec_clock import CodecClock
from stepcoder_jax.execution.crossing.errors import ProgramError
from stepcoder_jax.execution.crossing.kinds import Unfaithful

_ONE_BY_ONE = 64  # items of an iterator that are asked for as they are used
_SAID_CAP = 200
_MANY = 64  # at a time, of those after them


class ProgramGone(BaseException):
    """The program's process ended; no test code catches this by `except Exception`."""


class ProgramTooLarge(BaseException):
    """The program's answer is beyond a limit."""


class UnfitArgument(BaseException):
    """The test code passes what is no plain value: it cannot be run apart."""


class Session:
    """One test's talk with the program.

    `fatal` is the first of what no test code can mend by catching it: a test that swallows
    it with a bare `except` has not passed. `has_asked`: whether the program, once its file
    had run, was asked for anything. `returned`: what its calls gave, the last one alone.
    """

    def __init__(self, limit: int, clock: CodecClock) -> None:
        self.limit = limit
        self.clock = clock
        self.fatal: BaseException | None = None
        self.has_asked = False
        self.returned: list[Any] = []
        self.objects: dict[int, Any] = {}

    def end(self, error: BaseException) -> BaseException:
        """Note that the test cannot pass any more; returns what is to be raised."""
        self.fatal = self.fatal or error
        return error

    def unfaithful(self, what: str) -> BaseException:
        """The end of a test that needs more of an object than crosses."""
        return self.end(Unfaithful(what))

    def wait(self) -> None:
        """Wait until the program's file has run."""
        if self._take() != messages.READY:
            raise self._nonsense()

    def call(self, what: str | int, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """What a function of the program, or an object of that number, gives or raises."""
        kind, *rest = self._ask(("call", what, args, tuple(keywords.items())), [])
        returned = self._one_of(kind, rest, "return")
        self.returned[:] = [returned]
        return returned

    def has(self, number: int, name: str) -> bool:
        """Whether an object has a method of this name, special or not."""
        kind, *rest = self._ask(("has", number, name), [])
        return self._one_of(kind, rest, "return") is True

    def show_returned(self) -> str:
        """What the last call gave, as one line; "" where there was none."""
        return _Shower().show(*self.returned) if self.returned else ""

    def text(self, number: int, name: str) -> str:
        """An object's `str` or `repr`."""
        kind, *rest = self._ask(("text", number, name), [])
        text = self._one_of(kind, rest, "return")
        if type(text) is not str:
            raise self._nonsense()
        return text

    def items(self, number: int, count: int) -> tuple[tuple[Any, ...], bool]:
        """At most `count` further items of an iterator, and whether these were the last."""
        kind, *rest = self._ask(("next", number, count), [])
        if kind != "items" or len(rest) != 3 or not isinstance(rest[0], tuple):
            raise self._one_of(kind, rest, "")
        items, is_over = rest[0], rest[1] is True
        if len(items) > count or not (items or is_over):
            raise self._nonsense()
        return items, is_over

    def _one_of(self, kind: Any, rest: list[Any], wanted: str) -> Any:
        if kind == wanted and len(rest) == 2:
            return rest[0]
        if kind == "raise" and len(rest) == 2:
            raise errors.rebuild(rest[0])
        raise self._nonsense()

    def _ask(self, request: Any, containers: list[Any]) -> tuple[Any, ...]:
        self.has_asked = True
        with self.clock:
            try:
                data = messages.Writer(containers, self._write).encode(request)
            except values.ValueCodecError as error:
                raise self.end(UnfitArgument(str(error))) from None
        if len(data) > self.limit:
            raise self.end(UnfitArgument(channel.say_limit(self.limit)))
        try:
            channel.send(channel.CHANNEL_FD, data)
        except ConnectionError:
            raise self.end(ProgramGone()) from None
        return self._receive(containers)

    def _take(self) -> bytes:
        data = channel.receive(channel.CHANNEL_FD, self.limit)
        if data is None:
            raise self.end(ProgramGone())
        return data

    def _receive(self, containers: list[Any]) -> tuple[Any, ...]:
        """The answer's parts, when what it changed has been done to `containers`."""
        data = self._take()
        mine = len(containers)
        with self.clock:
            try:
                message = messages.Reader(containers, self._read).decode(data)
                if isinstance(message, tuple) and message[:1] == ("large",):
                    raise self.end(ProgramTooLarge(str(message[1])[:_SAID_CAP]))
                self._mirror(containers[:mine], message[-1])
            except values.TooLarge as error:
                raise self.end(ProgramTooLarge(str(error))) from None
            except (values.ValueCodecError, TypeError, ValueError, LookupError):
                raise self._nonsense() from None
        return message  # type: ignore[no-any-return]

    def _mirror(self, containers: list[Any], changes: Any) -> None:
        """Do to the caller's arguments what the program did to its copies of them."""
        for place, items in changes:
            kinds.fill(containers[place], list(items))

    def _nonsense(self) -> BaseException:
        return self.end(ProgramError("a message of another form"))

    def _write(self, value: Any, kind: type) -> list[Any]:
        if kind is Proxy:
            return [messages.BY_NAME, value.__name__]
        if kind in (RemoteObject, RemoteIterator):
            return [messages.BY_NUMBER, value._number]
        raise values.ValueCodecError(f"{kind.__name__} is not a plain value")

    def _read(self, tag: str, items: list[Any]) -> Any:
        number, name, *rest = items
        if type(number) is not int or not isinstance(name, str):
            raise ValueError("no number and name")
        if number not in self.objects:
            is_iterator = tag == messages.ITERATOR
            kind: Any = RemoteIterator if is_iterator else RemoteObject
            self.objects[number] = kind(self, number, name, *rest)
        return self.objects[number]


def _refuse(name: str) -> Any:
    """The special method of this name, which the program's process would have to run."""

    def method(self: Any, *_: Any) -> Any:
        raise self._refusal(name)

    return method


_REFLECTED = """
add sub mul truediv floordiv mod pow divmod matmul and or xor lshift rshift
"""
_OTHERS = """
lt le gt ge len getitem setitem delitem iter contains reversed next neg pos abs invert int
float complex index round format bytes enter exit instancecheck
"""
_REFUSED = [
    *(f"__{name}__" for name in (_REFLECTED + _OTHERS).split()),
    *(f"__r{name}__" for name in _REFLECTED.split()),
]


class Proxy:
    """A function of the program, as the test code calls it."""

    def __init__(self, name: str, session: Session) -> None:
        vars(self).update(__name__=name, _session=session)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._session.call(self.__name__, args, kwargs)

    def _refusal(self, what: str) -> BaseException:
        return self._session.unfaithful(f"{what} of the program's {self.__name__!r}")

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__":
            raise AttributeError(name)
        raise self._refusal(f"attribute {name!r}")


class RemoteObject:
    """A returned object that no value stands for, as `re.match` returns one.

    Test code may ask whether it is true and what its text is, call it, and give it back to
    the program; it equals nothing but itself. For what else it can do, the test is
    unfaithful; what it cannot do is an error, as it would be beside it.
    """

    def __init__(
        self, session: Session, number: int, name: str, truth: Any, is_plain: Any
    ) -> None:
        vars(self).update(_session=session, _number=number, _name=name)
        vars(self).update(_truth=truth, _has_own_equality=is_plain is not True)

    def __bool__(self) -> bool:
        if self._truth is None:
            raise self._session.unfaithful(f"the truth of a {self._name}")
        return self._truth is True

    def __eq__(self, other: object) -> Any:
        if type(other) is not RemoteObject or other is self:
            return other is self
        if self._has_own_equality or other._has_own_equality:
            raise self._session.unfaithful(f"equality of two {self._name}")
        return False

    def __hash__(self) -> int:
        return self._number

    def __str__(self) -> str:
        return self._session.text(self._number, "str")

    def __repr__(self) -> str:
        return self._session.text(self._number, "repr")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._session.call(self._number, args, kwargs)

    def _refusal(self, name: str) -> BaseException:
        names = [name]
        if name in ("__iter__", "__contains__", "__reversed__"):
            names += ["__iter__", "__getitem__"]
        if any(self._session.has(self._number, each) for each in names):
            return self._session.unfaithful(f"{name} of a {self._name}")
        return TypeError(f"{self._name!r} object has no {name}")

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__" or not self._session.has(self._number, name):
            raise AttributeError(f"{self._name!r} object has no attribute {name!r}")
        raise self._session.unfaithful(f"attribute {name!r} of a {self._name}")


for _name in (*_REFUSED, "__setattr__", "__delattr__"):
    setattr(RemoteObject, _name, _refuse(_name))
    setattr(Proxy, _name, _refuse(_name))


class RemoteIterator:
    """An iterator of the program, which makes its items as test code asks for them."""

    def __init__(self, session: Session, number: int, name: str) -> None:
        self._session = session
        self._number = number
        self._name = name
        self._asked = 0
        self._items: deque[Any] = deque()
        self._is_over = False

    def __iter__(self) -> RemoteIterator:
        return self

    def __next__(self) -> Any:
        if not self._items and not self._is_over:
            count = 1 if self._asked < _ONE_BY_ONE else _MANY
            items, self._is_over = self._session.items(self._number, count)
            self._items.extend(items)
            self._asked += count
        if not self._items:
            raise StopIteration
        return self._items.popleft()

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__":
            raise AttributeError(name)
        raise self._session.unfaithful(f"{name!r} of a {self._name}")


class _Shower(showing.Shower):
    """Writes an object of the program by its class, without asking for anything."""

    def outside(self, value: Any, kind: type) -> None:
        if kind in (RemoteObject, RemoteIterator):
            self.write_class(vars(value)["_name"])
        else:
            super().outside(value, kind)
