"""The pool: modes, verdicts, coverage, limits, and what happens when things die."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from array import array
from concurrent import futures

import pytest

from stepcoder_jax.execution import Pool, PoolSettings, SandboxError
from stepcoder_jax.execution.judging import verdicts
from stepcoder_jax.records import Mode, Verdict
from tests.execution.kit import (
    judge,
    make_program,
    make_settings,
    pool_fixture,
)

CALL = {"mode": Mode.CALL, "entry_point": "f"}
STDIN_FN = {"mode": Mode.STDIN_FN, "entry_point": "f"}


pool = pool_fixture(tests="run_all")


@pytest.fixture(scope="module")
def one_pool():
    with Pool(make_settings()) as pool:
        yield pool


# modes


def test_stdin_main_runs_the_file_as_a_script(pool):
    source = "import sys\nif __name__ == '__main__':\n    print(sys.stdin.read() * 2)\n"
    assert judge(pool, source, ("ab", "abab\n"), ("", "")).passed


def test_stdin_fn_runs_the_file_and_calls_the_function(pool):
    source = "def f():\n    print(int(input()) + gcd(4, 6))\n"
    source += "if __name__ == '__main__':\n    f()\n"
    report = judge(pool, source, ("3\n", "5\n"), ("4\n", "7\n"), **STDIN_FN)
    assert [test.verdict for test in report.tests] == [Verdict.PASS, Verdict.WRONG]
    assert report.verdict is Verdict.WRONG


def test_call_compares_returned_values(pool):
    source = "def f(a, b):\n    print('noise')\n    return {a: [b, (a, None)]}\n"
    assert judge(pool, source, (("x", 2.5), {"x": [2.5, ["x", None]]}), **CALL).passed
    assert judge(pool, source, (("x", 2), {"x": 2}), **CALL).verdict is Verdict.WRONG


def test_call_finds_methods_of_solution(pool):
    source = "class Solution:\n    def f(self, nums: List[int]): return sum(nums)\n"
    assert judge(pool, source, (([1, 2],), [3]), **CALL).passed


def test_the_prelude_leaves_builtins_and_lines_alone(pool):
    source = "def f(a):\n    return pow(a, 2, 5), sys.version_info >= (3,), 1 // 0\n"
    report = judge(pool, source, ((3,), 0), **CALL)
    assert (report.tests[0].error, report.tests[0].line) == ("ZeroDivisionError", 2)
    assert judge(pool, "def f():\n    return pow(2, 3, 5)", ((), 3), **CALL).passed


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def g(a): return a", "NameError"),
        ("def f(): return 1", "TypeError"),
        ("def f(a): return object()", "ValueCodecError"),
        ("def f(a): raise StopIteration", "StopIteration"),
        ("def f(a): return a.x", "AttributeError"),
        ("def f(a): exit()", "SystemExit"),
    ],
)
def test_call_errors_are_the_programs_own(one_pool, source, error):
    report = judge(one_pool, source, ((1,), 1), **CALL)
    assert (report.verdict, report.tests[0].error) == (Verdict.RUNTIME, error)


# verdicts and fields


def test_report_fields(pool):
    source = "import sys\nsys.stderr.write('oops')\nprint('é')\n"
    source += "x = [0] * 10**6\nraise KeyError\n"
    report = judge(pool, source, ("", "é\n"))
    (test,) = report.tests
    assert report.verdict is test.verdict is Verdict.RUNTIME
    assert (test.error, test.line, test.stdout) == ("KeyError", 5, "é\n")
    assert test.stderr.startswith("oops") and "line 5, in <module>" in test.stderr
    assert "stepcoder" not in test.stderr
    assert 0 < test.cpu_seconds < 2 and 0 < test.wall_seconds < 10
    assert test.memory_bytes > 8_000_000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ndef f(:\n", "SyntaxError: invalid syntax (line 2)"),
        ("return 1", "SyntaxError: 'return' outside function (line 1)"),
        ("print(1)\0", "null byte"),
        ("x = '\ud800'", "UnicodeEncodeError"),
        ("-" * 200_000 + "1", ""),
        ("(" * 5000, "SyntaxError: too many nested parentheses"),
    ],
)
def test_what_does_not_compile(pool, source, message):
    report = judge(pool, source, ("", ""), ("", ""))
    assert report.verdict is Verdict.COMPILE
    assert message in report.message and "\n" not in report.message
    assert [t.verdict for t in report.tests] == [Verdict.COMPILE, Verdict.NOT_RUN]
    assert report.executed == frozenset()


def test_deep_elif_chains_and_large_sources_compile(pool):
    chain = "x = 0\nif x == 1:\n    pass\n" + "".join(
        f"elif x == {i}:\n    pass\n" for i in range(2, 800)
    )
    report = judge(pool, chain + "else:\n    print(3)\n", ("", "3\n"))
    assert report.passed, report
    assert judge(pool, "x = 1\n" * 30_000 + "print(3)\n", ("", "3\n")).passed


def test_a_table_of_statements_that_the_output_limit_cut():
    legend = array("I", [3, 1, 0, 2, 0, 3, 0]).tobytes()
    for cut, whole in [(0, 3), (1, 2), (4, 2), (8, 2), (23, 0), (28, 0)]:
        parts = {"head": b"SC" + legend[: len(legend) - cut], "hits": b"\1" * 9}
        executed, expressions = verdicts.coverage_of(parts)
        assert (len(executed), expressions) == (whole, {})


def test_early_exit_and_run_all_differ_in_coverage_alone():
    source = "x = int(input())\nif x == 2:\n    print(1 / 0)\nif x == 3:\n    print(3)\n"
    tests = (("1", ""), ("2", ""), ("3", "3\n"), ("4", "x"))
    found = {}
    for policy in ("early_exit", "run_all"):
        with Pool(make_settings(workers=1, tests=policy)) as pool:
            found[policy] = judge(pool, source, *tests)
    early, full = found["early_exit"], found["run_all"]
    assert early.verdict is full.verdict is Verdict.RUNTIME
    assert [t.verdict for t in early.tests[1:]] == [
        Verdict.RUNTIME,
        Verdict.NOT_RUN,
        Verdict.NOT_RUN,
    ]
    assert [t.verdict for t in full.tests[2:]] == [Verdict.PASS, Verdict.WRONG]
    assert full.executed - early.executed == {(5, 4)}


def test_a_timeout_settles_the_rest_and_keeps_its_coverage(pool):
    source = "x = 1\nwhile True:\n    x += 1\nprint(x)\n"
    report = judge(pool, source, ("", ""), ("", ""), cpu_seconds=0.2)
    assert [t.verdict for t in report.tests] == [Verdict.TIMEOUT, Verdict.NOT_RUN]
    assert report.tests[0].error == "CPU time"
    assert report.executed == {(1, 0), (2, 0), (3, 4)}
    assert report.tests[0].cpu_seconds < 1.5


def test_sleeping_is_bounded_by_the_wall_limit(one_pool):
    started = time.monotonic()
    report = judge(one_pool, "import time\ntime.sleep(60)", ("", ""), cpu_seconds=0.1)
    assert (report.verdict, report.tests[0].error) == (Verdict.TIMEOUT, "wall time")
    assert time.monotonic() - started < 10


def test_memory_and_output_limits(pool):
    report = judge(pool, "x = []\nwhile True:\n    x.append(bytearray(10**7))", ("", ""))
    assert report.verdict is Verdict.MEMORY
    report = judge(pool, "while True:\n    print('x' * 1000)", ("", ""))
    assert report.verdict is Verdict.OUTPUT
    assert len(report.tests[0].stdout) <= 4096
    report = judge(pool, "def f():\n    return 'x' * 10**8", ((), ""), **CALL)
    assert report.verdict in (Verdict.OUTPUT, Verdict.MEMORY, Verdict.RUNTIME)


def test_a_full_file_ends_the_program_even_where_it_catches_errors(pool):
    source = "import os\ntry:\n    while True: os.write(1, b'x' * 65536)\n"
    source += "except OSError: pass\nwhile True: pass\n"
    report = judge(pool, source, ("", ""))
    assert report.verdict is Verdict.OUTPUT


NO_MEMORY = {
    "map": ("import mmap\nmmap.mmap(-1, 8 << 30)\n", "OSError"),
    "array": ("x = bytearray(8 << 30)\n", "MemoryError"),
    "in a thread, raised again": (
        "from concurrent.futures import ThreadPoolExecutor as E\n"
        "with E() as e: e.submit(bytes, 8 << 30).result()\n",
        "MemoryError",
    ),
    "in a task": (
        "import asyncio, mmap\nasync def f(): mmap.mmap(-1, 8 << 30)\n"
        "async def g():\n    async with asyncio.TaskGroup() as t: t.create_task(f())\n"
        "asyncio.run(g())\n",
        "ExceptionGroup",
    ),
    "at the exit": (
        "import sys\nclass F(list):\n    closed = False\n"
        "    def flush(s): raise MemoryError\nsys.stdout = F()\n",
        "MemoryError",
    ),
}


@pytest.mark.parametrize("name", NO_MEMORY)
def test_what_fails_for_memory_is_said_to(pool, name):
    source, error = NO_MEMORY[name]
    report = judge(pool, source, ("", "3\n"))
    assert (report.verdict, report.tests[0].error) == (Verdict.MEMORY, error)


def test_other_errors_of_the_system_are_no_want_of_memory(pool):
    report = judge(pool, "import errno\nraise OSError(errno.ENOSPC, '')\n", ("", "3\n"))
    assert (report.verdict, report.tests[0].error) == (Verdict.RUNTIME, "OSError")


ENDLESS = {
    "raised limit": "def f(n): return f(n + 1)\nf(0)\n",
    "raised limit, with another error": "def f(n):\n    try: return f(n + 1)\n"
    "    except RecursionError: raise ValueError\nf(0)\n",
    "through C": "def f(n): return sorted([n], key=f)\nf(0)\n",
    "in its text": "class A:\n    def __repr__(s): return repr(s)\nrepr(A())\n",
    "by an iterator": "def f():\n    yield from f()\nlist(f())\n",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_recursion_is_an_error_of_the_program(pool, name):
    source = f"import sys\nsys.setrecursionlimit(10**9)\n{ENDLESS[name]}"
    report = judge(pool, source, ("", "3\n"), cpu_seconds=6.0)
    assert report.verdict is Verdict.RUNTIME, report
    errors = ("RecursionError", "ValueError", "signal 11")  # 3.11: the C stack overflows
    assert report.tests[0].error in errors, report


def test_endless_recursion_in_a_thread_ends_the_thread_alone(pool):
    source = "import sys, threading\nsys.setrecursionlimit(10**6)\n"
    source += "def f(n): return f(n + 1)\nt = threading.Thread(target=f, args=(0,))\n"
    source += "t.start(); t.join()\nprint(3)\n"
    assert judge(pool, source, ("", "3\n"), cpu_seconds=6.0).passed


def test_the_recursion_limit_is_what_the_memory_holds(pool):
    source = "import sys\nfor n in 10**5, 10**9:\n    sys.setrecursionlimit(n)\n"
    source += "    print(sys.getrecursionlimit())\n"
    assert judge(pool, source, ("", "100000\n1048576\n")).passed  # 512 MB of frames
    for limit in ("1e9", "10**12", "0"):
        source = f"import sys\nsys.setrecursionlimit({limit})\n"
        error = judge(pool, source, ("", "")).tests[0].error
        assert error in ("TypeError", "OverflowError", "ValueError")


def test_a_program_has_one_processor(pool):
    source = "import os, multiprocessing as m\nprint(os.cpu_count(), m.cpu_count())\n"
    source += "print(getattr(os, 'process_cpu_count', os.cpu_count)())\n"
    assert judge(pool, source, ("", "1 1\n1\n")).passed


def test_threads_reserve_what_is_usual(pool):
    source = "import threading\nprint(threading.stack_size() >> 20)\n"
    assert judge(pool, source, ("", "8\n")).passed


def test_a_lower_hard_limit_of_the_caller_holds():
    code = "import resource, sys\nfrom tests.execution.kit import judge, make_settings\n"
    code += "from stepcoder_jax.execution import Pool\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
    code += "with Pool(make_settings(workers=1)) as pool:\n"
    code += "    print(judge(pool, 'print(1)', ('', '1\\n')).verdict)\n"
    code += "    print(judge(pool, 'print(2 * 10**6 * \"x\")', ('', '')).verdict)\n"
    paths = {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=os.environ | paths, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["pass", "output"]


def test_programs_end_as_scripts_do(pool):
    lines = [
        "import atexit, sys, threading, time",
        "atexit.register(print, 'hook')",
        "def late():",
        "    time.sleep(0.05)",
        "    print('thread')",
        "threading.Thread(target=late).start()",
        "unclosed = open(1, 'w', closefd=False)",
        "unclosed.write('unclosed\\n')",
        "sys.exit(0)",
    ]
    expected = "thread\nhook\nunclosed\n"
    report = judge(pool, "\n".join(lines), ("", expected))
    assert report.passed, report


def test_each_test_has_a_fresh_process(one_pool):
    source = "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)\n"
    assert judge(one_pool, source, ((1,), 1), ((2,), 1), **CALL).passed


def test_hashes_and_random_draws_are_the_same_every_time(one_pool):
    source = "import random\nprint(random.random(), hash('a'), set('abcdef'))"
    outputs = {judge(one_pool, source, ("", "")).tests[0].stdout for _ in range(4)}
    assert len(outputs) == 1


# the pool itself


def test_reports_come_in_order_and_stream_as_they_end(one_pool):
    programs = [
        make_program(
            f"import time\ntime.sleep({0.3 if i == 0 else 0})\nprint({i})", ("", f"{i}")
        )
        for i in range(12)
    ]
    assert all(report.passed for report in one_pool.run(programs))
    seen = [index for index, report in one_pool.stream(programs)]
    assert sorted(seen) == list(range(12)) and seen[0] != 0


def test_leaving_a_stream_early_drops_the_rest(one_pool):
    slow = [make_program("import time; time.sleep(1)", ("", "")) for _ in range(50)]
    stream = one_pool.stream(slow)
    next(stream)
    stream.close()
    started = time.monotonic()
    assert judge(one_pool, "print(3)", ("", "3")).passed
    assert time.monotonic() - started < 2.5  # the eight under way would take four


def test_bad_problems_are_errors_before_anything_runs(one_pool):
    with pytest.raises(ValueError, match="'empty' has no tests"):
        one_pool.run([make_program("print(3)", name="empty")])
    with pytest.raises(ValueError, match="no entry_point"):
        one_pool.run([make_program("x", ((), 1), mode=Mode.CALL)])
    with pytest.raises(ValueError, match="test 0: expected text"):
        one_pool.run([make_program("x", ((1,), 1))])
    with pytest.raises(ValueError, match="test 0: expected a tuple of arguments, got str"):
        one_pool.run([make_program("x", ("abc", 1), **CALL)])
    with pytest.raises(ValueError, match="no plain values: object"):
        one_pool.run([make_program("x", ((object(),), 1), **CALL)])


def worker_pids(pool):
    return [worker.process.pid for worker in pool._workers if worker is not None]


def test_a_killed_worker_is_replaced_and_its_program_tried_again():
    with Pool(make_settings(workers=1)) as pool:
        (pid,) = worker_pids(pool)
        os.kill(pid, signal.SIGKILL)
        assert judge(pool, "print(3)", ("", "3")).passed
        assert worker_pids(pool) != [pid]


def test_two_deaths_are_our_fault_and_not_the_programs():
    with Pool(make_settings(workers=1)) as pool:
        programs = [make_program("import time\ntime.sleep(1)", ("", ""))] * 2
        reader = futures.ThreadPoolExecutor(1).submit(pool.run, programs)
        killed = set()
        deadline = time.monotonic() + 20
        while len(killed) < 2 and time.monotonic() < deadline:
            for pid in worker_pids(pool):
                if pid not in killed:
                    time.sleep(0.3)
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
            time.sleep(0.01)
        reports = reader.result(timeout=30)
    assert reports[0].verdict is Verdict.INFRA
    assert "closed" in reports[0].message or "pipe" in reports[0].message
    assert reports[1].passed


def test_no_descriptor_or_process_is_left_behind():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Pool(make_settings(workers=2)) as pool:
            pids = pool.pids
            assert len(pids) == 4 and set(pids) > set(worker_pids(pool))
            assert judge(pool, "print(3)", ("", "3")).passed
    assert len(os.listdir("/proc/self/fd")) == before
    wait_until_gone(pids)
    with pytest.raises(RuntimeError, match="closed"):
        pool.run([make_program("print(3)", ("", "3"))])


ROOT = pathlib.Path(__file__).parents[2]
TRAINER = """
import sys, time
sys.path.insert(0, {root!r})
from tests.execution.kit import make_program, make_settings
from stepcoder_jax.execution import Pool
if __name__ == "__main__":
    try:
        with Pool(make_settings(workers=2)) as pool:
            print(*[w.process.pid for w in pool._workers], flush=True)
            pool.run([make_program("import time\\ntime.sleep(50)", ("", ""))] * 4)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_orphan_survives_the_trainer(how):
    script = TRAINER.format(root=str(ROOT))
    trainer = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout is not None
    pids = [int(word) for word in trainer.stdout.readline().split()]
    assert len(pids) == 2
    children = wait_for_children(pids)
    trainer.send_signal(how)
    rest = trainer.communicate(timeout=20)[0]
    assert trainer.returncode == (130 if how is signal.SIGINT else -9)
    assert ("interrupted" in rest) == (how is signal.SIGINT)
    wait_until_gone(pids + children)


FORKED_TOO_LATE = """
import os, sys, time
sys.path.insert(0, {root!r})
from stepcoder_jax.execution.sandbox.confinement import LAYERS, Sandbox
from stepcoder_jax.execution.sandbox.layout import find_layout
orphaned = sys.argv[1] == "orphaned"
if os.fork() == 0:  # the worker
    sandbox = Sandbox(0, LAYERS, find_layout())
    sandbox.prepare()
    child = os.fork()
    if child == 0:
        while orphaned and os.getppid() == sandbox.parent:
            time.sleep(0.01)
        sandbox.enter(1, 1 << 30, 1 << 20)
        print("goes on", flush=True)
    elif not orphaned:
        os.waitpid(child, 0)
    os._exit(0)
"""


@pytest.mark.parametrize(("life", "said"), [("watched", "goes on\n"), ("orphaned", "")])
def test_a_child_whose_worker_died_at_the_fork_runs_nothing(life, said):
    """Its output ends with the last process that holds it."""
    script = FORKED_TOO_LATE.format(root=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", script, life],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.stdout, done.stderr) == (said, "")


def wait_until_gone(pids):
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process outlived the pool"
        time.sleep(0.05)


def wait_for_children(pids):
    """The second processes of the workers and the test processes, once all are there."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = [
            int(child)
            for pid in pids
            for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children")
            .read_text()
            .split()
        ]
        if len(found) == 2 * len(pids):
            return found
        time.sleep(0.02)
    raise AssertionError("the workers never forked")


def is_alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_settings_and_interpreters_that_cannot_work():
    with pytest.raises(SandboxError, match="--execution"):
        Pool(make_settings(python="/no/such/python"))
    with pytest.raises(SandboxError, match="did not start"):
        Pool(make_settings(python="/bin/true"))
    for wrong in ({"tests": "some"}, {"workers": -1}, {"memory_mb": 1}, {"cpu_seconds": 0}):
        with pytest.raises(ValueError, match=f"execution.{next(iter(wrong))}"):
            make_settings(**wrong)
    assert isinstance(make_settings(), PoolSettings)


def test_the_worker_loads_no_array_library(one_pool):
    source = "import sys\nprint('numpy' in sys.modules, 'jax' in sys.modules)"
    assert judge(one_pool, source, ("", "False False\n")).passed
