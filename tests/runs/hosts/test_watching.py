"""Real watchers over trainers that only end: in each way that a trainer can."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from experiments.benchmarks import host_runs
from stepcoder_jax.runs.hosts.place import port_taken

# some wait by the clock, as one does for a host that is gone
pytestmark = pytest.mark.long

WATCHER = """
import sys
from stepcoder_jax.runs.hosts.place import Place, PlaceError
from stepcoder_jax.runs.hosts.watching import Watcher
port, processes, number = map(int, sys.argv[1:4])
place = Place("127.0.0.1", port, processes, number)
try:
    sys.exit(Watcher(place, "train", [sys.executable, "-c", *sys.argv[4:]]).watch())
except PlaceError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""
# waits: 90 s for the others, 20 without a word, and what is given in a part
TRAINER = """
import os, signal, sys, time
from stepcoder_jax.runs.hosts import channel
hosts = channel.adopt()
hosts.send({"kind": "limits", "limits": [90, 20, float(sys.argv[3])], "folder": ""})
kind = sys.argv[1] if hosts.number == int(sys.argv[2]) else "wait"

def work():
    hosts.gather("start", None)
    if kind == "input":
        return 3, "it cannot be"
    if kind == "error":
        raise ValueError("boo")
    if kind == "abort":
        print("F1130 12:00:00.1  1 client.h:80] the JAX distributed service has failed",
              "*** Check failure stack trace: ***", sep="\\n", file=sys.stderr, flush=True)
        os.abort()
    if kind == "exit":
        print("its last words", file=sys.stderr, flush=True)
        os._exit(7)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "orphan":
        os.kill(os.getppid(), signal.SIGKILL)
    if kind == "term":
        os.kill(os.getppid(), signal.SIGTERM)
    with hosts.part("judge", 3):
        if kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0 if kind == "done" or sys.argv[1] == "done" else 60)
    return 5 if kind == "done" else 0, ""

sys.exit(hosts.conduct(work))
"""
AGAIN = "start all again with --run.resume auto"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(port, processes, number, *words):
    command = [sys.executable, "-c", WATCHER, str(port), str(processes), str(number)]
    return host_runs.start([*command, *words], stderr=subprocess.PIPE, text=True)


def ends_of(watchers):
    """The exit code of each, and its last line."""
    try:
        said = [watcher.communicate(timeout=100)[1] for watcher in watchers]
    finally:
        for watcher in watchers:
            watcher.kill()
    return [x.returncode for x in watchers], said


def run(kind, victim, stall="60"):
    port = free_port()
    words = (TRAINER, kind, str(victim), stall)
    return ends_of([start(port, 2, number, *words) for number in range(2)])


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    "kind, code, line",
    [
        ("input", 3, "host {}: it cannot be"),
        ("error", 1, "host {}: ValueError: boo"),
        ("exit", 7, "host {}: ended with code 7 (its last words)"),
        ("kill", 75, "host {} was lost at its start (killed by SIGKILL); host {other} "),
        ("term", 75, "SIGTERM on host {}: stopped at once; nothing was saved"),
    ],
)
def test_both_end_with_one_line(kind, code, line, victim):
    start = time.monotonic()
    codes, said = run(kind, victim)
    assert codes == [code, code], said
    wanted = f"stepcoder train: {line.format(victim, other=1 - victim)}"
    assert all(text.splitlines()[-1].startswith(wanted) for text in said), said
    assert ("Traceback" in said[victim]) == (kind == "error")
    assert "Traceback" not in said[1 - victim]
    assert time.monotonic() - start < 60


def test_an_abort_that_the_others_end_brought_about_is_one_line():
    codes, said = run("abort", 1)
    assert codes == [75, 75]
    for text in said:
        assert text.startswith("stepcoder train: host 1 lost its connection to the others")
        assert len(text.splitlines()) == 1


@pytest.mark.parametrize("victim", [0, 1])
def test_a_watcher_that_is_killed_takes_its_trainer_along(victim):
    codes, said = run("orphan", victim)
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 75
    line = said[1 - victim].splitlines()[-1]
    assert f"host {victim} was lost" in line
    assert "(what watches there has ended)" in line


def test_a_host_that_does_not_move_is_named_with_everyone_s_stacks():
    codes, said = run("stop", 1, stall="1")
    assert codes == [75, 75]
    for text in said:
        line = text.splitlines()[-1]
        assert "the run does not move on in judge of iteration 3 (1 s)" in line
        assert "behind: host 1 in judge of iteration 3 without an answer; host 0" in line
        assert line.endswith(AGAIN)
    assert "in <module>" in said[0] and "in work" in said[0]  # where it waits


def test_the_highest_code_of_those_that_end_well_is_everyone_s():
    codes, said = run("done", 1)
    assert codes == [5, 5] and said == ["", ""]


def test_who_does_not_fit_is_refused_on_all():
    port, words = free_port(), (TRAINER, "wait", "0", "60")
    codes, said = ends_of([start(port, 2, 0, *words), start(port, 3, 1, *words)])
    assert codes == [2, 2]
    line = "stepcoder train: host 1 is told of 3 hosts, and host 0 of 2\n"
    assert said == [line, line]


def test_who_comes_first_is_heard_by_who_comes_late():
    port, words = free_port(), (TRAINER, "done", "0", "60")
    first = start(port, 2, 1, *words)
    time.sleep(2)  # its trainer waits for the others by now
    codes, said = ends_of([first, start(port, 2, 0, *words)])
    assert codes == [5, 5] and said == ["", ""]


def test_who_comes_late_is_told_of_the_end():
    port = free_port()
    bad = "import sys; from stepcoder_jax.runs.hosts import channel; "
    bad += "channel.adopt().conduct(lambda: (2, 'a flag is wrong'))"
    first = start(port, 2, 0, bad)
    time.sleep(2)
    words = (TRAINER, "wait", "0", "60")
    codes, said = ends_of([first, start(port, 2, 1, *words)])
    assert codes == [2, 2]
    assert said == ["stepcoder train: host 0: a flag is wrong\n"] * 2


def test_two_with_one_number_are_refused_on_all():
    port, words = free_port(), (TRAINER, "wait", "0", "60")
    codes, said = ends_of([start(port, 3, number, *words) for number in (0, 1, 1)])
    assert codes == [2, 2, 2]
    assert set(said) == {"stepcoder train: two hosts are told that they are number 1\n"}


def test_a_port_in_use_is_one_line_for_all():
    port, words = free_port(), (TRAINER, "done", "0", "60")
    with socket.create_server(("", port + 1)):
        codes, said = ends_of([start(port, 2, number, *words) for number in range(2)])
    line = f"{port_taken(port + 1)}\n"
    assert codes == [2, 2] and said == [line, f"stepcoder train: {line}"]


def test_a_second_run_on_a_port_leaves_the_first_alone():
    port, words = free_port(), (TRAINER, "wait", "0", "60")
    first = [start(port, 2, number, *words) for number in range(2)]
    time.sleep(5)
    codes, said = ends_of([start(port, 2, number, *words) for number in range(2)])
    assert codes == [2, 2] and all(port_taken(port + 1) in text for text in said)
    assert [watcher.poll() for watcher in first] == [None, None]
    first[1].send_signal(signal.SIGTERM)
    codes, said = ends_of(first)
    assert codes == [75, 75] and all("SIGTERM on host 1" in text for text in said)


def test_a_stranger_is_nobody():
    port, words = free_port(), (TRAINER, "done", "0", "60")
    watcher = start(port, 2, 0, *words)
    strangers = []
    while len(strangers) < 2:
        try:
            strangers.append(socket.create_connection(("127.0.0.1", port + 1)))
        except ConnectionRefusedError:
            time.sleep(0.05)
    strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    strangers[1].sendall(b'{"kind": "end"}\n' + b"[" * 100_000 + b"\n")
    codes, said = ends_of([watcher, start(port, 2, 1, *words)])
    assert codes == [5, 5] and said == ["", ""]
