"""Ctrl-C as a question to a loop, which ends where it can save."""

from __future__ import annotations

import signal
import sys
from typing import Any


class Interrupt:
    """Ctrl-C asks the loop to stop after the iteration; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        self.former = signal.signal(signal.SIGINT, self.ask)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self.former)

    def ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this iteration (Ctrl-C again: at once)", file=sys.stderr)
