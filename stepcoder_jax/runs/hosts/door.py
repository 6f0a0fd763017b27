"""Process 0's side of where the watchers meet: who comes in, and who is no host of ours."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from collections.abc import Iterator

from stepcoder_jax.runs.hosts.meeting import REFUSED, Meeting
from stepcoder_jax.runs.hosts.place import Place, PlaceError, misplaced, port_taken
from stepcoder_jax.runs.hosts.wire import Link, Message

GREETING: Message = {"kind": "greeting"}  # first word to whoever comes: a host knows us
_TURN = 0.1  # seconds between two looks at who comes
_LATE = 6.0  # for those to come who have not, at an end


def listen(port: int) -> socket.socket:
    """A server on all addresses of this machine; PlaceError where there can be none."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        server = socket.create_server(
            ("", port), family=family, dualstack_ipv6=both, backlog=1024
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PlaceError(port_taken(port)) from None
        said = port_taken(port, f"cannot be had ({error.strerror})")
        raise PlaceError(said) from None
    server.setblocking(False)
    return server


class Door:
    """Links to the watchers of the other hosts, and those who are not let in."""

    def __init__(self, place: Place, selector: selectors.BaseSelector) -> None:
        self.place, self.selector = place, selector
        self.server = listen(place.meeting_port)
        self.strangers: list[Link] = []  # have not said yet who they are
        self.refused: list[Link] = []
        self.links: dict[int, Link] = {}
        selector.register(self.server, selectors.EVENT_READ, self.accept)

    def accept(self) -> None:
        """Somebody is there."""
        with contextlib.suppress(OSError):
            link = Link(self.server.accept()[0])
            link.send(GREETING)
            self.strangers.append(link)

    def send(self, host: int, message: Message) -> None:
        """Tell a host that is here."""
        if host in self.links:
            self.links[host].send(message)

    def send_all(self, message: Message) -> None:
        for link in self.links.values():
            link.send(message)

    def flush(self) -> None:
        """Go on with what could not be sent yet."""
        for link in self.links.values():
            link.flush()

    def hear(self, meeting: Meeting, now: float) -> None:
        """Take what all hosts have said to where they meet."""
        for link in list(self.strangers):
            for message in link.read():
                self._admit(meeting, link, message, now)
            if not link.is_open and link in self.strangers:
                self.strangers.remove(link)
                link.close()
        for link in list(self.refused):
            link.read()
            if not link.is_open:
                self.refused.remove(link)
                link.close()
        for host, link in list(self.links.items()):
            link.flush()
            for message in link.read():
                meeting.take(host, message, now)
            if not link.is_open:
                del self.links[host]
                self.selector.unregister(link.end)
                link.close()
                meeting.leave(host)

    def _admit(self, meeting: Meeting, link: Link, message: Message, now: float) -> None:
        """The first message of a host says who it is; what follows at once is its own."""
        if link in self.links.values():
            meeting.take(self._host_of(link), message, now)
            return
        host, processes = message.get("host"), message.get("processes")
        if not isinstance(host, int) or not isinstance(processes, int):
            link.is_open = False  # no host
            return
        self.strangers.remove(link)
        if not meeting.missing:  # of another run, which has the same port: ours goes on
            line = port_taken(self.place.meeting_port)
            link.send({"kind": "end", "line": line, "code": REFUSED, "dump": False})
            self.refused.append(link)
            return
        if wrong := self._complain(host, processes):
            link.send(meeting.refuse(wrong))
            self.refused.append(link)
            return
        self.links[host] = link
        self.selector.register(link.end, selectors.EVENT_READ, lambda: None)
        meeting.take(host, {"kind": "hello"}, now)

    def _complain(self, host: int, processes: int) -> str:
        """Why a host cannot be one of ours; "" where it is."""
        ours = self.place.processes
        if processes != ours:
            return f"host {host} is told of {processes} hosts, and host 0 of {ours}"
        if host >= processes:
            return misplaced(host, processes)
        if host in self.links or not host:
            return f"two hosts are told that they are number {host}"
        return ""

    def _host_of(self, link: Link) -> int:
        return next(host for host, known in self.links.items() if known is link)

    def close(self, meeting: Meeting, ending: Message) -> Iterator[Link]:
        """All links, to be closed once what was said has arrived; nobody comes any more."""
        yield from self.links.values()
        yield from self.refused
        if meeting.missing:
            yield from self._await_late(len(meeting.missing), ending)
        self.server.close()

    def _await_late(self, late: int, ending: Message) -> list[Link]:
        """Tell those who only come now, for a while: they would wait for us in vain."""
        until = time.monotonic() + _LATE
        while len(self.strangers) < late and time.monotonic() < until:
            time.sleep(_TURN)
            self.accept()
        for link in self.strangers:
            link.send(ending | {"kind": "end"})
        return self.strangers
