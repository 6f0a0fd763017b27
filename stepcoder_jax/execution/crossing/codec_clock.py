"""CPU time that a child spends on our codec, which is not the program's own.

It stands in memory that the child shares with the worker, which waits so much longer.
The program could write there: so no more is believed than MOST_SECONDS of a test.
"""

from __future__ import annotations

import mmap
import struct
import time

MOST_SECONDS = 2.0
_FORM = struct.Struct("=dd")  # seconds that are over; when the present work began, or 0
SIZE = _FORM.size


class CodecClock:
    """Entered around each piece of the codec's work; the last SIZE bytes are its own."""

    def __init__(self, shared: mmap.mmap) -> None:
        self.shared = shared
        self.place = len(shared) - SIZE
        self.seconds = 0.0
        self.began = 0.0

    def __enter__(self) -> None:
        self.began = time.process_time()
        _FORM.pack_into(self.shared, self.place, self.seconds, self.began)

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self.began
        _FORM.pack_into(self.shared, self.place, self.seconds, 0.0)


def seconds_in(shared: mmap.mmap, now: float) -> float:
    """What the clock in `shared` says, when the child has used `now` seconds of CPU."""
    seconds, began = _FORM.unpack_from(shared, len(shared) - SIZE)
    if 0 < began <= now:
        seconds += now - began
    return min(seconds, MOST_SECONDS) if seconds > 0 else 0.0
