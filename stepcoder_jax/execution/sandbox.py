"""The layers around an untrusted program, put on in the forked child that will run it.

Landlock (no file but the interpreter's own, nothing writable), seccomp (no network, no
process, no signal to others), resource limits, another uid where the worker is root, or
no capability where the interpreter cannot be read under another uid. None of them needs
root, namespaces or a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
from collections.abc import Callable
from typing import NamedTuple

from stepcoder_jax.execution import landlock, seccomp

LAYERS = ("landlock", "seccomp", "rlimits", "uid")
STACK_BYTES = 256 << 20  # soft limit of the main thread's stack
_MAX_FILES = 64
_FIRST_UID = 64_200

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522
_SIGKILL = 9

_libc = ctypes.CDLL(None, use_errno=True)


class Layout(NamedTuple):
    """The folders of an interpreter."""

    stdlib: str
    platstdlib: str
    third_party: list[str]  # -S leaves them out of sys.path


class _FilterProgram(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _prctl(option: int, *arguments: object) -> None:
    padded = [*arguments, *([ctypes.c_ulong(0)] * (4 - len(arguments)))]
    if _libc.prctl(option, *padded) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent's thread ends."""
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(_SIGKILL))


class Sandbox:
    """What a worker prepares once, and each of its children enters.

    `without` names layers to leave out (see LAYERS); `slot` tells workers apart, each
    has a uid of its own. After `prepare`, `layers` says what will be put on.
    """

    def __init__(self, slot: int, without: tuple[str, ...], layout: Layout) -> None:
        self.without = without
        self.layout = layout
        self.uid = _FIRST_UID + slot % 1000
        self.drops_uid = False
        self.drops_capabilities = False
        self.ruleset = -1
        self.landlock_abi = 0
        self.filter = b""

    def prepare(self) -> None:
        """Do in the worker what need not be done in each child."""
        os.chdir("/")
        readable = _readable_paths(self.layout)
        _prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0))
        _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))
        if "landlock" not in self.without:
            self.landlock_abi = landlock.abi_version()
            if self.landlock_abi:
                self.ruleset = landlock.create_ruleset(readable)
        if "seccomp" not in self.without and seccomp.supported():
            self.filter = seccomp.build_filter()
        if "uid" not in self.without and os.geteuid() == 0:
            self._prepare_identity()

    def _prepare_identity(self) -> None:
        with contextlib.suppress(OSError):  # a user namespace may forbid it: no matter
            os.setgroups([])
        self.drops_uid = _works_in_child(self._drop_uid_and_import)
        if not self.drops_uid:
            _drop_bounding_set()
            self.drops_capabilities = platform.machine() in _CAPSET

    def _drop_uid_and_import(self) -> None:
        """Fail where the standard library cannot be read under the other uid."""
        self._drop_uid()
        with open(os.path.join(self.layout.stdlib, "os.py"), "rb") as file:
            file.read(1)
        os.listdir(self.layout.platstdlib)

    def _drop_uid(self) -> None:
        os.setresgid(self.uid, self.uid, self.uid)
        os.setresuid(self.uid, self.uid, self.uid)

    @property
    def layers(self) -> dict[str, str]:
        """One word for each layer: what is put on, or why it is not."""
        off = dict.fromkeys(self.without, "switched off")
        identity = "an ordinary user's"
        if self.drops_uid:
            identity = f"dropped to {self.uid}"
        elif self.drops_capabilities:
            identity = "uid 0 without capabilities (the interpreter is root's alone)"
        elif os.geteuid() == 0:
            identity = "root's"
        kernel = f"ABI {self.landlock_abi}" if self.landlock_abi else "not in this kernel"
        machine = platform.machine()
        return {
            "landlock": kernel,
            "seccomp": f"{machine} table" if self.filter else f"no table for {machine}",
            "rlimits": "address space, file size, files, core, CPU",
            "uid": identity,
            **off,
        }

    def enter(self, cpu_seconds: int, memory_bytes: int, output_bytes: int) -> None:
        """Put all layers on this process; every later line of it runs inside.

        `cpu_seconds` is the kernel's backstop behind the worker's own clock.
        """
        if self.drops_uid:
            self._drop_uid()
        elif self.drops_capabilities:
            _drop_capabilities()
        die_with_parent()  # after the change of uid, which clears it
        if "rlimits" not in self.without:
            _limit(resource.RLIMIT_CORE, 0)
            _limit(resource.RLIMIT_CPU, cpu_seconds)
            _limit(resource.RLIMIT_FSIZE, output_bytes)
            _limit(resource.RLIMIT_NOFILE, _MAX_FILES)
            _limit(resource.RLIMIT_AS, memory_bytes)
        if self.ruleset >= 0:
            landlock.restrict_self(self.ruleset)
        if self.filter:
            _install_filter(seccomp.fit_filter(self.filter, os.getpid()))


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _install_filter(code: bytes) -> None:
    program = _FilterProgram(len(code) // 8, code)
    _prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program))


def _drop_bounding_set() -> None:
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability))
        except OSError:
            return  # past the last one, or not ours to drop: the sets below go anyway


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if _libc.syscall(ctypes.c_long(_CAPSET[platform.machine()]), header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def _works_in_child(action: Callable[[], None]) -> bool:
    """Whether `action` ends without an OSError, tried in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _readable_paths(layout: Layout) -> list[str]:
    """The interpreter's own files, shared libraries and a few harmless devices."""
    paths = {
        layout.stdlib,
        layout.platstdlib,
        *layout.third_party,
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/share/zoneinfo",
        "/etc/ld.so.cache",
        "/dev/null",
        "/dev/zero",
        "/dev/urandom",
    }
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if ".so" in path:
                paths.add("/" + os.path.dirname(path))
    return sorted(paths)
