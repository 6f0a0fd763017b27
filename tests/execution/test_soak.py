"""Workers that are killed again and again, and more workers than cores."""

import os
import random
import threading
import time

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.records import Verdict
from tests.execution.kit import make_program, make_settings

KINDS = (
    ("print({i})", Verdict.PASS),
    ("print(-{i} - 1)", Verdict.WRONG),
    ("raise KeyError({i})", Verdict.RUNTIME),
    ("def f(:  # {i}", Verdict.COMPILE),
    ("print({i}); x = sum(range(100_000))", Verdict.PASS),
)


def mixed(count):
    """Programs, each unlike all others, and their verdicts."""
    for i in range(count):
        source, verdict = KINDS[i % len(KINDS)]
        yield make_program(source.format(i=i), ("", str(i))), verdict


def descendants():
    """The processes under this one: workers, and the tests that they run."""
    found, todo = set(), [os.getpid()]
    while todo:
        pid = todo.pop()
        for thread in _listed(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    children = [int(word) for word in file.read().split()]
            except OSError:
                continue
            found.update(children)
            todo += children
    return found


def _listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def kill_workers(pool, times, progress, total, rng):
    """SIGKILL a random worker at `times` moments spread over the programs."""
    for number in range(times):
        while progress[0] < total * number // (times + 1):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        while not (alive := [worker for worker in pool._workers if worker is not None]):
            time.sleep(0.001)
        os.kill(rng.choice(alive).process.pid, 9)


@pytest.mark.parametrize(
    ("kills", "count"),
    [(10, 200), pytest.param(200, 5000, marks=pytest.mark.slow)],
    ids=["quick", "soak"],
)
def test_no_verdict_is_lost_doubled_or_wrong(kills, count):
    before = descendants()
    descriptors = len(os.listdir("/proc/self/fd"))
    wanted, seen, progress = [], {}, [0]

    def programs():
        for program, verdict in mixed(count):
            wanted.append(verdict)
            yield program

    with Pool(make_settings(cpu_seconds=6.0)) as pool:
        open_in_use = len(os.listdir("/proc/self/fd"))
        killer = threading.Thread(
            target=kill_workers, args=(pool, kills, progress, count, random.Random(0))
        )
        killer.start()
        for index, report in pool.stream(programs()):
            assert index not in seen
            seen[index] = report.verdict
            progress[0] += 1
        killer.join()
        assert pool.run([program for program, _ in mixed(1)])[0].passed
        numbers = pool.metrics()
        # the last victims may lie unreplaced: they have no descriptors
        assert len(os.listdir("/proc/self/fd")) <= open_in_use
    assert sorted(seen) == list(range(count))
    infra = [i for i in seen if seen[i] is Verdict.INFRA]
    assert [i for i in seen if seen[i] is not wanted[i] and i not in infra] == []
    # a program is given up only when two kills met it
    assert len(infra) <= kills // 10, f"{len(infra)} programs were hit twice"
    # some are hit while they lie dead, and the last victims are not missed
    assert 0.8 * kills <= numbers["restarts"] <= kills
    assert numbers["retries"] >= len(infra) and numbers["verdict/infra"] == len(infra)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert descendants() == before
    print(f"{kills} kills: {numbers['retries']:.0f} retries, {len(infra)} given up")


@pytest.mark.long
def test_verdicts_are_the_same_with_six_workers_to_a_core():
    """CPU limits are of CPU time: a crowd makes programs slow but not wrong."""
    crowd = 6 * len(os.sched_getaffinity(0))
    spin = "import time\nwhile time.process_time() < {seconds}: pass\nprint({i})"
    programs = [
        make_program(
            spin.format(seconds=0.15 if i % 3 else 60, i=i), ("", str(i)), cpu_seconds=0.5
        )
        for i in range(2 * crowd)
    ]
    wanted = [Verdict.PASS if i % 3 else Verdict.TIMEOUT for i in range(2 * crowd)]
    with Pool(make_settings(workers=crowd)) as pool:
        assert [report.verdict for report in pool.run(programs)] == wanted
