"""Any other host's way to the watcher of process 0: its name, its port, its first word."""

from __future__ import annotations

import math
import socket
import time

from stepcoder_jax.runs.hosts.door import GREETING
from stepcoder_jax.runs.hosts.place import Place, PlaceError, port_taken
from stepcoder_jax.runs.hosts.wire import Link, Message

_ASK = 1.0  # seconds between two questions for an address
_NAMELESS = 15.0  # a name of a cluster may be known only after its machine is up
_STRANGE = 5.0  # of answers that are no host's: ours may come once that one has gone
_SILENT = 15.0  # of an open port that says nothing
_ANSWER = 20.0  # for one who is refused to be told so


class Name:
    """The name of process 0's machine, as its host and all others need to know it."""

    def __init__(self, address: str, since: float) -> None:
        self.address, self.since = address.strip("[]"), since
        self.is_known = False
        self._asked = -math.inf

    def look_up(self, now: float) -> bool:
        """Whether it stands for an address; PlaceError once it has not for too long."""
        if self.is_known or now - self._asked < _ASK:
            return self.is_known
        self._asked = now
        try:
            socket.getaddrinfo(self.address, None)
        except (socket.gaierror, UnicodeError) as error:  # the latter: no name at all
            if now - self.since > _NAMELESS:
                why = getattr(error, "strerror", None) or error
                raise PlaceError(
                    f"{self.address!r}, which is to be process 0's machine, has no address "
                    f"({why}); give its name or its number as all hosts can reach it"
                ) from None
        else:
            self.is_known = True
        return self.is_known


class Search:
    """What one of several hosts does until the watcher of process 0 has greeted it."""

    def __init__(self, place: Place, since: float) -> None:
        self.place, self.name = place, Name(place.address, since)
        self.link: Link | None = None  # to what answers there
        self.heard: list[Message] = []  # behind the greeting
        self._began = math.inf  # of this link
        self._strange = math.inf  # the first that was no host's

    def look(self, now: float) -> Link | None:
        """The link once it is found; PlaceError where it cannot be."""
        if not self.name.look_up(now):
            return None
        if self.link is None:
            self._connect(now)
            return None
        said = self.link.read()
        if said[:1] == [GREETING]:
            self.heard = said[1:]
            return self.link
        is_silent = not said and self.link.is_open
        if is_silent and now - self._began <= _SILENT:
            return None
        self.link.close()
        self.link, self._strange = None, min(self._strange, now)
        if is_silent or now - self._strange > _STRANGE:
            raise PlaceError(port_taken(self.place.meeting_port))
        return None

    def _connect(self, now: float) -> None:
        address = self.name.address, self.place.meeting_port
        try:
            end = socket.create_connection(address, timeout=1.0)
        except OSError:
            self._strange = math.inf
            return
        self.link, self._began = Link(end), now
        self.link.send(hello(self.place))


def hello(place: Place) -> Message:
    """The first word of a host."""
    return {"kind": "hello", "host": place.number, "processes": place.processes}


def tell_misplaced(place: Place) -> None:
    """Let the others hear of a host whose index none of them can have: all end."""
    until = time.monotonic() + _ANSWER
    search, link = Search(place, time.monotonic()), None
    while (now := time.monotonic()) < until:
        try:
            link = link or search.look(now)
        except PlaceError:
            return
        said = search.heard + (link.read() if link else [])
        if link and (said or not link.is_open):  # what it says first is the end of all
            link.close()
            return
        time.sleep(_ASK / 20)
