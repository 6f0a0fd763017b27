"""What several benchmarks do alike: to time, to run apart, to print Markdown."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Append the wall clock's seconds of the block to `seconds`."""
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)


def spread(values: Sequence[float], low: float, high: float) -> str:
    """The median of `values`, with what stands for its interval behind it."""
    return f"{statistics.median(values):.2f} ({low:.2f} to {high:.2f})"


def machine() -> str:
    """What the figures of a busy machine are to be read by."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def use_one_processor() -> None:
    """Keep this process, and all that it starts, on one processor."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def answer_of(command: Sequence[str]) -> Any:
    """The JSON in the last line that a program of its own prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_row(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def print_head(*names: str) -> None:
    """The first two lines of a table."""
    print_row(*names)
    print("|" + "---|" * len(names), flush=True)
