"""Event loops that end what they began before they close.

Orbax reads arrays side by side in a loop of its own, and closes it once one of them cannot
be read. The others then come back to a closed loop, and each prints "Event loop is closed"
with a traceback, whenever it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class EndingLoop(asyncio.SelectorEventLoop):
    """A loop whose `close` waits for the tasks that are left in it."""

    def close(self) -> None:
        if not self.is_closed() and (left := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        super().close()


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return EndingLoop()


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """New event loops are such ones. For one thread at a time: the setting is Python's."""
    former = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_Policy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(former)
