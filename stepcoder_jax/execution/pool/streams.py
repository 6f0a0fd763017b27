"""Programs in, reports out as they end, with few programs ahead of the workers."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Callable, Iterable, Iterator

from stepcoder_jax.records import Program, Report

Answer = tuple[int, Report | Exception]


@dataclasses.dataclass
class Ticket:
    """One stream: where its reports go, and whether they are still wanted.

    `deliver` is called by the workers' threads, with a report or with what the reader of
    the stream is to raise.
    """

    deliver: Callable[[Answer], None]
    cancelled: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
    """A program on its way to a worker; `key` is its cache key, None for no cache."""

    index: int
    program: Program
    ticket: Ticket
    key: bytes | None


Submit = Callable[[Ticket, int, Program], None]


def stream(
    submit: Submit, programs: Iterable[Program], window: int
) -> Iterator[tuple[int, Report]]:
    """Yield (index, report) as each program ends, at most `window` of them under way.

    A program is taken from `programs` when there is room for it, in the reader's thread.
    """
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    ticket = Ticket(answers.put)
    pending = 0
    try:
        for index, program in enumerate(programs):
            submit(ticket, index, program)
            pending += 1
            while pending == window or (pending and not answers.empty()):
                yield unpack(answers.get())
                pending -= 1
        for _ in range(pending):
            yield unpack(answers.get())
    finally:
        ticket.cancelled = True


def unpack(answer: Answer) -> tuple[int, Report]:
    """The index and the report; raises what came in place of a report."""
    index, report = answer
    if isinstance(report, Exception):
        raise report
    return index, report
