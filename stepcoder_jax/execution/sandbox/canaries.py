"""What a sandboxed process can really do, tried from inside; the result sets the level.

L3: files, network, processes and memory are all held. L2: all but files, or all but the
network (what is left relies on the uid). L1: memory only. L0: nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

_TEST_PORT = 9  # discard


def _open_system_file() -> None:
    with open("/etc/passwd", "rb") as file:
        file.read(1)


def _write_to(folder: str) -> None:
    path = os.path.join(folder, f"canary.{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    os.unlink(path)


def _send_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.sendto(b"x", ("127.0.0.1", _TEST_PORT))


def _connect_tcp() -> None:
    with socket.socket() as endpoint:
        endpoint.settimeout(0.2)
        try:
            endpoint.connect(("127.0.0.1", _TEST_PORT))
        except (ConnectionRefusedError, TimeoutError):
            return  # the packet left this process: the network is open


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _exec() -> None:
    # Not a program, so that success cannot be; ENOEXEC says that exec itself was open.
    try:
        os.execv("/dev/null", ["null"])
    except PermissionError:
        try:
            os.execv("/proc/self/nothing", ["nothing"])
        except FileNotFoundError:
            return


def _signal_parent() -> None:
    os.kill(os.getppid(), 0)


def _read_parent_memory() -> None:
    with open(f"/proc/{os.getppid()}/mem", "rb") as file:
        file.read(0)


def _exceed_memory(limit: int) -> None:
    bytes(limit)  # calloc: reserved, not touched


def probe(memory_bytes: int) -> dict[str, str]:
    """Try everything; each entry is "open" or the error that stopped it."""
    attempts: dict[str, Callable[[], None]] = {
        "read a system file": _open_system_file,
        "write to /tmp": lambda: _write_to("/tmp"),
        "write to the working folder": lambda: _write_to("."),
        "TCP": _connect_tcp,
        "UDP": _send_udp,
        "fork": _fork,
        "exec": _exec,
        "signal the worker": _signal_parent,
        "read the worker's memory": _read_parent_memory,
        "memory above the limit": lambda: _exceed_memory(memory_bytes),
    }
    seen = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            seen[name] = "open"
        except (OSError, MemoryError) as error:
            seen[name] = f"held: {type(error).__name__}"
    return seen


_FILES = ("read a system file", "write to /tmp", "write to the working folder")
_NETWORK = ("TCP", "UDP")
_PROCESSES = ("fork", "exec", "signal the worker", "read the worker's memory")
_MEMORY = ("memory above the limit",)


def level(seen: dict[str, str]) -> int:
    """The isolation level, 3 to 0, that the canaries measured."""

    def held(names: tuple[str, ...]) -> bool:
        return all(seen[name] != "open" for name in names)

    if not held(_MEMORY):
        return 0
    if not held(_PROCESSES):
        return 1
    files, network = held(_FILES), held(_NETWORK)
    return 3 if files and network else 2 if files or network else 1
