"""The battery under load, as an ordinary user, and what a worker is like after long use."""

import os
import pathlib
import pickle
import subprocess

import pytest

from stepcoder_jax.execution import Pool
from tests.execution.battery import CASES
from tests.execution.kit import (
    find_interpreter,
    make_program,
    make_settings,
    read_hostile,
    wrong_verdicts,
)
from tests.execution.test_battery import check

ROOT = pathlib.Path(__file__).parents[2]
NOBODY = 65_534
INTERPRETERS = ("", "python3.12")
SYSTEM_PYTHON = "/usr/bin/python3"
ORDINARY_USER = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
from stepcoder_jax.execution import Pool
settings, programs = pickle.load(sys.stdin.buffer)
with Pool(settings) as pool:
    pickle.dump((pool.layers["uid"], pool.run(programs)), sys.stdout.buffer)
"""


def all_programs():
    """Our cases and, behind them, the shared ones; a skip where those are absent."""
    return [case.program for case in CASES] + read_hostile()[1]


def check_all(reports):
    """Reports on `all_programs`."""
    for case, report in zip(CASES, reports):
        check(case, report)
    rows, _ = read_hostile()
    assert not wrong_verdicts(rows, reports[len(CASES) :])


def ordinary(count):
    """Programs of a few kinds that all pass."""
    kinds = [
        make_program("print(int(input()) + 1)\n", ("2\n", "3\n")),
        make_program("import math\nprint(math.comb(10, 2))\n", ("", "45\n")),
        make_program("x = [i * i for i in range(1000)]\nprint(x[-1])\n", ("", "998001\n")),
    ]
    return (kinds * (count // len(kinds) + 1))[:count]


def run_as_nobody(command, **options):
    options |= {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
    return subprocess.run(command, check=True, **options)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="the ordinary suite has done it")
@pytest.mark.parametrize("name", [SYSTEM_PYTHON, "python3.12"])
def test_as_an_ordinary_user(name):
    imports = ORDINARY_USER.split("settings", maxsplit=1)[0]
    python = find_interpreter(name)
    for each in (SYSTEM_PYTHON, python):
        try:
            run_as_nobody([each, "-c", imports, str(ROOT)], stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip(f"{each} as an ordinary user cannot import {ROOT}")
    job = pickle.dumps((make_settings(python=python), all_programs()))
    command = [SYSTEM_PYTHON, "-c", ORDINARY_USER, str(ROOT)]
    done = run_as_nobody(command, input=job, stdout=subprocess.PIPE)
    identity, reports = pickle.loads(done.stdout)
    assert identity == "an ordinary user's"
    check_all(reports)


@pytest.mark.slow
@pytest.mark.parametrize("name", INTERPRETERS)
def test_oversubscribed(name):
    workers = 6 * len(os.sched_getaffinity(0))
    with Pool(make_settings(workers=workers, python=find_interpreter(name))) as pool:
        check_all(pool.run(all_programs()))


@pytest.mark.slow
@pytest.mark.parametrize("name", INTERPRETERS)
def test_after_ten_thousand_programs_in_one_worker(name):
    with Pool(make_settings(workers=1, python=find_interpreter(name))) as pool:
        (pid,) = pids(pool)
        assert all(report.passed for _, report in pool.stream(ordinary(10_000)))
        check_all(pool.run(all_programs()))
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
