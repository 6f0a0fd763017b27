"""Event loops that end what they began before they close.

Orbax reads arrays side by side in a loop of its own, and closes it once one of them cannot
be read. The others then come back to a closed loop, and each prints "Event loop is closed"
with a traceback, whenever it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import uvloop


class _Ending:
    """`close` waits for the tasks that are left."""

    def close(self: Any) -> None:
        if not self.is_closed() and (left := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        super().close()  # type: ignore[misc]


class EndingLoop(_Ending, asyncio.SelectorEventLoop):
    """Such a loop of Python's."""


class EndingUVLoop(_Ending, uvloop.Loop):  # type: ignore[misc]
    """Such a loop of uvloop's, which Orbax takes within another loop."""


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return EndingLoop()


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """New event loops are such ones. For one thread at a time: the setting is Python's."""
    policy, new_loop = asyncio.get_event_loop_policy(), uvloop.new_event_loop
    asyncio.set_event_loop_policy(_Policy())
    uvloop.new_event_loop = EndingUVLoop  # Orbax asks for no policy here
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(policy)
        uvloop.new_event_loop = new_loop
