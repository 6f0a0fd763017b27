"""Calls between the test code's process and the program's, as encoded plain values.

Test code -> program: (name, args, kwargs). Program -> test code: ("ready",) once its file
has run, then for each call ("return", value, args after the call or None when they are
unchanged), ("object", truth, args) for a value that is not plain, or ("raise", class,
message, line). Each message is its length and
`values.encode` of it, so what comes from the program is decoded strictly.
"""

from __future__ import annotations

import builtins
import os
import struct
from collections.abc import Callable
from typing import Any

from stepcoder_jax.execution import values

CHANNEL_FD = 5
_LENGTH = struct.Struct("!I")
_MESSAGE_CAP = 200


class ProgramGone(BaseException):
    """The program's process ended; no test code catches this by `except Exception`."""


class ProgramError(BaseException):
    """The program raised what is not an ordinary built-in exception, or sent nonsense."""


class UnfitArgument(BaseException):
    """The test code passes what is no plain value: it cannot be run apart."""


def send(fd: int, data: bytes) -> None:
    """Send one encoded message; BrokenPipeError when nobody reads."""
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def receive(fd: int, limit: int) -> bytes | None:
    """Receive one message; None when the other side is gone or sends over `limit` bytes."""
    head = _read_exactly(fd, _LENGTH.size)
    if head is None or _LENGTH.unpack(head)[0] > limit:
        return None
    return _read_exactly(fd, _LENGTH.unpack(head)[0])


def _read_exactly(fd: int, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        try:
            part = os.read(fd, min(size, 1 << 20))
        except ConnectionError:  # it ended with a message of ours unread
            part = b""
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def serve(
    find: Callable[[str], Any],
    line_of: Callable[[BaseException], int],
    restore: Callable[[], None],
    limit: int,
) -> None:
    """In the program's process: answer calls until the test code's process has ended.

    `find` gives the function of a name, `line_of` an error's line in the program, and
    `restore` makes the builtins ours again, whatever the program did to them.
    """
    restore()
    send(CHANNEL_FD, values.encode(("ready",)))
    while (request := receive(CHANNEL_FD, limit)) is not None:
        name, args, kwargs = values.decode(request)
        before = values.encode(args)
        try:
            result = find(name)(*args, **kwargs)
            restore()
            answer = _answer(result, None if values.encode(args) == before else args)
        except BaseException as error:  # whatever it is, it is the program's own
            restore()
            note = str(error)[:_MESSAGE_CAP] if isinstance(error, Exception) else ""
            answer = values.encode(("raise", type(error).__name__, note, line_of(error)))
        send(CHANNEL_FD, answer)


def _answer(result: Any, args: Any) -> bytes:
    try:
        return values.encode(("return", result, args))
    except values.ValueCodecError:
        return values.encode(("object", bool(result), args))


class Opaque:
    """A returned object that is no plain value, as `re.match` returns one.

    Test code may ask whether it is true; it equals nothing but itself.
    """

    def __init__(self, truth: bool) -> None:
        self._truth = truth

    def __bool__(self) -> bool:
        return self._truth


class Proxy:
    """A function of the program, as the test code calls it."""

    def __init__(self, name: str, limit: int) -> None:
        self.__name__ = name
        self._limit = limit

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            request = values.encode((self.__name__, list(args), kwargs))
        except values.ValueCodecError as error:
            raise UnfitArgument(str(error)) from None
        kind, *rest = ask(request, self._limit)
        if kind in ("return", "object") and len(rest) == 2:
            _mirror(args, rest[1])
            return rest[0] if kind == "return" else Opaque(rest[0] is True)
        if kind == "raise" and len(rest) == 3:
            raise _rebuild(*rest)
        raise ProgramError("a message of another form")


def ask(request: bytes | None, limit: int) -> tuple[Any, ...]:
    """Send a request, or only wait for the program to be ready; return its message."""
    try:
        if request is not None:
            send(CHANNEL_FD, request)
    except ConnectionError:
        raise ProgramGone from None
    data = receive(CHANNEL_FD, limit)
    if data is None:
        raise ProgramGone
    try:
        message = values.decode(data)
    except values.ValueCodecError as error:
        raise ProgramError(str(error)) from None
    if not isinstance(message, tuple) or not message:
        raise ProgramError("a message of another form")
    return message


def _mirror(args: tuple[Any, ...], after: Any) -> None:
    """Do to the caller's arguments what the program did to its copies of them."""
    if not isinstance(after, list) or len(after) != len(args):
        return
    for mine, changed in zip(args, after):
        if type(mine) is not type(changed) or mine == changed:
            continue
        if isinstance(mine, list):
            mine[:] = changed
        elif isinstance(mine, (dict, set)):
            mine.clear()
            mine.update(changed)


def _rebuild(name: Any, message: Any, line: Any) -> BaseException:
    """The program's exception: its class where that is an ordinary built-in one."""
    kind = getattr(builtins, name, None) if isinstance(name, str) else None
    error: BaseException = ProgramError(f"{name}: {message}")
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            error = kind(message)
        except TypeError:  # UnicodeDecodeError wants five arguments
            error = ProgramError(f"{name}: {message}")
    error.program_note = (str(name), line)  # type: ignore[attr-defined]
    return error
