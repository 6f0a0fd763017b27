"""Processes on one machine share its cores."""

from __future__ import annotations

import os

import numpy as np
import pytest

from stepcoder_jax.config import ExecutionConfig
from stepcoder_jax.runs.shares.cores import pool_settings, share_of_cores
from tests.hosts_kit import on_hosts


def shares(*hosts):
    """Cores of each (machine, cores that it may run on)."""
    machines = np.array([[ord(name)] for name, _ in hosts], np.uint8)
    masks = np.zeros((len(hosts), 64), bool)
    for row, (_, cores) in enumerate(hosts):
        masks[row, list(cores)] = True
    return [share_of_cores(host, machines, masks) for host in range(len(hosts))]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([("a", range(8))], [8]),
        ([("a", range(8))] * 4, [2, 2, 2, 2]),
        ([("a", range(8))] * 3, [2, 2, 2]),
        ([("a", range(2))] * 8, [1] * 8),  # never none
        ([("a", range(8)), ("b", range(8)), ("b", range(8))], [8, 4, 4]),
        # a launcher has split them: nothing is left to be divided
        ([("a", range(4)), ("a", range(4, 8))], [4, 4]),
        ([("a", range(6)), ("a", range(4, 8))], [5, 3]),
    ],
)
def test_cores_are_divided_by_the_processes_that_share_them(hosts, expected):
    assert shares(*hosts) == expected


def test_workers_are_this_machines_cores_over_the_processes_on_it(monkeypatch):
    def count(workers, hosts=2):
        execution = ExecutionConfig(workers=workers)
        work = lambda host: pool_settings(execution, coverage="none")  # noqa: E731
        found, gathers = on_hosts(monkeypatch, hosts, work)
        assert all(settings.coverage == "none" for settings in found)
        return [settings.worker_count for settings in found], gathers

    cores = len(os.sched_getaffinity(0))
    assert count(0) == ([max(1, cores // 2)] * 2, 1)
    assert count(3) == ([3, 3], 0)  # as asked
    assert pool_settings(ExecutionConfig()).worker_count == cores
