"""Where the watchers meet: who finds it, who is let in, and what is said of all others."""

import selectors
import socket
import time

import pytest

from stepcoder_jax.runs.hosts.door import GREETING, Door
from stepcoder_jax.runs.hosts.meeting import Meeting
from stepcoder_jax.runs.hosts.place import Place, PlaceError, misplaced, port_taken
from stepcoder_jax.runs.hosts.search import Name, Search
from stepcoder_jax.runs.hosts.wire import pack


@pytest.fixture
def place():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Place("127.0.0.1", free.getsockname()[1], 2, 0)


@pytest.fixture
def door(place):
    with selectors.DefaultSelector() as selector:
        found = Door(place, selector)
        yield found
        for link in [*found.strangers, *found.refused, *found.links.values()]:
            link.close()
        found.server.close()


def come(door, meeting, place):
    """Another host's search, once it has been let in or told why not."""
    search, known = Search(place, time.monotonic()), len(door.links)
    link, until = None, time.monotonic() + 5
    while len(door.links) == known and not search.heard:
        assert time.monotonic() < until
        link = link or search.look(time.monotonic())
        door.accept()
        door.hear(meeting, time.monotonic())
        search.heard += link.read() if link else []
    return search


def test_who_finds_it_is_greeted_and_let_in(door, place):
    meeting = Meeting(2, 0.0)
    found = come(door, meeting, place._replace(number=1))
    assert (
        found.heard == []
        and list(door.links) == [1]
        and meeting.missing == []
        and meeting.ending is None
    )


@pytest.mark.parametrize(
    ("processes", "number", "line"),
    [
        (3, 1, "host 1 is told of 3 hosts, and host 0 of 2"),
        (2, 0, "two hosts are told that they are number 0"),
        (2, 2, misplaced(2, 2)),
    ],
)
def test_who_cannot_be_ours_ends_a_run_that_is_not_whole(
    door, place, processes, number, line
):
    meeting = Meeting(2, 0.0)
    other = place._replace(processes=processes, number=number)
    (said,) = come(door, meeting, other).heard
    assert said == meeting.ending and (said["line"], said["code"]) == (line, 2)


@pytest.mark.parametrize("number", [1, 2])
def test_another_run_on_the_same_port_ends_alone(door, place, number):
    meeting = Meeting(2, 0.0)
    ours = come(door, meeting, place._replace(number=1))
    (said,) = come(door, meeting, place._replace(number=number)).heard
    assert ours.heard == [] and said["kind"] == "end" and said["code"] == 2
    assert said["line"] == port_taken(place.meeting_port)
    assert meeting.ending is None and list(door.links) == [1]
    with pytest.raises(PlaceError) as error:  # what its own process 0 says
        Door(place, selectors.DefaultSelector())
    assert str(error.value) == said["line"]


def look_until(search, server, answer, seconds):
    """As a host that meets a program of another kind; seconds go by, but not here."""
    for second in range(seconds):
        search.look(float(second))
        for _ in range(2 if answer else 0):
            server.settimeout(1)
            end = server.accept()[0]
            end.sendall(answer)
            end.close()
            time.sleep(0.02)
            search.look(float(second))
            search.look(float(second))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"{}\n"])
def test_a_port_of_another_program_is_in_use(place, answer):
    with socket.create_server(("127.0.0.1", place.meeting_port)) as server:
        search = Search(place._replace(number=1), 0.0)
        with pytest.raises(PlaceError) as error:
            look_until(search, server, answer, 30)
    assert str(error.value) == port_taken(place.meeting_port)


def test_a_program_that_goes_makes_way(place):
    search = Search(place._replace(number=1), 0.0)
    with socket.create_server(("127.0.0.1", place.meeting_port)) as server:
        look_until(search, server, b"bye\n", 4)
    for second in range(4, 8):
        assert search.look(float(second)) is None
    with socket.create_server(("127.0.0.1", place.meeting_port)) as server:
        assert search.look(8.0) is None
        server.accept()[0].sendall(pack(GREETING) + pack({"kind": "ping"}))
        time.sleep(0.02)
        assert search.look(9.0) is not None and search.heard == [{"kind": "ping"}]


@pytest.mark.parametrize("address", ["no-such-machine.invalid", "a..b", "300.1.2.3"])
def test_a_name_without_an_address_is_refused(address):
    name = Name(address, 0.0)
    assert not name.look_up(0.0) and not name.look_up(14.0)
    with pytest.raises(PlaceError, match=f"'{address}'.* has no address"):
        name.look_up(16.0)
    assert Name("127.0.0.1", 0.0).look_up(99.0) and Name("[::1]", 0.0).look_up(99.0)
