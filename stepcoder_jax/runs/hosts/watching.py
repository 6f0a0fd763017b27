"""The parent of a trainer on each of several hosts: it knows of the others, and ends it.

`stepcoder train` on several hosts is this process; the trainer is its child. The watchers
meet at one of them, that of process 0, on a port of their own (the coordinator's and one).
Why not JAX's coordination service: its key-value store and its barriers with a timeout are
no public API of JAX (0.10.2 offers collectives of devices, which hang with a host that is
gone), its client ends a process by abort(), and it dies with process 0. A process of its
own also outlives a trainer that is killed, stopped, or waits in a collective, and takes no
part in what it computes. As on JAX's own port, who reaches this one is trusted.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stepcoder_jax.runs.hosts.channel import CHANNEL_VARIABLE, STACKS
from stepcoder_jax.runs.hosts.door import Door
from stepcoder_jax.runs.hosts.meeting import (
    BROKEN,
    CODES,
    HEARD,
    REFUSED,
    Limits,
    Meeting,
)
from stepcoder_jax.runs.hosts.parts import PartClock
from stepcoder_jax.runs.hosts.place import Place, PlaceError
from stepcoder_jax.runs.hosts.search import Search
from stepcoder_jax.runs.hosts.wire import Link, Message
from stepcoder_jax.runs.hosts.words import Relay, cause_of

_TURN = 0.1  # seconds between two looks around
_PING = 1.0
_GRACE = 3.0  # for a trainer to print its stacks, and then to leave
_LEAVE = 60.0  # for one that has done all its work
_FORWARDED = ("gather", "signal", "passed", "here", "input", "error", "done")
_LAST_WORDS = ("input", "error", "done")


class Watcher:
    """One trainer, its place among the others, and what is said between them."""

    def __init__(self, place: Place, name: str, command: Sequence[str]) -> None:
        self.place, self.name, self.command = place, name, command
        self.clock, self.relay, self.limits = PartClock(), Relay(), Limits()
        self.folder: Path | None = None  # of the run, once the trainer knows it
        self.started = self.pinged = self.heard = time.monotonic()
        self.signals: list[int] = []
        self.was_interrupted = False
        self.has_told = self.is_stalled = False
        self.ending: Message | None = None
        self.selector = selectors.DefaultSelector()
        self.search = Search(place, self.started)
        self.hub: Link | None = None  # to process 0's watcher
        self.unsent: list[Message] = []  # until it is found
        self.meeting: Meeting | None = None
        if not place.number:
            self.meeting = Meeting(place.processes, self.started)
            self.door = Door(place, self.selector)

    def watch(self) -> int:
        """Run the command as a trainer; the exit code of all hosts."""
        former = {number: signal.signal(number, self._note) for number in CODES}
        try:
            self._start()
            while self.ending is None:
                self._turn()
            return self._finish(self.ending)
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.signals.append(number)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        descriptor = theirs.fileno()
        said = f"{descriptor},{os.getpid()},{self.place.number}"
        self.trainer = subprocess.Popen(
            self.command,
            stderr=subprocess.PIPE,
            env=os.environ | {CHANNEL_VARIABLE: said},
            pass_fds=(descriptor,),
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
        )
        theirs.close()
        self.channel = Link(ours)
        assert self.trainer.stderr is not None
        self.errors = self.trainer.stderr.fileno()
        os.set_blocking(self.errors, False)
        self.selector.register(self.errors, selectors.EVENT_READ, self._pass_on)
        self.selector.register(ours, selectors.EVENT_READ, lambda: None)

    def _pass_on(self) -> None:
        """Standard error of the trainer, as far as it is for people."""
        try:
            read = os.read(self.errors, 1 << 16)
        except BlockingIOError:
            return
        if not read:
            self.selector.unregister(self.errors)
        self._show(self.relay.feed(read) if read else self.relay.close())

    def _show(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more
            sys.stderr.buffer.write(text)
            sys.stderr.flush()

    def _turn(self) -> None:
        for key, _ in self.selector.select(_TURN):
            key.data()
        now = time.monotonic()
        self._pass_signals()
        self._hear_trainer(now)
        self._hear_hosts(now)
        if now - self.pinged > _PING:
            self._ping(now)
        over = self.clock.overdue(now, self.limits.stall)
        if over is not None and not self.is_stalled:
            self.is_stalled = True
            self._post({"kind": "stall", "seconds": over.seconds})
        if self.meeting is not None:
            self.meeting.tick(now)
            self._deliver(self.meeting)

    def _ping(self, now: float) -> None:
        self.pinged = now
        self._post({"kind": "ping", "position": list(self.clock.position)})
        if self.meeting is not None:
            self.door.send_all({"kind": "ping"})

    def _post(self, message: Message) -> None:
        """Say something to where the hosts meet."""
        if self.meeting is not None:
            self.meeting.take(0, message, time.monotonic())
        elif self.hub is not None:
            self.hub.send(message)
        elif message["kind"] in ("input", "error", "lost"):  # before it is found
            said = message.get("line") or message["why"]
            line = f"host {self.place.number}: {said}"
            self._end(line, message.get("code", BROKEN))
        elif message["kind"] != "ping":
            self.unsent.append(message)

    def _end(self, line: str, code: int) -> None:
        """What this host ends with where it cannot ask the others."""
        self.ending = {"line": line, "code": code, "dump": False}

    def _deliver(self, meeting: Meeting) -> None:
        out, meeting.out = meeting.out, []
        for host, message in out:
            if host:
                self.door.send(host, message)
            else:
                self._obey(message)

    def _obey(self, message: Message) -> None:
        """What was decided where the hosts meet."""
        kind = message["kind"]
        if kind == "end":
            self.ending = message
        elif kind == "where" and self._is_stopped():
            self._post({"kind": "here", "passed": 0, "state": "stopped"})
        elif kind != "ping":
            self.channel.send(message)
        if kind == "stop":
            code = CODES[signal.Signals(message["number"])]
            self._show(f"{message['why']}: saving, then exit code {code}\n".encode())

    def _is_stopped(self) -> bool:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.trainer.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] == "T"
        return False

    def _pass_signals(self) -> None:
        signals, self.signals = self.signals, []
        for number in signals:
            is_alone = self.meeting is None and self.hub is None
            if is_alone:
                name = signal.Signals(number).name
                self._end(f"{name}: stopped at once", CODES[signal.Signals(number)])
            again = number == signal.SIGINT and self.was_interrupted
            self.was_interrupted = number == signal.SIGINT or self.was_interrupted
            self._post({"kind": "signal", "number": number, "again": again, "why": ""})

    def _hear_trainer(self, now: float) -> None:
        code = self.trainer.poll()  # first: what it said before it ended is read then
        for message in self.channel.read():
            kind = message["kind"]
            if kind == "part" and message["part"]:
                self.clock.begin(message["part"], message["iteration"], now)
            elif kind == "part":
                self.clock.end(now)
            elif kind == "limits":
                self.limits = Limits(*message["limits"])
                self.folder = Path(message["folder"]) if message["folder"] else None
                self._post(message)
            if kind == "part":
                self._ping(now)
            if kind in _FORWARDED:
                self._post(message)
            self.has_told = self.has_told or kind in _LAST_WORDS
        if not self.channel.is_open and self.channel.end in self.selector.get_map():
            self.selector.unregister(self.channel.end)
        if code is not None and not self.has_told:
            self.has_told = True
            self._post(self._cause(code))

    def _cause(self, code: int) -> Message:
        """Why a trainer ended that did not tell."""
        until = time.monotonic() + _PING  # its workers may hold the other end for longer
        while self.errors in self.selector.get_map() and time.monotonic() < until:
            self._pass_on()
        return cause_of(code, self.relay)

    def _hear_hosts(self, now: float) -> None:
        if self.meeting is not None:
            self._hear_all(self.meeting, now)
            return
        if self.hub is None:
            self._find_hub(now)
        if self.hub is None:
            return
        heard, self.search.heard = self.search.heard + self.hub.read(), []
        for message in heard:
            self.heard = now
            if self.ending is None:
                self._obey(message)
        if self.ending is not None:
            return
        silence = now - self.heard
        why = "what watches there has ended" if not self.hub.is_open else ""
        if silence > HEARD * self.limits.lost:
            why = f"nothing was heard of it for {silence:.0f} s"
        if why:
            here = f"host {self.place.number} {self.clock.position}"
            again = " with --run.resume auto" * bool(self.clock.position.part)
            line = f"host 0 was lost ({why}); {here}; start all again{again}"
            self._end(line, BROKEN)

    def _find_hub(self, now: float) -> None:
        place = self.place
        if now - self.started > self.limits.join:
            self._end(
                f"host 0 ({place.address}, port {place.meeting_port}) did not come within "
                f"{self.limits.join / 60:g} minutes (run.join_minutes)",
                BROKEN,
            )
            return
        try:
            found = self.search.look(now)
        except PlaceError as error:
            self._end(str(error), REFUSED)
            return
        if found is None:
            return
        self.hub, self.heard = found, now
        self.selector.register(found.end, selectors.EVENT_READ, lambda: None)
        self._ping(now)
        for message in self.unsent:
            self._post(message)

    def _hear_all(self, meeting: Meeting, now: float) -> None:
        self.door.hear(meeting, now)
        try:  # for its trainer needs the name as well
            self.search.name.look_up(now)
        except PlaceError as error:
            meeting.refuse(str(error))

    def _finish(self, ending: Message) -> int:
        """Say why, end the trainer, and let the others hear of it."""
        line, code = ending["line"], ending["code"]
        if ending["dump"]:
            with contextlib.suppress(ProcessLookupError):
                self.trainer.send_signal(STACKS)
            self._wait(_GRACE, until_exit=True)
        if line:
            self._show(f"stepcoder {self.name}: {line}\n".encode())
            self.channel.send({"kind": "end", "code": code})
        self._wait(_GRACE if line else _LEAVE, until_exit=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.trainer.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a disk may hold it
            self.trainer.wait(_GRACE)
        self._wait(_TURN, until_exit=False)
        if line and code in (1, BROKEN):
            self._keep_words()
        self._close(ending)
        return int(code)

    def _wait(self, seconds: float, until_exit: bool) -> None:
        """Pass standard error on for so long, or until the trainer has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and (self.trainer.poll() is None or not until_exit):
            for key, _ in self.selector.select(_TURN):
                if key.fd == self.errors:
                    self._pass_on()
                    continue
                time.sleep(_TURN / 10)  # others, which are not read any more
            if self.meeting is not None:
                self.door.flush()

    def _keep_words(self) -> None:
        """Write what the trainer said last beside the logs of the hosts of the run."""
        if self.folder is None or not self.folder.is_dir():
            return
        with contextlib.suppress(OSError):
            logs = self.folder / "hosts"
            logs.mkdir(exist_ok=True)
            with open(logs / f"{self.place.number}.log", "a") as file:
                file.write(f"{self.relay.text}\n")

    def _close(self, ending: Message) -> None:
        """Let what was said arrive: a socket closed with unread words takes ours along."""
        links = [] if self.hub is None else [self.hub]
        if self.meeting is not None:
            links = list(self.door.close(self.meeting, ending))
        for link in links:
            link.flush()
            with contextlib.suppress(OSError):
                link.end.shutdown(socket.SHUT_WR)
        until = time.monotonic() + 2 * _GRACE
        while any(link.is_open for link in links) and time.monotonic() < until:
            for link in links:
                link.read()
            time.sleep(_TURN / 10)
        for link in links:
            link.close()


def watch(place: Place, argv: Sequence[str]) -> int:
    """Run a command of ours as a trainer among others; the exit code of all hosts."""
    command = [sys.executable, "-m", "stepcoder_jax", *argv]
    return Watcher(place, argv[0], command).watch()
