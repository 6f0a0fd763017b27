"""The battery under load, as an ordinary user, and what a worker is like after long use."""

import os
import pathlib
import pickle
import subprocess

import pytest
from battery import CASES
from execution_kit import make_program, make_settings
from test_battery import check

from stepcoder_jax.execution import Pool

ROOT = pathlib.Path(__file__).parents[1]
NOBODY = 65_534
SYSTEM_PYTHON = "/usr/bin/python3"
ORDINARY_USER = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
from stepcoder_jax.execution import Pool
settings, programs = pickle.load(sys.stdin.buffer)
with Pool(settings) as pool:
    pickle.dump((pool.layers["uid"], pool.run(programs)), sys.stdout.buffer)
"""


def check_all(reports):
    for case, report in zip(CASES, reports, strict=True):
        check(case, report)


def ordinary(count):
    """Programs of a few kinds that all pass."""
    kinds = [
        make_program("print(int(input()) + 1)\n", ("2\n", "3\n")),
        make_program("import math\nprint(math.comb(10, 2))\n", ("", "45\n")),
        make_program("x = [i * i for i in range(1000)]\nprint(x[-1])\n", ("", "998001\n")),
    ]
    return (kinds * (count // len(kinds) + 1))[:count]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="the ordinary suite has done it")
def test_as_an_ordinary_user():
    works = subprocess.run(
        [SYSTEM_PYTHON, "-c", ORDINARY_USER.split("settings", maxsplit=1)[0], str(ROOT)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if works.returncode:
        pytest.skip(f"{SYSTEM_PYTHON} as an ordinary user cannot import {ROOT}")
    settings = make_settings(python=SYSTEM_PYTHON)
    job = pickle.dumps((settings, [case.program for case in CASES]))
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", ORDINARY_USER, str(ROOT)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        input=job,
        stdout=subprocess.PIPE,
        check=True,
    )
    identity, reports = pickle.loads(done.stdout)
    assert identity == "an ordinary user's"
    check_all(reports)


@pytest.mark.slow
def test_oversubscribed():
    workers = 6 * len(os.sched_getaffinity(0))
    with Pool(make_settings(workers=workers)) as pool:
        check_all(pool.run([case.program for case in CASES]))


@pytest.mark.slow
def test_after_ten_thousand_programs_in_one_worker():
    with Pool(make_settings(workers=1)) as pool:
        (pid,) = pids(pool)
        assert all(report.passed for _, report in pool.stream(ordinary(10_000)))
        check_all(pool.run([case.program for case in CASES]))
        assert pids(pool) == [pid]


def pids(pool):
    return [worker.process.pid for worker in pool._workers if worker is not None]


def usage(pid):
    """(open descriptors, resident bytes) of a process."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return len(os.listdir(f"/proc/{pid}/fd")), pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_twenty_thousand_programs_leave_descriptors_and_memory_as_they_were():
    with Pool(make_settings()) as pool:
        processes = [os.getpid(), *pids(pool)]
        for _ in pool.stream(ordinary(1000)):
            pass
        before = [usage(pid) for pid in processes]
        assert all(report.passed for _, report in pool.stream(ordinary(20_000)))
        after = [usage(pid) for pid in processes]
        assert [os.getpid(), *pids(pool)] == processes
    for (old_files, old_bytes), (files, size) in zip(before, after):
        assert files == old_files
        assert size - old_bytes < 8 << 20
