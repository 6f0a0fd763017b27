"""The pool as a machine: back-pressure, many readers, the event loop, its numbers."""

import asyncio
import contextlib
import math
import os
import time
from concurrent import futures

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.execution.pool.metrics import percentile
from stepcoder_jax.records import Mode, Verdict
from tests.execution.kit import make_program, make_settings

CACHE = 100


@pytest.fixture(scope="module")
def pool():
    with Pool(make_settings()) as pool:
        yield pool


def squares(count, first=0):
    """Programs that pass but for every fifth, which is wrong."""
    for i in range(first, first + count):
        yield make_program(f"print({i} ** 2)", ("", str(i * i if i % 5 else -1)))


def expected(index):
    return Verdict.PASS if index % 5 else Verdict.WRONG


class Counting:
    """An iterable that knows how many programs it gave away."""

    def __init__(self, programs):
        self.programs, self.taken, self.closed = programs, 0, False

    def __iter__(self):
        try:
            for program in self.programs:
                self.taken += 1
                yield program
        finally:
            self.closed = True


# bounded queues


def test_a_generator_is_read_only_as_far_as_there_is_room(pool):
    source = Counting(squares(10**9))
    stream = pool.stream(iter(source))
    seen = {}
    for _ in range(30):
        index, report = next(stream)
        seen[index] = report.verdict
        assert source.taken - len(seen) <= 8  # four for each worker
        assert pool.metrics()["queue"] <= 8
    assert source.taken > 31  # and not one by one either
    assert seen == {index: expected(index) for index in seen}
    stream.close()
    assert source.taken < 40


def test_nothing_is_taken_before_it_is_asked_for(pool):
    source = Counting(squares(3))
    stream = pool.stream(iter(source))
    assert source.taken == 0
    assert {i: r.verdict for i, r in stream} == {i: expected(i) for i in range(3)}
    assert list(pool.stream([])) == [] == list(pool.stream(iter([])))


def test_reports_are_not_held_back_by_a_slow_source(pool):
    """The first report is out before the window is full."""

    def slow():
        for program in squares(6):
            time.sleep(0.15)
            yield program

    started = time.monotonic()
    stream = pool.stream(slow())
    next(stream)
    assert time.monotonic() - started < 0.75
    assert len(list(stream)) == 5


def test_a_bad_problem_of_a_generator_is_raised_when_it_is_met(pool):
    stream = pool.stream(iter([*squares(3), make_program("x", name="empty")]))
    with pytest.raises(ValueError, match="'empty' has no tests"):
        list(stream)
    ran = []
    with pytest.raises(ValueError, match="'empty' has no tests"):
        for index, _ in pool.stream([*squares(20), make_program("x", name="empty")]):
            ran.append(index)
    assert ran == []


def test_what_the_source_raises_reaches_the_reader(pool):
    def broken():
        yield from squares(2)
        raise KeyError("the source")

    with pytest.raises(KeyError, match="the source"):
        list(pool.stream(broken()))
    assert pool.run(list(squares(1)))[0].verdict is expected(0)


def test_many_threads_share_one_pool(pool):
    def read(first):
        programs = squares(25, first)
        return {first + i: report for i, report in pool.stream(programs)}

    with futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(read, range(0, 400, 100)))
    for first, reports in zip(range(0, 400, 100), found):
        assert len(reports) == 25
        for number, report in reports.items():
            assert report.verdict is expected(number)
            assert report.tests[0].stdout == f"{number**2}\n", first


def test_closing_the_pool_ends_every_reader():
    programs = [make_program("import time; time.sleep(30)", ("", ""))] * 9
    with Pool(make_settings(cpu_seconds=10.0)) as pool, futures.ThreadPoolExecutor(3) as t:
        readers = [t.submit(pool.run, programs) for _ in range(3)]
        while pool.metrics()["busy"] < 2:
            time.sleep(0.01)
        pool.close()
        for reader in readers:
            with pytest.raises(RuntimeError, match="closed"):
                reader.result(timeout=10)


# in an event loop


async def ticking(task):
    """Await the task; also the longest time that the loop stood still meanwhile."""
    longest = 0.0
    while not task.done():
        before = time.monotonic()
        await asyncio.sleep(0.005)
        longest = max(longest, time.monotonic() - before)
    return await task, longest


async def gather(stream):
    return {index: report.verdict async for index, report in stream}


async def slowly(programs):
    for program in programs:
        await asyncio.sleep(0.001)
        yield program


@pytest.mark.parametrize("form", [list, iter, slowly], ids=["list", "iter", "async"])
def test_async_for_gives_what_for_gives(pool, form):
    found = asyncio.run(gather(pool.stream_async(form(list(squares(20))))))
    assert found == {index: expected(index) for index in range(20)}


def test_the_event_loop_goes_on(pool):
    def source():
        for i in range(3):
            time.sleep(0.4)  # as one that decodes would
            yield make_program(f"x = {i}\nfor i in range(10**6): pass", ("", ""))

    async def judge():
        task = asyncio.create_task(gather(pool.stream_async(source())))
        return await ticking(task)

    verdicts, longest = asyncio.run(judge())
    assert list(verdicts.values()) == [Verdict.PASS] * 3
    assert longest < 0.35


def test_an_async_reader_that_leaves_drops_the_rest(pool):
    source = Counting(squares(10**9))

    async def judge():
        async with contextlib.aclosing(pool.stream_async(slowly(source))) as stream:
            async for _ in stream:
                await asyncio.sleep(0.3)  # time enough to fill all room
                assert 8 <= source.taken <= 9
                break

    asyncio.run(judge())
    assert source.taken <= 9
    assert pool.run(list(squares(1)))[0].verdict is expected(0)


def test_errors_reach_the_async_reader(pool):
    bad = [*squares(2), make_program("x", name="empty")]
    with pytest.raises(ValueError, match="'empty' has no tests"):
        asyncio.run(gather(pool.stream_async(bad)))
    with pytest.raises(ValueError, match="'empty' has no tests"):
        asyncio.run(gather(pool.stream_async(slowly(bad))))

    async def broken():
        yield next(squares(1))
        raise KeyError("the source")

    with pytest.raises(KeyError, match="the source"):
        asyncio.run(gather(pool.stream_async(broken())))


# the cache in the pool


def runs(pool):
    """A function that judges programs and says how many were really run."""

    def judge(programs):
        before = pool.metrics()
        reports = pool.run(programs)
        after = pool.metrics()
        told = after["programs"] - before["programs"]
        assert told == len(programs)
        return reports, told - (after["cache_hits"] - before["cache_hits"])

    return judge


def test_equal_programs_are_run_once():
    source = "import os\nprint(os.getpid(), input())"
    other_test = make_program(source, ("2", ""))
    with Pool(make_settings(cache_size=CACHE)) as pool:
        judge = runs(pool)
        reports, ran = judge([make_program(source, ("1", "")) for _ in range(40)])
        assert ran == 1 and len(set(reports)) == 1
        again, ran = judge([make_program(source, ("1", ""))])
        assert ran == 0 and again[0] == reports[0]
        assert judge([other_test, make_program(source + " ", ("1", ""))])[1] == 2
    with Pool(make_settings()) as pool:
        reports, ran = runs(pool)([make_program(source, ("1", ""))] * 4)
        assert ran == 4


def test_the_least_recently_used_report_is_forgotten():
    one, two, three = squares(3)
    with Pool(make_settings(workers=1, cache_size=2)) as pool:
        judge = runs(pool)
        assert judge([one, two])[1] == 2
        assert judge([one])[1] == 0
        assert judge([three])[1] == 1  # puts two out, which was not asked for again
        assert judge([one])[1] == 0
        assert judge([two])[1] == 1


def test_a_wall_timeout_is_run_again_and_a_cpu_timeout_is_not():
    sleeps = make_program("import time; time.sleep(60)", ("", ""), cpu_seconds=0.05)
    spins = make_program("while True: pass", ("", ""), cpu_seconds=0.05)
    with Pool(make_settings(cache_size=CACHE)) as pool:
        judge = runs(pool)
        (first, second), ran = judge([sleeps, sleeps])
        assert first.verdict is second.verdict is Verdict.TIMEOUT and ran == 2
        (first, second), ran = judge([spins, spins])
        assert first.verdict is second.verdict is Verdict.TIMEOUT and ran == 1


def test_our_own_failure_is_not_kept():
    program = make_program("import time; time.sleep(0.5)", ("", ""))
    with Pool(make_settings(workers=1, cache_size=CACHE)) as pool:
        with futures.ThreadPoolExecutor(1) as thread:
            reader = thread.submit(pool.run, [program] * 2)
            killed = set()
            while len(killed) < 2:
                worker = pool._workers[0]
                if pool.metrics()["busy"] and worker and worker not in killed:
                    time.sleep(0.1)
                    worker.process.kill()
                    killed.add(worker)
                time.sleep(0.005)
            reports = reader.result(timeout=60)
        assert [report.verdict for report in reports] == [Verdict.INFRA, Verdict.PASS]
        assert pool.metrics()["retries"] == 1 and pool.metrics()["restarts"] == 2


# its numbers


def test_metrics_count_what_happened():
    slow = make_program("import time; time.sleep(0.4)", ("", ""))
    with Pool(make_settings(workers=1, cache_size=CACHE)) as pool:
        assert math.isnan(pool.metrics()["seconds_p50"])
        pool.run([*squares(9), slow])
        pool.run([slow])
        os.kill(pool._workers[0].process.pid, 9)
        pool.run([make_program("1 / 0", ("", ""))])
        numbers = pool.metrics()
        assert (numbers["programs"], numbers["cache_hits"]) == (12, 1)
        assert (numbers["restarts"], numbers["retries"]) == (1, 1)
        named = {n.removeprefix("verdict/"): v for n, v in numbers.items() if "/" in n}
        assert {n: v for n, v in named.items() if v} == {
            "pass": 9,
            "wrong": 2,
            "runtime": 1,
        }
        assert 0 < numbers["seconds_p50"] < 0.3 and 0.4 < numbers["seconds_p99"] < 5
        pool.reset_metrics()
        assert pool.metrics()["programs"] == 0 == pool.metrics()["cache_hits"]


def test_returned_values_beyond_a_limit_are_counted_apart_from_what_is_printed():
    long = "def f(): return [0] * 2_500_000"
    programs = [
        make_program(long, ((), 1), mode=Mode.CALL, entry_point="f"),
        make_program(
            "def f(): return 1 << (5 << 20)", ((), 1), mode=Mode.CALL, entry_point="f"
        ),
        make_program(long, ("f()", None), mode=Mode.ASSERT_PROXY, entry_point="f"),
        make_program("while True: print('x' * 10**6)", ("", "")),
        make_program("def f(): return [0]", ((), 1), mode=Mode.CALL, entry_point="f"),
    ]
    with Pool(make_settings(workers=1)) as pool:
        assert pool.metrics()["over_value_limit"] == 0
        pool.run(programs)
        numbers = pool.metrics()
    assert (numbers["over_value_limit"], numbers["verdict/output"]) == (3, 4)


def test_metrics_show_the_state_of_now():
    slow = [make_program(f"import time; time.sleep(1) # {i}", ("", "")) for i in range(5)]
    with Pool(make_settings()) as pool, futures.ThreadPoolExecutor(1) as thread:
        reader = thread.submit(pool.run, slow)
        time.sleep(0.5)
        numbers = pool.metrics()
        assert (numbers["queue"], numbers["busy"], numbers["programs"]) == (3, 2, 0)
        reader.result(timeout=30)


def test_percentiles_by_hand():
    assert [percentile([1, 2, 3, 4], p) for p in (50, 95, 99)] == [2, 4, 4]
    assert percentile(range(1, 101), 95) == 95 and percentile([7], 50) == 7
    assert math.isnan(percentile([], 50))
