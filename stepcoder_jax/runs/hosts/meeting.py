"""What the watcher of process 0 decides for all: who is there, when to stop, how all end.

It takes messages and says messages, and does nothing else: no clock, no sockets. Whatever
ends one host becomes one `end` for all, with one line and one exit code:

input      a host's own error: its line and its code, at once
lost       a host killed, or not heard of: 75, at once
error      an unexpected one: its code, unless a host turns out to be lost meanwhile, since
           the others' collectives then fail as well
stall      a part that takes too long: 75, once each host has said where it is

A stop asked of one host (a signal, the wall time) becomes one boundary: each says which it
has passed and goes no further until it is told the first that nobody has passed.
"""

from __future__ import annotations

import math
import os
import signal
from typing import Any, NamedTuple

from stepcoder_jax.runs.hosts.parts import Position, name_hosts, tell
from stepcoder_jax.runs.hosts.wire import Message

BROKEN = os.EX_TEMPFAIL  # 75: lost, stalled or preempted; start it again
CODES = {signal.SIGINT: 130, signal.SIGTERM: BROKEN}
REFUSED = 2  # what the user gave cannot be
_PATIENCE = 3.0  # seconds for a better reason than a failed collective, or an answer
HEARD = 0.7  # of run.lost_seconds without a word: the rest is for the end itself


class Limits(NamedTuple):
    """Seconds that are waited: for all to come, for a word, in a part of the work."""

    join: float = 300.0
    lost: float = 30.0
    stall: float = 900.0


class Stall(NamedTuple):
    """A part that took too long, while all are asked where they are."""

    host: int
    seconds: float
    until: float


class Meeting:
    """All hosts, as process 0's watcher knows them; `out` is what it says to whom."""

    def __init__(self, processes: int, now: float) -> None:
        self.hosts, self.since = range(processes), now
        self.limits = Limits()
        self.out: list[tuple[int, Message]] = []
        self.ending: Message | None = None
        self.heard: dict[int, float] = {0: now}  # process 0 is where we are
        self.positions: dict[int, Position] = dict.fromkeys(self.hosts, Position())
        self.done: dict[int, int] = {}  # exit codes of those that have ended well
        self._gathers: dict[str, tuple[float, dict[int, Any]]] = {}
        self._suspect: tuple[float, str, int] | None = None  # until, line, code
        self._stop: tuple[float, int, int] | None = None  # until, signal, host
        self._passed: dict[int, int] = {}
        self._stall: Stall | None = None
        self._here: dict[int, tuple[int, str]] = {}  # boundaries passed, state

    def take(self, host: int, message: Message, now: float) -> None:
        """A host says something."""
        self.heard[host] = now
        if self.ending is not None:
            return
        kind = message["kind"]
        if kind == "ping":
            self.positions[host] = Position(*message["position"])
        elif kind == "limits":
            self.limits = Limits(*message["limits"]) if host == 0 else self.limits
        elif kind == "gather":
            self._gather(host, message, now)
        elif kind == "signal":
            self._signal(host, message, now)
        elif kind == "passed":
            self._take_passed(host, message["passed"])
        elif kind == "input":
            self._end(f"host {host}: {message['line']}", message["code"])
        elif kind == "error":
            self._suspects(host, message, now)
        elif kind == "lost":
            self._lose(host, message["why"])
        elif kind == "stall" and self._stall is None:
            self._stall = Stall(host, message["seconds"], now + _PATIENCE)
            self._say_all({"kind": "where"})
        elif kind == "here":
            self._here[host] = (message["passed"], message["state"])
        elif kind == "done":
            self.done[host] = message["code"]
            if len(self.done) == len(self.hosts):
                self._end("", max(self.done.values()))
            self._set_boundary()

    def refuse(self, line: str) -> Message:
        """What a host says of itself cannot be; how all end."""
        if self.ending is None:
            self._end(line, REFUSED)
        return self.ending or {}

    def leave(self, host: int) -> None:
        """The connection to a host's watcher has ended."""
        if self.ending is None and host not in self.done:
            self._lose(host, "what watches there has ended")

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.ending is not None:
            return
        missing = self.missing
        if missing and now - self.since > self.limits.join:
            self._end(
                f"{name_hosts(missing)} of {len(self.hosts)} did not come within "
                f"{self.limits.join / 60:g} minutes (run.join_minutes)",
                BROKEN,
            )
            return
        for host, heard in self.heard.items():
            if host not in self.done and now - heard > HEARD * self.limits.lost:
                seconds = f"{now - heard:.0f} s"
                self._lose(host, f"nothing was heard of it for {seconds}")
                return
        self._tick_waits(now)

    @property
    def missing(self) -> list[int]:
        """Those who have not come yet."""
        return [host for host in self.hosts if host not in self.heard]

    def _tick_waits(self, now: float) -> None:
        if self._suspect is not None and now > self._suspect[0]:
            _, line, code = self._suspect
            self._end(line, code)
        elif self._stall is not None and (
            now > self._stall.until or len(self._here) == len(self.hosts)
        ):
            self._end_stalled(self._stall)
        elif (
            self._stop is not None
            and now > self._stop[0]
            and (silent := self._unanswered())
        ):
            name = signal.Signals(self._stop[1]).name
            self._end(f"{name}: {name_hosts(silent)} did not answer", BROKEN)
        for name, (until, found) in self._gathers.items():
            if now > until and self.ending is None:
                late = [host for host in self.hosts if host not in found]
                self._end(
                    f"{name_hosts(late)} did not come to the {name} within "
                    f"{self.limits.join / 60:g} minutes (run.join_minutes)",
                    BROKEN,
                )

    def _say_all(self, message: Message) -> None:
        self.out += [(host, message) for host in self.hosts if host in self.heard]

    def _end(self, line: str, code: int, dump: bool = False) -> None:
        """One end for all; `dump`: with the stacks of each host's threads."""
        self.ending = {"kind": "end", "line": line, "code": code, "dump": dump}
        self._say_all(self.ending)

    def _gather(self, host: int, message: Message, now: float) -> None:
        name = message["name"]
        until = math.inf if message["patient"] else now + self.limits.join
        found = self._gathers.setdefault(name, (until, {}))[1]
        found[host] = message["value"]
        if len(found) == len(self.hosts):
            del self._gathers[name]
            values = [found[host] for host in self.hosts]
            self._say_all({"kind": "gathered", "name": name, "values": values})

    def _signal(self, host: int, message: Message, now: float) -> None:
        number = message["number"]
        if self._stop is None:
            self._stop = (now + self.limits.lost, number, host)
            if len(self.heard) < len(self.hosts):
                self._end_at_once(number, host)
                return
            why = message["why"] or signal.Signals(number).name
            self._say_all(
                {"kind": "stop", "number": number, "why": f"{why} on host {host}"}
            )
        elif message["again"] and number == signal.SIGINT == self._stop[1]:
            self._end("stopped at once; nothing was saved", CODES[signal.SIGINT])

    def _end_at_once(self, number: int, host: int) -> None:
        name = signal.Signals(number).name
        said = f"{name} on host {host}: stopped at once; nothing was saved"
        self._end(said, CODES[signal.Signals(number)])

    def _take_passed(self, host: int, passed: int | None) -> None:
        """The last boundary that a host has passed; None where it saves nothing yet."""
        if self._stop is None:
            return
        _, number, asked = self._stop
        if passed is None:
            self._end_at_once(number, asked)
            return
        self._passed[host] = passed
        self._set_boundary()

    def _unanswered(self) -> list[int]:
        """Those that have not said which boundary they have passed, and still work."""
        return [x for x in self.hosts if x not in self._passed and x not in self.done]

    def _set_boundary(self) -> None:
        if self._passed and not self._unanswered():
            last = max(self._passed.values())
            self._say_all({"kind": "stop_at", "boundary": last + 1})

    def _suspects(self, host: int, message: Message, now: float) -> None:
        """An error that may be no more than what another host's end has brought about."""
        line, code, until = f"host {host}: {message['line']}", message["code"], _PATIENCE
        if message["severed"]:
            if self._suspect is not None:
                return
            line = f"host {host} lost its connection to the others ({message['line']})"
            code, until = BROKEN, self.limits.lost * HEARD
        elif self._suspect is not None and self._suspect[2] != BROKEN:
            return
        self._suspect = (now + until, line, code)

    def _others(self, *but: int) -> str:
        return tell({host: str(x) for host, x in self.positions.items() if host not in but})

    def _again(self) -> str:
        is_training = any(position.part for position in self.positions.values())
        return "; start all again" + " with --run.resume auto" * is_training

    def _lose(self, host: int, why: str) -> None:
        line = f"host {host} was lost {self.positions[host]} ({why})"
        self._end(f"{line}; {self._others(host)}{self._again()}", BROKEN)

    def _end_stalled(self, stall: Stall) -> None:
        """Behind is who does not answer; else who is fewest parts, then boundaries, on."""
        silent = [
            host
            for host in self.hosts
            if self._here.get(host, (0, "stopped"))[1] == "stopped"
        ]
        places = {
            host: (self.positions[host].begun, self._here[host][0])
            for host in self.hosts
            if host in self._here
        }
        least = min(places.values(), default=(0, 0))
        behind = silent or [host for host, place in places.items() if place == least]
        what = f"does not move on {self.positions[stall.host]} ({stall.seconds:.0f} s)"
        if len(behind) == len(self.hosts):
            line = f"the run {what}: no host is behind the others; {self._others()}"
        else:
            said = {
                host: str(self.positions[host]) + " without an answer" * (host in silent)
                for host in behind
            }
            line = f"the run {what}: behind: {tell(said)}; {self._others(*behind)}"
        self._end(f"{line} (run.stall_minutes){self._again()}", BROKEN, dump=True)
