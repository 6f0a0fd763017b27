"""What a remote service runs for one test: `child.run` on files instead of pipes.

It is uploaded with the modules that it imports. In its working folder lie the files of one
test, each with the request's random token as the stem of its name: `.job` (JSON), `.source`
and `.input` come in; `.out`, `.err`, `.result`, `.head` and `.hits` are the parts that a
worker would answer with, and outlive a kill. The program's output goes to files too, for
some services read a pipe only after the program's end, which blocks at 64 KB or so. On the
service's own standard output stands the token alone, written before the program begins.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import resource
from typing import Any

from stepcoder_jax.execution.crossing import codec_clock
from stepcoder_jax.execution.worker import calls, child, defaults, tracer

ANSWERS = ("out", "err", "result", "head")  # on descriptors 1 to 4
HITS = "hits"
_PARKING = 16  # above every descriptor that takes a place, below any limit


def main(token: str) -> None:
    """Run the test of `token` and leave the process; never returns."""
    job = json.loads(_read(f"{token}.job"))
    source, data = _read(f"{token}.source"), _read(f"{token}.input")
    takes_arguments = job["mode"] in ("call", "assert_inproc")
    prelude = defaults.make_prelude()
    text = source.decode("utf-8", "surrogatepass")
    size = tracer.map_size(text, job["coverage"]) + codec_clock.SIZE
    hits = _shared_map(f"{token}.{HITS}", size)
    said = fcntl.fcntl(1, fcntl.F_DUPFD, 2 * _PARKING)
    given = os.devnull if takes_arguments else f"{token}.input"
    _place_descriptors([given, *(f"{token}.{name}" for name in ANSWERS)])
    _set_limits(job["cpu"], job["memory"], job["output"])
    test = child.Job(
        source=text,
        mode=job["mode"],
        entry_point=job["entry_point"],
        arguments=data if takes_arguments else b"",
        coverage=job["coverage"],
        message_limit=job["output"],
    )
    os.write(said, token.encode())
    os.close(said)
    defaults.open_standard_streams()
    defaults.set_all()
    act = calls.run_by_value if takes_arguments else child.run_by_text
    child.run(test, prelude, hits, len(ANSWERS), act)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _shared_map(path: str, size: int) -> mmap.mmap:
    """A map whose bytes are the file's, whatever ends this process."""
    with open(path, "w+b") as file:
        file.truncate(size)
        return mmap.mmap(file.fileno(), size)


def _place_descriptors(paths: list[str]) -> None:
    """Open the first path for reading as 0, the others for writing as 1, 2, ..."""
    parked = []
    for place, path in enumerate(paths):
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if place else os.O_RDONLY
        opened = os.open(path, flags, 0o600)
        parked.append(fcntl.fcntl(opened, fcntl.F_DUPFD, _PARKING))
        os.close(opened)
    for place, descriptor in enumerate(parked):
        os.dup2(descriptor, place)
    os.closerange(len(paths), 2 * _PARKING)


def _set_limits(cpu: float, memory: int, output: int) -> None:
    """CPU time in whole seconds from now, address space, and size of each file."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + cpu)
    limits: dict[Any, tuple[int, int]] = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (seconds, seconds + 1),  # SIGXCPU, then SIGKILL
        resource.RLIMIT_FSIZE: (output, output),
        resource.RLIMIT_AS: (memory, memory),
    }
    for which, pair in limits.items():
        hard = resource.getrlimit(which)[1]
        if hard != resource.RLIM_INFINITY:
            pair = (min(pair[0], hard), min(pair[1], hard))
        resource.setrlimit(which, pair)
