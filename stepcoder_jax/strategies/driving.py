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


Strategy = Generator[Ask | Run, Any, T]
# The number of the strategy and what it asks for -> a reply each, in the same order.
AskAll = Callable[[Sequence[tuple[int, Ask]]], Sequence[Answer | None]]
RunAll = Callable[[Sequence[Program]], Sequence[Report]]


def drive(strategies: Sequence[Strategy[T]], ask: AskAll, run: RunAll) -> list[T]:
    """What each strategy returns.

    In turns all that wait for the model are one call of `ask`, and all that wait for the
    judge one of `run`.
    """
    found: dict[int, T] = {}
    waiting: dict[int, Ask | Run] = {}

    def move_on(place: int, reply: Any) -> None:
        try:
            waiting[place] = strategies[place].send(reply)
        except StopIteration as stop:
            waiting.pop(place, None)
            found[place] = stop.value

    for place in range(len(strategies)):
        move_on(place, None)
    while waiting:
        asked = [(i, each) for i, each in waiting.items() if isinstance(each, Ask)]
        if asked:
            for (place, _), answer in zip(asked, ask(asked), strict=True):
                move_on(place, answer)
        runs = [(i, each.program) for i, each in waiting.items() if isinstance(each, Run)]
        if runs:
            reports = run([program for _, program in runs])
            for (place, _), report in zip(runs, reports, strict=True):
                move_on(place, report)
    return [found[place] for place in range(len(strategies))]
