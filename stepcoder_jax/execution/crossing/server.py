"""The program's end of the channel: it answers what test code asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepcoder_jax.execution.crossing import channel, errors, kinds, messages, values
from stepcoder_jax.execution.crossing.codec_clock import CodecClock

Answer = tuple[Any, ...]


class Server:
    """In the program's process: answers until the test code's process has ended.

    `find` gives the function of a name, `line_of` an error's line in the program, and
    `restore` makes the builtins ours again, whatever the program did to them.
    """

    def __init__(
        self,
        find: Callable[[str], Any],
        line_of: Callable[[BaseException], int],
        restore: Callable[[], None],
        limit: int,
        clock: CodecClock,
    ) -> None:
        self.held = messages.Held(find)
        self.line_of = line_of
        self.restore = restore
        self.limit = limit
        self.clock = clock
        self.failed: dict[int, BaseException] = {}  # by number of the iterator

    def serve(self) -> None:
        """Answer one request after the other."""
        self.restore()
        channel.send(channel.CHANNEL_FD, messages.READY)
        while (request := channel.receive(channel.CHANNEL_FD, self.limit)) is not None:
            containers: list[Any] = []
            with self.clock:
                kind, *rest = messages.Reader(containers, self.held.read).decode(request)
                before = list(map(kinds.items_of, containers))
            answer = self._perform(kind, *rest)
            self.restore()
            with self.clock:
                data = self._write(answer, containers, before)
            channel.send(channel.CHANNEL_FD, data)

    def _perform(self, kind: str, what: Any, *rest: Any) -> Answer:
        try:
            if kind == "next":
                return self._pull(what, *rest)
            if kind == "call":
                args, pairs = rest
                is_held = type(what) is int
                function = self.held.objects[what] if is_held else self.held.find(what)
                return ("return", function(*args, **dict(pairs)))
            one = self.held.objects[what]
            if kind == "text":
                return ("return", repr(one) if rest == ("repr",) else str(one))
            (name,) = rest
            is_special = name[:2] == "__"
            return ("return", hasattr(type(one) if is_special else one, name))
        except BaseException as error:  # whatever it is, it is the program's own
            return ("raise", errors.tell(error, self.line_of))

    def _pull(self, number: int, count: int) -> Answer:
        """The next items; an error behind some of them waits for the next request."""
        if number in self.failed:
            raise self.failed.pop(number)
        items: list[Any] = []
        try:
            while len(items) < count:
                items.append(next(self.held.objects[number]))
        except StopIteration:
            return ("items", tuple(items), True)
        except BaseException as error:
            if not items:
                raise
            self.failed[number] = error
        return ("items", tuple(items), False)

    def _write(self, answer: Answer, containers: list[Any], before: list[Any]) -> bytes:
        """The message of an answer, and of what it changed in the arguments."""
        changes = tuple(
            (place, tuple(after))
            for place, (each, items) in enumerate(zip(containers, before))
            if not kinds.is_unchanged(items, after := kinds.items_of(each))
        )
        try:
            writer = messages.Writer(containers, self.held.write)
            data = writer.encode((*answer, changes))
            if len(data) > self.limit:
                raise values.TooLarge(channel.say_limit(self.limit))
        except values.TooLarge as error:
            data = values.encode(("large", str(error)))
        return data
