"""Several hosts in one process: a thread is a host, and `exchange` brings them together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from stepcoder_jax.devices import gathers


def on_hosts(
    monkeypatch: pytest.MonkeyPatch, count: int, work: Callable[[int], Any]
) -> tuple[list[Any], int]:
    """What `work(host)` gives on each of `count` hosts, and how many gathers it took."""
    mine, meeting = threading.local(), threading.Barrier(count)
    sent: list[np.ndarray] = [np.zeros(0, np.uint8)] * count
    found: list[Any] = [None] * count
    gathered = [0] * count

    def exchange(data: np.ndarray) -> np.ndarray:
        assert data.dtype == np.uint8 and data.ndim == 1
        sent[mine.host] = data
        gathered[mine.host] += 1
        meeting.wait(60)
        rows = np.stack(sent)  # raises where they differ in length, as a program would
        meeting.wait(60)
        return rows

    def run(host: int) -> None:
        mine.host = host
        try:
            found[host] = work(host)
        except BaseException as error:
            found[host] = error
            meeting.abort()

    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: count)
        patch.setattr(jax, "process_index", lambda: getattr(mine, "host", 0))
        patch.setattr(gathers, "exchange", exchange)
        patch.setattr(multihost_utils, "sync_global_devices", lambda name: meeting.wait(60))
        threads = [threading.Thread(target=run, args=(host,)) for host in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    errors = [each for each in found if isinstance(each, BaseException)]
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    if errors:
        raise errors[0]
    assert len(set(gathered)) == 1
    return found, gathered[0]
