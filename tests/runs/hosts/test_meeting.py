"""What the watchers' meeting decides: one end, one boundary, one line."""

import signal

import pytest

from stepcoder_jax.runs.hosts.meeting import Limits, Meeting
from stepcoder_jax.runs.hosts.parts import Position

LIMITS = Limits(join=60, lost=30, stall=900)


@pytest.fixture
def meeting():
    """Three hosts, who are all there, in iteration 4."""
    meeting = Meeting(3, now=0)
    meeting.take(0, {"kind": "limits", "limits": LIMITS}, 0)
    for host, part in enumerate(("sample", "judge", "judge")):
        position = list(Position(part, 4, 7 + (part == "judge")))
        meeting.take(host, {"kind": "ping", "position": position}, 1)
    meeting.out.clear()
    return meeting


def ends(meeting) -> tuple[str, int]:
    """The one end that every host is told."""
    said = [message for _, message in meeting.out if message["kind"] == "end"]
    assert [host for host, x in meeting.out if x["kind"] == "end"] == [0, 1, 2]
    assert said[0] == said[1] == said[2] == meeting.ending
    return meeting.ending["line"], meeting.ending["code"]


def error(line, severed=False, code=1):
    return {"kind": "error", "line": line, "code": code, "severed": severed}


def test_a_host_s_own_mistake_ends_all_at_once(meeting):
    meeting.take(1, {"kind": "input", "line": "run.folder: x", "code": 2}, 2)
    assert ends(meeting) == ("host 1: run.folder: x", 2)
    meeting.take(2, {"kind": "input", "line": "later", "code": 3}, 2)
    meeting.tick(1000)
    assert meeting.ending["line"] == "host 1: run.folder: x"


def test_an_unexpected_error_waits_for_who_was_lost(meeting):
    meeting.take(0, error("JaxRuntimeError: Gloo", severed=True), 2)
    meeting.take(1, error("ValueError: boo"), 3)
    meeting.take(2, error("KeyError: second"), 3)
    meeting.tick(4)
    assert meeting.ending is None
    meeting.tick(7)
    assert ends(meeting) == ("host 1: ValueError: boo", 1)


def test_a_lost_host_is_the_reason_of_the_others_errors(meeting):
    meeting.take(0, error("JaxRuntimeError: Gloo", severed=True), 2)
    meeting.take(2, {"kind": "lost", "why": "killed by SIGKILL"}, 3)
    assert ends(meeting) == (
        "host 2 was lost in judge of iteration 4 (killed by SIGKILL); host 0 in sample of "
        "iteration 4, host 1 in judge of iteration 4; start all again with --run.resume "
        "auto",
        75,
    )


def test_a_connection_that_nobody_explains(meeting):
    meeting.take(0, error("JaxRuntimeError: Gloo", severed=True), 2)
    for host in range(3):
        meeting.take(host, {"kind": "ping", "position": list(Position())}, 20)
    meeting.tick(22)
    assert meeting.ending is None
    meeting.tick(24)
    line = "host 0 lost its connection to the others (JaxRuntimeError: Gloo)"
    assert ends(meeting) == (line, 75)


def test_a_host_that_is_not_heard_of_or_leaves(meeting):
    for host in (0, 2):
        meeting.take(host, {"kind": "ping", "position": list(Position())}, 20)
    meeting.tick(22)
    assert meeting.ending is None
    meeting.tick(23)  # before run.lost_seconds: all must have ended by then
    line, code = ends(meeting)
    assert "host 1 was lost in judge of iteration 4 (nothing was heard of it for 22" in line
    assert code == 75


def test_a_host_whose_watcher_ends(meeting):
    meeting.leave(2)
    line, code = ends(meeting)
    assert "host 2 was lost in judge" in line and code == 75


def test_who_does_not_come_is_named():
    meeting = Meeting(4, now=0)
    meeting.take(0, {"kind": "limits", "limits": LIMITS}, 0)
    for now in (5, 20, 40, 60):
        for host in (0, 2):
            meeting.take(host, {"kind": "ping", "position": list(Position())}, now)
        meeting.tick(now)
        assert meeting.ending is None
    meeting.tick(61)
    line = "hosts 1, 3 of 4 did not come within 1 minutes (run.join_minutes)"
    assert meeting.ending["line"] == line and meeting.ending["code"] == 75
    assert [host for host, _ in meeting.out] == [0, 2]


def gather(name, value, patient=False):
    return {"kind": "gather", "name": name, "value": value, "patient": patient}


def test_all_have_each_one_s_value(meeting):
    for host in (2, 0, 1):
        meeting.take(host, gather("x", host * 10), 2)
    told = {"kind": "gathered", "name": "x", "values": [0, 10, 20]}
    assert meeting.out == [(0, told), (1, told), (2, told)]


def test_who_does_not_come_to_a_gather_is_named(meeting):
    meeting.take(1, gather("boundary 7", None, patient=True), 1)
    meeting.take(1, gather("comparison", 1), 2)
    for host in range(3):
        meeting.take(host, {"kind": "ping", "position": list(Position())}, 60)
    meeting.tick(63)
    line, code = ends(meeting)
    assert line.startswith("hosts 0, 2 did not come to the comparison within 1 minutes")
    assert code == 75


def ask(number=signal.SIGTERM, again=False):
    return {"kind": "signal", "number": number, "again": again, "why": ""}


def test_a_stop_is_before_the_first_boundary_that_nobody_has_passed(meeting):
    meeting.take(1, ask(), 2)
    why = "SIGTERM on host 1"
    stop = {"kind": "stop", "number": signal.SIGTERM, "why": why}
    assert meeting.out == [(0, stop), (1, stop), (2, stop)]
    meeting.out.clear()
    meeting.take(2, ask(), 2)  # schedulers send it to all: once is enough
    for host, passed in ((0, 11), (2, 13), (1, 12)):
        assert meeting.out == []
        meeting.take(host, {"kind": "passed", "passed": passed}, 2)
    told = {"kind": "stop_at", "boundary": 14}
    assert meeting.out == [(0, told), (1, told), (2, told)]
    meeting.out.clear()
    for host in range(3):
        meeting.take(host, {"kind": "done", "code": 75}, 3)
    assert ends(meeting) == ("", 75)


def test_nothing_to_save_means_at_once(meeting):
    meeting.take(1, ask(signal.SIGINT), 2)
    meeting.out.clear()
    meeting.take(0, {"kind": "passed", "passed": None}, 2)
    said = "SIGINT on host 1: stopped at once; nothing was saved"
    assert ends(meeting) == (said, 130)


def test_a_second_interrupt_does_not_wait_for_the_save(meeting):
    meeting.take(1, ask(signal.SIGINT), 2)
    meeting.take(2, ask(signal.SIGINT), 2)  # the same, of the terminal that all have
    assert meeting.ending is None
    meeting.out.clear()
    meeting.take(1, ask(signal.SIGINT, again=True), 3)
    assert ends(meeting) == ("stopped at once; nothing was saved", 130)


def test_who_does_not_answer_a_stop_is_named(meeting):
    meeting.take(1, ask(), 2)
    for host in (0, 1):
        meeting.take(host, {"kind": "passed", "passed": 3}, 3)
    for host in range(3):
        meeting.take(host, {"kind": "ping", "position": list(Position())}, 30)
    meeting.out.clear()
    meeting.tick(33)
    assert ends(meeting) == ("SIGTERM: host 2 did not answer", 75)


def here(passed, state="runs"):
    return {"kind": "here", "passed": passed, "state": state}


@pytest.mark.parametrize(
    "answers, behind",
    [
        # host 0 is in a part that the others have left
        (
            (here(5), here(9), here(9)),
            "behind: host 0 in sample of iteration 4; hosts 1, 2",
        ),
        (
            (here(9), here(9), here(9, "stopped")),
            "behind: host 2 in judge of iteration 4 w",
        ),
        ((here(9), None, here(9)), "behind: host 1 in judge of iteration 4 without an"),
    ],
)
def test_a_stall_names_who_is_behind(meeting, answers, behind):
    meeting.take(1, {"kind": "stall", "seconds": 901.2}, 2)
    assert meeting.out == [(host, {"kind": "where"}) for host in range(3)]
    meeting.out.clear()
    for host, answer in enumerate(answers):
        if answer is not None:
            meeting.take(host, answer, 3)
    meeting.tick(6)
    line, code = ends(meeting)
    assert line.startswith("the run does not move on in judge of iteration 4 (901 s): ")
    assert behind in line and "run.stall_minutes" in line and code == 75
    assert meeting.ending["dump"]


def test_a_stall_that_is_everyone_s(meeting):
    for host in range(3):
        position = list(Position("update", 4, 9))
        meeting.take(host, {"kind": "ping", "position": position}, 2)
    meeting.take(1, {"kind": "stall", "seconds": 20}, 2)
    meeting.out.clear()
    for host in range(3):
        meeting.take(host, here(9), 3)
    meeting.tick(3)
    assert "no host is behind the others; hosts 0, 1, 2 in update" in ends(meeting)[0]
