"""The semaphores of programs beside those of `multiprocessing`, call by call."""

import _multiprocessing
import threading
import time

import pytest

from stepcoder_jax.execution.worker.semaphores import SemLock

SCRIPTS = {
    "lock": (1, 1, 1, "acquire try release release"),
    "recursive lock": (0, 1, 1, "acquire acquire try release release release release"),
    "recursive lock, timed": (0, 1, 1, "timed timed release"),
    "semaphore": (1, 2, 2, "try try try timed late release release release"),
    "semaphore at zero": (1, 0, 9, "try late release try"),
    "released before it is taken": (1, 1, 3, "release release release try"),
    "bad kind": (2, 1, 1, ""),
    "bad value": (1, -1, 1, ""),
    "more than the most": (1, 2, 1, "release try release"),
    "with": (1, 1, 1, "enter exit enter"),
}
CALLS = {
    "acquire": lambda s: s.acquire(),
    "try": lambda s: s.acquire(False),
    "timed": lambda s: s.acquire(True, 0.01),
    "late": lambda s: s.acquire(timeout=-1),
    "release": lambda s: s.release(),
    "enter": lambda s: s.__enter__(),
    "exit": lambda s: s.__exit__(None, None, None),
}


def transcript(kind, steps, value, most, make):
    """What each call returned or raised, and the state behind it."""
    seen = []
    try:
        lock = make(kind, value, most, f"/stepcoder-{threading.get_native_id()}", True)
    except (ValueError, OSError) as error:
        return [str(error)]
    for step in steps.split():
        try:
            seen.append((step, CALLS[step](lock)))
        except (AssertionError, ValueError) as error:
            seen.append((step, type(error), str(error)))
        state = (lock._count(), lock._is_mine(), lock._get_value(), lock._is_zero())
        seen.append(state)
    return [*seen, lock.name, lock.kind, lock.maxvalue]


@pytest.mark.parametrize("name", SCRIPTS)
def test_they_do_what_those_of_multiprocessing_do(name):
    kind, value, most, steps = SCRIPTS[name]
    ours = transcript(kind, steps, value, most, SemLock)
    assert ours == transcript(kind, steps, value, most, _multiprocessing.SemLock)
    assert SemLock.SEM_VALUE_MAX == _multiprocessing.SemLock.SEM_VALUE_MAX


def test_threads_take_turns():
    lock, inside, most = SemLock(1, 2, 2, "", True), 0, 0

    def work():
        nonlocal inside, most
        for _ in range(20):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0.0001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, lock._get_value()) == (2, 2)


def test_a_wait_that_ends_takes_nothing_with_it():
    lock = SemLock(1, 0, 1, "", True)
    assert not lock.acquire(True, 0.02)
    lock.release()
    assert lock.acquire(False)
    taken = []
    waiter = threading.Thread(target=lambda: taken.append(lock.acquire(True, 5)))
    waiter.start()
    time.sleep(0.02)
    lock.release()  # to the one that waits
    waiter.join()
    assert taken == [True] and not lock.acquire(False)


def test_only_the_owner_gives_a_recursive_lock_back():
    lock, errors = SemLock(0, 1, 1, "", True), []
    lock.acquire()

    def release():
        with pytest.raises(AssertionError, match="not owned by thread"):
            lock.release()
        errors.append(lock.acquire(False))

    thread = threading.Thread(target=release)
    thread.start()
    thread.join()
    assert errors == [False]
