"""Strategies, and the one driver that moves all of them on together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.records import Program, Report, Task

T = TypeVar("T")


class Ask(NamedTuple):
    """Put a task before the model; the reply is its Answer, None where it is too long.

    `draw` numbers what one strategy asks for: answers of other numbers are drawn apart.
    """

    task: Task
    draw: int = 0


class Run(NamedTuple):
    """Judge a program; the reply is its Report."""

    program: Program


class Value(NamedTuple):
    """Put a program before a critic; the reply is Valued."""

    task: Task
    program: Program


class Valued(NamedTuple):
    """What a critic makes of a program, without running it."""

    whole: float  # the chance that it passes
    # bytes of the source up to which it was read, and the chance then, in the order of the
    # text behind the head
    prefixes: tuple[tuple[int, float], ...] = ()


Request = Ask | Run | Value
# A list of requests of one kind, whose reply is a list, is put to the others as one.
Strategy = Generator[Request | list[Request], Any, T]
# The number of the strategy and what it asks for -> a reply each, in the same order.
AskAll = Callable[[Sequence[tuple[int, Ask]]], Sequence[Answer | None]]
RunAll = Callable[[Sequence[Program]], Sequence[Report]]
ValueAll = Callable[[Sequence[Value]], Sequence[Valued]]


def no_critic(wanted: Sequence[Value]) -> Sequence[Valued]:
    """What `drive` has where strategies value no program."""
    raise ValueError(f"nobody values programs, and {len(wanted)} are to be valued")


def drive(
    strategies: Sequence[Strategy[T]],
    ask: AskAll,
    run: RunAll,
    value: ValueAll = no_critic,
) -> list[T]:
    """What each strategy returns.

    In turns all that wait for the model are one call of `ask`, all that wait for the judge
    one of `run`, and all that wait for the critic one of `value`.
    """
    found: dict[int, T] = {}
    waiting: dict[int, Request | list[Request]] = {}

    def move_on(place: int, reply: Any) -> None:
        try:
            wanted = strategies[place].send(reply)
            while wanted == []:
                wanted = strategies[place].send([])
            waiting[place] = wanted
        except StopIteration as stop:
            waiting.pop(place, None)
            found[place] = stop.value

    def take(kind: type[Request]) -> list[tuple[int, Any]]:
        """All requests of a kind, with the numbers of their strategies."""
        return [
            (place, each)
            for place, wanted in waiting.items()
            for each in (wanted if isinstance(wanted, list) else [wanted])
            if isinstance(each, kind)
        ]

    def give(asked: Sequence[tuple[int, Any]], replies: Sequence[Any]) -> None:
        told: dict[int, list[Any]] = {}
        for (place, _), reply in zip(asked, replies, strict=True):
            told.setdefault(place, []).append(reply)
        for place, each in told.items():
            move_on(place, each if isinstance(waiting[place], list) else each[0])

    for place in range(len(strategies)):
        move_on(place, None)
    while waiting:
        if asked := take(Ask):
            give(asked, ask(asked))
        if runs := take(Run):
            give(runs, run([each.program for _, each in runs]))
        if values := take(Value):
            give(values, value([each for _, each in values]))
    return [found[place] for place in range(len(strategies))]
