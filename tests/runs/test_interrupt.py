"""Signals: which code, what is given up, what is ended first."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from stepcoder_jax.config import PromptConfig
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback import prompts
from stepcoder_jax.records import Mode, Problem, Program, Task, TestCase
from stepcoder_jax.runs import generate
from stepcoder_jax.runs.disk.interrupt import Interrupt, Stopped, breakable
from stepcoder_jax.runs.disk.saver import Saver
from stepcoder_jax.runs.generate import Coder
from stepcoder_jax.runs.hosts import walltime
from stepcoder_jax.sampling.slots import Completion
from tests.execution.kit import make_settings

SIGNALS = {signal.SIGINT: (130, "Ctrl-C: saving"), signal.SIGTERM: (75, "exit code 75")}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_asked_after_and_told(capsys, number):
    code, words = SIGNALS[number]
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(number)  # outside of breakable work: it goes on
        with pytest.raises(Stopped):
            interrupt.check()
        assert interrupt.code == code
    assert words in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_breakable_work_ends_where_it_is_or_does_not_begin():
    reached = []
    with Interrupt():
        with pytest.raises(Stopped), breakable():
            signal.raise_signal(signal.SIGTERM)
            reached.append("behind the signal")
        with pytest.raises(Stopped), breakable():
            reached.append("after it")
    with breakable():  # no one listens
        reached.append("as usual")
    assert reached == ["as usual"]


def test_a_second_signal():
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # schedulers repeat themselves
        assert interrupt.code == 75
    with Interrupt():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_judging_is_given_up_in_its_middle(monkeypatch):
    test = TestCase("", "1\n")
    problem = Problem("slow", "", "", "", None, Mode.STDIN_MAIN, (test,), "x", 30.0)
    task = Task(problem, 0, 0, "")
    monkeypatch.setattr(
        prompts, "decode", lambda *_: Program(problem, "while True: pass", 0, ())
    )
    with Pool(make_settings(workers=1)) as pool, Interrupt():
        coder = Coder(None, pool, None, [], None, PromptConfig())
        done = Completion(0, np.zeros(1, int), np.zeros(1), np.zeros(1), False)
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        start = time.monotonic()
        with pytest.raises(Stopped):
            generate.judge_stream(coder, [task], iter([[done]]), label="")
        assert time.monotonic() - start < 15
    timer.join()


NOTICE = """
import os, signal, sys
from stepcoder_jax.devices import joining
from stepcoder_jax.runs.disk.interrupt import Interrupt, Stopped
joining.join_hosts()
with Interrupt() as interrupt:
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        interrupt.check()
    except Stopped:
        sys.exit(interrupt.code)
"""


def test_jax_does_not_swallow_the_signal_of_a_run_over_hosts():
    """Its preemption service would, from `jax.distributed.initialize` on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]},1,0"
    ended = subprocess.run(
        [sys.executable, "-c", NOTICE],
        env=os.environ | {"STEPCODER_DISTRIBUTED": place, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 75, ended.stderr[-2000:]


def test_the_end_of_an_allocation_asks_to_stop(capsys, monkeypatch):
    monkeypatch.setattr(walltime, "end_of_allocation", lambda _: time.time() + 990)
    with Interrupt() as interrupt:
        interrupt.check()
        interrupt.save_takes(333)  # three of them are more than what is left
        until = time.monotonic() + 20
        while not interrupt.asked and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(Stopped):
            interrupt.check()
        assert interrupt.code == 75
    assert "run.walltime: saving, then exit code 75" in capsys.readouterr().err
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_each_save_says_how_long_the_next_may_take(monkeypatch):
    monkeypatch.setattr(walltime, "end_of_allocation", lambda _: time.time() + 1000)
    with Interrupt():
        assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(850, abs=5)
        saver = Saver()
        saver.start(lambda: lambda: time.sleep(0.01))
        saver.wait()
        assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(1000, abs=5)
