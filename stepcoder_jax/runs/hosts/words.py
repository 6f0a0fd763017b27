"""What a trainer says on standard error: passed on, but for the last words of C++.

JAX ends a process whose coordination service has failed by abort(), with a stack of C++ on
the terminal. Who watches knows why, and says it in one line; the rest is kept.
"""

from __future__ import annotations

import re
import signal
from collections import deque

from stepcoder_jax.runs.hosts.wire import Message

_KEPT = 400  # lines
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
# glog's levels before what is said of the other hosts, and what begins a stack
_NOISE = re.compile(
    rb"[EWF]\d{4} .*(coordination|distributed_runtime|distributed service|preemption"
    rb"|heartbeat|PollForError)",
    re.IGNORECASE,
)
_DYING = re.compile(
    rb"F\d{4} |\*\*\* Check failure|Fatal Python error: Aborted|terminate called"
)
# words of an error that another host's end brings about: Gloo's, NCCL's and the service's
_SEVERED = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|closed by peer|broken pipe|heartbeat"
    r"|coordination|distributed service|preempt|unavailable|deadline.exceeded"
    r"|task .* (died|failed)|barrier",
    re.IGNORECASE,
)


def is_severed(said: str) -> bool:
    """Whether an error of JAX's runtime says no more than that another host is gone."""
    return bool(_SEVERED.search(said))


class Relay:
    """Standard error of a trainer, by whole lines."""

    def __init__(self) -> None:
        self.rest = b""
        self.kept: deque[bytes] = deque(maxlen=_KEPT)  # shown or not
        self.is_dying = False

    def feed(self, read: bytes) -> bytes:
        """What of it is to be shown."""
        *lines, self.rest = (self.rest + read).split(b"\n")
        return b"".join(line + b"\n" for line in lines if self._shows(line))

    def close(self) -> bytes:
        """What is to be shown of a last line without an end."""
        line, self.rest = self.rest, b""
        return line + b"\n" if line and self._shows(line) else b""

    def _shows(self, line: bytes) -> bool:
        self.kept.append(line)
        self.is_dying = self.is_dying or bool(_DYING.match(line))
        return not self.is_dying and not _NOISE.match(line)

    @property
    def text(self) -> str:
        """The end of it, whole."""
        return b"\n".join(self.kept).decode(errors="replace")

    @property
    def last(self) -> str:
        """The last line that was shown, else of all."""
        lines = [line for line in self.kept if line.strip()]
        return lines[-1].decode(errors="replace").strip()[:300] if lines else ""


def cause_of(code: int, relay: Relay) -> Message:
    """Why a trainer ended that did not tell, by its exit code and its words."""
    if code == 0:
        return {"kind": "done", "code": 0}
    if code > 0:
        said = f"ended with code {code} ({relay.last})"
        return {"kind": "error", "line": said, "code": code, "severed": False}
    number = signal.Signals(-code)
    if number not in _CRASHES:
        return {"kind": "lost", "why": f"killed by {number.name}"}
    severed = number == signal.SIGABRT and is_severed(relay.text)
    said = f"crashed by {number.name} ({relay.last})"
    return {"kind": "error", "line": said, "code": 1, "severed": severed}
