"""The stream for programs that run in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterable

from stepcoder_jax.execution.pool.streams import Answer, Submit, Ticket, unpack
from stepcoder_jax.records import Program, Report


async def stream_async(
    submit: Submit, programs: Iterable[Program] | AsyncIterable[Program], window: int
) -> AsyncGenerator[tuple[int, Report], None]:
    """As streams.stream, without holding up the loop.

    An async iterable is waited for beside the reports; a plain one is read in threads, one
    program at a time.
    """
    loop = asyncio.get_running_loop()
    answers: asyncio.Queue[Answer | None] = asyncio.Queue()

    def deliver(answer: Answer) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody reads
            loop.call_soon_threadsafe(answers.put_nowait, answer)

    ticket, room = Ticket(deliver), asyncio.Semaphore(window - 1)
    submitted = 0

    async def feed() -> None:
        """Submit while there is room; None behind the last one."""
        nonlocal submitted
        async with contextlib.aclosing(_programs(programs)) as source:
            async for program in source:
                await asyncio.to_thread(submit, ticket, submitted, program)
                submitted += 1
                await room.acquire()  # before the next is asked for
        answers.put_nowait(None)

    feeder = asyncio.create_task(feed())
    feeder.add_done_callback(lambda task: _pass_on(task, answers))
    answered, is_fed = 0, False
    try:
        while not is_fed or answered < submitted:
            answer = await answers.get()
            if answer is None:
                is_fed = True
                continue
            yield unpack(answer)
            answered += 1
            room.release()
    finally:
        ticket.cancelled = True
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


def _pass_on(task: asyncio.Task[None], answers: asyncio.Queue[Answer | None]) -> None:
    """Let the reader raise what the source or the check of a problem raised."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception):
        answers.put_nowait((-1, error))


async def _programs(
    programs: Iterable[Program] | AsyncIterable[Program],
) -> AsyncGenerator[Program, None]:
    if isinstance(programs, AsyncIterable):
        async for program in programs:
            yield program
        return
    iterator = iter(programs)
    while (program_or_end := await asyncio.to_thread(next, iterator, None)) is not None:
        yield program_or_end
