"""A trainer among others stops where all do, and says where it is."""

import queue
import signal
import socket
import threading

import pytest

from stepcoder_jax.runs.disk.interrupt import Interrupt, Stopped, breakable, breakable_share
from stepcoder_jax.runs.hosts import channel as channels
from stepcoder_jax.runs.hosts.channel import Channel, part, turn
from stepcoder_jax.runs.hosts.wire import Lines, pack

KEPT = []  # a channel whose other end is closed ends its process


class Watcher:
    """The other end: what the trainer says, one message at a time."""

    def __init__(self, end):
        self.end, self.lines, self.heard = end, Lines(), queue.Queue()

    def hear(self):
        while self.heard.empty():
            for message in self.lines.feed(self.end.recv(1 << 16)):
                self.heard.put(message)
        return self.heard.get()

    def say(self, **message):
        self.end.sendall(pack(message))

    def stop(self, further: int) -> None:
        """Have all stop so many boundaries behind the next one of this trainer."""
        self.say(kind="stop", number=signal.SIGTERM, why="SIGTERM on host 0")
        passed = self.hear()
        assert passed["kind"] == "passed"
        self.say(kind="stop_at", boundary=passed["passed"] + 1 + further)


@pytest.fixture
def watcher(monkeypatch):
    ours, theirs = socket.socketpair()
    KEPT.append((ours, theirs))
    monkeypatch.setattr(channels, "_active", [Channel(theirs, 1)])
    return Watcher(ours)


def at_once(action, *words):
    thread = threading.Thread(target=action, args=words)
    thread.start()
    return thread


@pytest.mark.parametrize("further", [0, 2])
def test_all_stop_between_the_same_two_chunks(watcher, further):
    seen = []
    with Interrupt() as interrupt:
        interrupt.check()  # boundary 1
        with pytest.raises(Stopped), breakable_share(range(10)) as chunks:
            for chunk in chunks:  # boundaries 2, 3, ...
                seen.append(chunk)
                if chunk == 1:
                    at_once(watcher.stop, further).join()
        assert interrupt.code == 75
    # 0 and 1 were made, and where another host is ahead so many more
    assert seen == list(range(2 + further))


def test_a_share_is_given_up_in_its_middle(watcher):
    stop = threading.Timer(0.3, watcher.stop, (0,))
    with Interrupt(), pytest.raises(Stopped), breakable_share(range(2)) as chunks:
        assert list(chunks) == [0, 1]
        stop.start()
        queue.SimpleQueue().get(timeout=60)  # as one waits for the judge
    stop.join()


def test_so_is_waiting_for_the_slowest(watcher):
    def stop():
        assert watcher.hear()["kind"] == "gather"
        watcher.stop(0)

    with Interrupt(), pytest.raises(Stopped):
        with breakable_share():
            thread = at_once(stop)
        pytest.fail("it did not wait")
    thread.join()


def test_those_who_have_all_judged_go_on_to_where_all_stop(watcher):
    def stop():
        name = watcher.hear()["name"]
        watcher.say(kind="gathered", name=name, values=[None, None])
        watcher.stop(1)

    with Interrupt() as interrupt:
        with breakable_share():
            thread = at_once(stop)
        thread.join()  # before or behind the boundary that is left by
        with pytest.raises(Stopped):
            for _ in range(2):
                interrupt.check()


def test_what_is_shared_and_has_no_chunks_is_ended_first(watcher):
    with Interrupt() as interrupt:
        with breakable():
            at_once(watcher.stop, 0).join()
        with pytest.raises(Stopped):
            interrupt.check()


def test_a_signal_that_comes_to_a_trainer_goes_to_all(watcher):
    with Interrupt():
        signal.raise_signal(signal.SIGINT)
        told = watcher.hear()
    assert (told["kind"], told["number"]) == ("signal", signal.SIGINT)


def test_who_saves_nothing_says_so(watcher):
    watcher.say(kind="stop", number=signal.SIGTERM, why="")
    assert watcher.hear() == {"kind": "passed", "passed": None}


def test_parts_are_told_and_those_inside_of_one_are_not(watcher):
    with part("validate", 3), part("sample", 3):
        turn("judge")
    with part("sample", 4):
        turn("judge")
    told = [watcher.hear() for _ in range(5)]
    assert [(x["part"], x["iteration"]) for x in told] == [
        *(("validate", 3), ("", 3)),
        *(("sample", 4), ("judge", 4), ("", 4)),
    ]
    watcher.say(kind="where")
    assert watcher.hear() == {"kind": "here", "passed": 0, "state": "runs"}


def test_values_are_gathered(watcher):
    found = []
    thread = at_once(lambda: found.append(channels.active().gather("x", 1)))
    told = {"kind": "gather", "name": "x", "value": 1, "patient": False}
    assert watcher.hear() == told
    watcher.say(kind="gathered", name="x", values=[0, 1])
    thread.join()
    assert found == [[0, 1]]


@pytest.mark.parametrize(
    ("ours", "all_of_us", "raised"),
    [
        (None, [False, False], None),
        (KeyError("ours"), [False, True], KeyError),
        (None, [True, False], channels.OthersError),
    ],
)
def test_an_error_of_one_host_is_the_end_of_a_block_on_all(
    watcher, ours, all_of_us, raised
):
    ended = []

    def work():
        try:
            with channels.together("rewards", KeyError):
                if ours:
                    raise ours
            ended.append(None)
        except (KeyError, channels.OthersError) as error:
            ended.append(type(error))

    thread = at_once(work)
    told = watcher.hear()
    assert (told["name"], told["value"], told["patient"]) == ("rewards", bool(ours), True)
    assert not ended  # the others may still be at work
    watcher.say(kind="gathered", name="rewards", values=all_of_us)
    thread.join()
    assert ended == [raised]


def test_what_is_no_error_of_a_block_s_own_waits_for_nobody(watcher):
    with pytest.raises(OSError), channels.together("rewards", KeyError):
        raise OSError
    with channels.together("rewards"):
        pass  # no kinds: nothing is asked


def test_a_process_alone_has_no_channel():
    assert channels.active() is None and channels.adopt() is None
    with part("sample", 1):
        turn("judge")
    with pytest.raises(KeyError), channels.together("rewards", KeyError):
        raise KeyError
