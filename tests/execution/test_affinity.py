"""Workers that have a processor of their own, claimed from other judges."""

import os
import subprocess
import sys
import threading

import pytest

from stepcoder_jax.execution import Pool, PoolSettings
from stepcoder_jax.execution.pool import affinity
from stepcoder_jax.records import Mode, Problem, Program, TestCase

ALLOWED = set(sorted(os.sched_getaffinity(0))[:2])  # few, whatever the machine has
CLAIM = """
import sys
from stepcoder_jax.execution.pool import affinity
affinity._SIGN = chr(0) + sys.argv[1]
processors = affinity.Processors()
for slot in range(int(sys.argv[2])):
    processors.pin(slot)
print(len(processors._claims), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def few_processors():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALLOWED)
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(autouse=True)
def own_signs(monkeypatch, request):
    """Other tests' pools hold claims of their own meanwhile."""
    sign = f"stepcoder_jax/test/{os.getpid()}/{request.node.name}/"
    monkeypatch.setattr(affinity, "_SIGN", "\0" + sign)
    return sign


def masks_of(pool):
    return [os.sched_getaffinity(pid) for pid in pool.pids]


def test_each_worker_has_one_processor_and_all_that_it_starts_too():
    source = "import os\nprint(len(os.sched_getaffinity(0)))\n"
    problem = Problem("p", "", "", source, None, Mode.STDIN_MAIN, (TestCase("", "1"),), "-")
    settings = PoolSettings(workers=len(ALLOWED), coverage="none")
    with Pool(settings) as pool:
        masks = masks_of(pool)
        assert all(len(mask) == 1 for mask in masks)
        assert masks[::2] == masks[1::2]  # a worker and its process for test code
        assert set.union(*masks) == ALLOWED
        assert pool.run([Program(problem, source, 0, ())])[0].passed
    assert os.sched_getaffinity(0) == ALLOWED  # of the thread that uses the pool


def test_a_replaced_worker_stays_on_its_processor():
    problem = Problem("p", "", "", "", None, Mode.STDIN_MAIN, (TestCase("", "1"),), "-")
    with Pool(PoolSettings(workers=1, coverage="none")) as pool:
        before, pids = masks_of(pool), pool.pids
        pool._workers[0].kill()
        assert pool.run([Program(problem, "print(1)", 0, ())])[0].passed
        assert pool.pids != pids and masks_of(pool) == before


def test_workers_without_a_claim_run_anywhere():
    with Pool(PoolSettings(workers=len(ALLOWED) + 1, coverage="none")) as pool:
        masks = masks_of(pool)[::2]
        assert sorted(map(len, masks)) == [1] * len(ALLOWED) + [len(ALLOWED)]


def test_a_processor_belongs_to_one_judge_until_it_closes():
    settings = PoolSettings(workers=len(ALLOWED), coverage="none")
    with Pool(settings), Pool(settings) as second:
        assert masks_of(second) == [ALLOWED] * 2 * len(ALLOWED)
    with Pool(settings) as third:
        assert all(len(mask) == 1 for mask in masks_of(third))


def test_a_killed_judge_leaves_its_processors_free(own_signs):
    command = [sys.executable, "-c", CLAIM, own_signs, str(len(ALLOWED))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen(command, text=True, **pipes)
    assert int(other.stdout.readline()) == len(ALLOWED)
    assert affinity.Processors()._claim() is None
    other.kill()
    other.communicate()
    found = affinity.Processors()._claim()
    assert found is not None
    found[1].close()


def test_a_processor_that_was_taken_away_is_no_error(monkeypatch):
    def refuse(pid, mask):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    processors = affinity.Processors()
    processors.pin(0)
    assert set(processors._claims) == {0}  # and the claim holds
    processors.release()


def test_threads_claim_different_processors():
    processors, seen = affinity.Processors(), []

    def pin(slot):
        processors.pin(slot)
        seen.append(frozenset(os.sched_getaffinity(0)))

    threads = [threading.Thread(target=pin, args=(slot,)) for slot in range(len(ALLOWED))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    processors.release()
    assert frozenset.union(*seen) == ALLOWED and len(set(seen)) == len(ALLOWED)
