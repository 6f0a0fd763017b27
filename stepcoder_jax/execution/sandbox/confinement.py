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
import resource
import sys
from collections.abc import Callable
from typing import NamedTuple

from stepcoder_jax.execution.sandbox import landlock, namespaces, seccomp

LAYERS = ("landlock", "seccomp", "rlimits", "uid", "namespaces")
STACK_BYTES = 256 << 20  # soft limit of the main thread's stack
_MAX_FILES = 64
_FIRST_UID = 64_200
# A worker keeps its own limit of open files: a sender's limit bounds the descriptors that
# all processes of its user have on their way through sockets.
_OF_EACH_TEST = (
    resource.RLIMIT_CPU,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_AS,
    resource.RLIMIT_NOFILE,
)
# Signals and timers that wait are counted per user: so many of one program.
_MAX_PENDING = 64
_NO_CEILING = sys.maxsize

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522
_SIGKILL = 9
_ORPHANED = 1  # exit status
_MACHINE = seccomp.machine()

_libc = ctypes.CDLL(None, use_errno=True)


class Layout(NamedTuple):
    """The folders of an interpreter."""

    stdlib: str
    platstdlib: str
    third_party: list[str]  # -S leaves them out of sys.path


_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_raw_prctl = _libc.prctl


class _FilterProgram(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class _Filter:
    """A BPF program where the kernel can read it, made once."""

    def __init__(self, code: bytes, pid_places: list[int]) -> None:
        self.code = ctypes.create_string_buffer(code, len(code))
        self.words = memoryview(self.code).cast("B").cast("I")
        self.pid_words = [place // self.words.itemsize for place in pid_places]
        self.program = _FilterProgram(len(code) // 8, ctypes.addressof(self.code))
        self.address = ctypes.addressof(self.program)

    def install(self) -> None:
        """Put it on this process, for good."""
        pid = os.getpid()
        for word in self.pid_words:  # which may signal itself
            self.words[word] = pid
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self.address)

    def install_with_listener(self) -> int:
        """As `install`; return the descriptor on which the kernel's questions arrive.

        Old kernels have none, and a process can have only one. Then nothing is installed,
        and -1 is returned.
        """
        flags = (_SET_MODE_FILTER, _NEW_LISTENER)
        return int(_seccomp(_SECCOMP[_MACHINE], *flags, self.address))


_seccomp = ctypes.CDLL(None, use_errno=True).syscall
_seccomp.argtypes = (ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)


def _prctl(option: int, first: int = 0, second: int = 0) -> None:
    if _raw_prctl(option, first, second, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent's thread ends.

    `parent` is the parent's process id. If it ended before the kernel knew of this, nobody
    would kill us: then we end ourselves.
    """
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(_ORPHANED)


def set_dumpable(allowed: bool) -> None:
    """Whether other processes of this user may look into this one."""
    _prctl(_PR_SET_DUMPABLE, int(allowed))


class Sandbox:
    """What a worker prepares once, and each of its children enters.

    `without` names layers to leave out (see LAYERS); `slot` tells workers apart, each
    has a uid of its own. After `prepare`, `layers` says what will be put on.
    """

    def __init__(self, slot: int, without: tuple[str, ...], layout: Layout) -> None:
        self.without = without
        self.layout = layout
        self.parent = 0  # the process that forks children, with which they end
        self.uid = _FIRST_UID + slot % 1000
        self.has_namespaces = False
        self.drops_uid = False
        self.drops_capabilities = False
        self.ruleset = -1
        self.landlock_abi = 0
        self.filters: list[_Filter] = []
        self.asking: _Filter | None = None
        self.listener = -1  # of this worker: who starts a thread asks there
        self.limits: dict[int, int] = {}
        self.ceilings: list[tuple[int, int]] = []

    def prepare(self) -> None:
        """Do in the worker what need not be done in each child."""
        self.parent = os.getpid()
        os.chdir("/")
        readable = _readable_paths(self.layout)
        if "namespaces" not in self.without:
            self._enter_namespaces()  # while the process may still write its own /proc
        set_dumpable(False)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if "landlock" not in self.without:
            self.landlock_abi = landlock.abi_version()
            if self.landlock_abi:
                self.ruleset = landlock.create_ruleset(readable)
        if "seccomp" not in self.without and seccomp.supported():
            plain, asking = map(seccomp.worker_filter, (False, True))
            self.filters = [_Filter(plain, []), _Filter(*seccomp.child_filter())]
            # Made now: made later, it would write to other pages than those that the
            # worker's trials found.
            self.asking = _Filter(asking, [])
        if "rlimits" not in self.without:
            nothing = (
                resource.RLIMIT_CORE,
                resource.RLIMIT_MEMLOCK,
                resource.RLIMIT_MSGQUEUE,
            )
            self.limits = dict.fromkeys(nothing, 0)
            self.limits[resource.RLIMIT_SIGPENDING] = _MAX_PENDING
            self.ceilings = [(which, _ceiling(which)) for which in _OF_EACH_TEST]
        if "uid" not in self.without and os.geteuid() == 0:
            self._prepare_identity()

    def confine_worker(self, listener: int) -> None:
        """Put on the worker the layers that its children then inherit.

        Left to the children is what the worker itself still needs (to fork, to signal its
        children), and what differs from test to test. A child that starts a thread asks on
        the descriptor `listener`, where the kernel offers one.
        """
        if self.asking is not None:
            plain = self.filters.pop(0)
            opened = self.asking.install_with_listener()
            if opened < 0:
                plain.install()
            else:
                self.listener = os.dup2(opened, listener, inheritable=False)
                os.close(opened)
        _limit_all(self.limits)
        self.limits = {}

    def _enter_namespaces(self) -> None:
        """Optional. A child tries it first, since half of it could not be undone."""
        self.has_namespaces = _works_in_child(namespaces.enter)
        if self.has_namespaces:
            namespaces.enter()
            if os.geteuid() != 0:
                _drop_bounding_set()
                _drop_capabilities()

    def _prepare_identity(self) -> None:
        with contextlib.suppress(OSError):  # a user namespace may forbid it: no matter
            os.setgroups([])
        self.drops_uid = _works_in_child(self._drop_uid_and_import)
        if not self.drops_uid:
            _drop_bounding_set()
            self.drops_capabilities = _MACHINE in _CAPSET

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
        machine = _MACHINE
        tasks = "" if self.listener >= 0 else ", threads not counted"
        return {
            "landlock": kernel,
            "seccomp": f"{machine} table{tasks}" if self.filters else f"no {machine} table",
            "rlimits": "address space, file size, files, core, CPU, pending signals",
            "uid": identity,
            "namespaces": "network, IPC" if self.has_namespaces else "not allowed here",
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
        die_with_parent(self.parent)  # after the change of uid, which clears it
        if self.limits:  # of a child of a worker that has not put them on itself
            _limit_all(self.limits)
        values = (cpu_seconds, output_bytes, memory_bytes, _MAX_FILES)
        for (which, ceiling), value in zip(self.ceilings, values):
            value = min(value, ceiling)
            resource.setrlimit(which, (value, value))
        if self.ruleset >= 0:
            landlock.restrict_self(self.ruleset)
        for each in self.filters:
            each.install()


def _limit_all(limits: dict[int, int]) -> None:
    """Set hard and soft limits, none above what is allowed."""
    for which, value in limits.items():
        value = min(value, _ceiling(which))
        resource.setrlimit(which, (value, value))


def _ceiling(which: int) -> int:
    """The highest value that a limit may still be set to."""
    hard = resource.getrlimit(which)[1]
    return _NO_CEILING if hard == resource.RLIM_INFINITY else hard


def _drop_bounding_set() -> None:
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            return  # past the last one, or not ours to drop: the sets below go anyway


# Made once: a child that makes ctypes arrays, and their classes, pays 80 pages for them.
_CAPABILITY_HEADER = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()
_capset = ctypes.CDLL(None, use_errno=True).syscall
_capset.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def _drop_capabilities() -> None:
    if _capset(_CAPSET[_MACHINE], _CAPABILITY_HEADER, _NO_CAPABILITIES) != 0:
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
