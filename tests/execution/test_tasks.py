"""How many threads a program may have, whoever runs the judge and whatever else runs."""

import os
import pathlib
import subprocess
import sys

from stepcoder_jax.execution import Pool
from stepcoder_jax.execution.sandbox import tasks
from stepcoder_jax.records import Verdict
from tests.execution.kit import (
    judge,
    make_program,
    make_settings,
    pool_fixture,
)

pool = pool_fixture()


BOMB = "import threading as t, time\nt.stack_size(1 << 16)\nn, e = 0, t.Event()\n"
BOMB += "try:\n    while n < 1000: t.Thread(target=e.wait).start(); n += 1\n"


def test_a_program_has_so_many_tasks_and_no_more(pool):
    source = BOMB + "finally:\n    print(n, flush=True); e.set()\n"
    report = judge(pool, source, ("", "3\n"))
    (test,) = report.tests
    assert (report.verdict, test.error) == (Verdict.RUNTIME, "RuntimeError"), report
    assert int(test.stdout) == tasks.MOST_TASKS - 1  # and the main thread
    assert "can't start new thread" in test.stderr


def test_a_program_may_catch_that_it_has_no_more_threads(pool):
    source = BOMB + "except RuntimeError: e.set()\n"
    source += "while t.active_count() > 1: time.sleep(0.001)\n"
    source += "for _ in range(200):\n    x = t.Thread(target=int); x.start(); x.join()\n"
    assert judge(pool, source + "print(3)\n", ("", "3\n")).passed


def test_threads_that_start_threads_stay_below_twice_the_limit(pool):
    source = "import _thread, threading as t, time\nt.stack_size(1 << 16)\nstarted = []\n"
    source += "def f():\n    started.append(0)\n    try:\n"
    source += "        while True: _thread.start_new_thread(f, ())\n"
    source += "    except RuntimeError: time.sleep(9)\n"
    source += "_thread.start_new_thread(f, ())\ntime.sleep(1)\n"
    source += "import os\nprint(len(started), flush=True)\nos._exit(0)\n"
    report = judge(pool, source, ("", ""))
    started = int(report.tests[0].stdout)
    assert tasks.MOST_TASKS - 1 <= started < 2 * tasks.MOST_TASKS


def test_programs_count_for_themselves_alone():
    source = BOMB + "except RuntimeError: time.sleep(0.3)\nprint(n)\ne.set()\n"
    programs = [make_program(source, ("", f"{tasks.MOST_TASKS - 1}\n"))] * 2
    with Pool(make_settings()) as one, Pool(make_settings()) as other:
        streams = [pool.stream(programs) for pool in (one, other)]
        reports = [report for stream in streams for _, report in stream]
    assert all(report.passed for report in reports)


def test_where_proc_is_hidden_all_threads_count():
    assert tasks.count(os.getpid(), 500) == len(os.listdir("/proc/self/task"))
    assert tasks.count(2**22 + 1, 500) == 501  # no process has this number


TAKEN = """
import ctypes, struct, sys
from tests.execution.kit import judge, make_settings
from stepcoder_jax.execution import Pool
from stepcoder_jax.execution.sandbox import confinement as sandbox
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
code = sandbox._Filter(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), [])
assert code.install_with_listener() >= 0
with Pool(make_settings(workers=1)) as pool:
    print(pool.layers["seccomp"].endswith("threads not counted"))
    source = "import threading as t\\nx = t.Thread(target=print, args=(3,))\\n"
    source += "x.start(); x.join()"
    print(judge(pool, source, ("", "3\\n")).passed)
    print(judge(pool, "import os\\nos.fork()", ("", "")).verdict)
"""


def test_threads_run_where_nobody_can_be_asked():
    """As in a container whose manager listens already: a process has one listener."""
    here = pathlib.Path(__file__).parent
    paths = {"PYTHONPATH": str(here.parents[1])}
    command = [sys.executable, "-c", TAKEN]
    done = subprocess.run(
        command, env=os.environ | paths, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True", "True", "runtime"], done.stderr
