"""Programs that attack the judge, run only in the sandbox; what each layer holds."""

import collections
import fcntl
import os
import resource
import time

import pytest

from stepcoder_jax.execution import Pool, SandboxError
from stepcoder_jax.execution.sandbox import confinement
from stepcoder_jax.records import Mode, Verdict
from tests.execution.kit import (
    judge,
    make_program,
    make_settings,
    pool_fixture,
    read_hostile,
    wrong_verdicts,
)

pool = pool_fixture()


LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
# Each program prints "open" when its attack succeeds; a held one raises or prints less.
ATTACKS = {
    "read": "open('/etc/hostname').read()",
    "read the worker's file": "open('/proc/%d/environ' % os.getppid()).read()",
    "list": "os.listdir('/')",
    "write": "open('/tmp/stepcoder_attack', 'w')",
    "shared memory file": "open('/dev/shm/stepcoder_attack', 'w')",
    "shared memory": "from multiprocessing import shared_memory as s\n"
    "s.SharedMemory(create=True, size=9)",
    "memfd": "os.memfd_create('x')",
    "shmget": "assert libc.shmget(0, 4096, 0o1600) >= 0",
    "mkdir": "os.mkdir('/tmp/stepcoder_attack_folder')",
    "link": "os.symlink('/etc/passwd', '/tmp/stepcoder_attack_link')",
    "chmod": "os.chmod(os.__file__, 0o644)",
    "touch": "os.utime(os.__file__)",
    "truncate": "os.truncate('/dev/null', 0)",
    "tcp": "import socket; socket.socket()",
    "unix datagrams": "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "fork": "os.fork()",
    "vfork": "assert libc.vfork() > 0",
    "spawn": "import subprocess; subprocess.run(['/bin/true'], check=True)",
    "exec": "os.execv('/bin/echo', ['echo', 'open'])",
    "kill the worker": "os.kill(os.getppid(), 9)",
    "kill everybody": "os.kill(-1, 0)",  # asks leave only: it may be run with a layer off
    "signal a thread of the worker": "assert libc.syscall(234, os.getppid(), "
    "os.getppid(), 0) == 0",
    "pidfd": "os.pidfd_open(os.getppid())",
    "ptrace": "assert libc.ptrace(16, os.getppid(), 0, 0) == 0",
    "raise limits": "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))",
    "others' limits": "import resource as r; r.prlimit(os.getppid(), r.RLIMIT_CPU, (1, 1))",
    "namespaces": "assert libc.unshare(0x10000000) == 0",
    "outlive the worker": "assert libc.prctl(1, 0, 0, 0, 0) == 0",
    "signals by files": "import fcntl; fcntl.fcntl(1, 8, os.getppid())",
    "signals at each change": "import fcntl; fcntl.ioctl(os.pipe()[0], 0x5452, b'1234')",
    "lease": "import fcntl; fcntl.fcntl(os.open(os.__file__, 0), 1024, 0)",
    "lease of an own file": "import fcntl; fcntl.fcntl(0, 1024, 2)",
    "notice of a folder": "import fcntl; x = os.open(os.path.dirname(os.__file__), 0)\n"
    "fcntl.fcntl(x, 1026, 1)",
    "watch": "assert libc.inotify_init() >= 0",
    "flock": "import fcntl; fcntl.flock(os.open(os.__file__, 0), 6)",
    "flock of a device": "import fcntl; fcntl.flock(os.open('/dev/null', 0), 6)",
    "read lock": "import fcntl; fcntl.lockf(os.open(os.__file__, 0), 5)",
    "open file lock": "import fcntl, struct\n"
    "fcntl.fcntl(os.open(os.__file__, 0), 37, struct.pack('hhqqi4x', 0, 0, 0, 0, 0))",
    "hint on a file": "import fcntl; x = os.open(os.__file__, 0)\n"
    "fcntl.fcntl(x, 1036, b'5' + b'\\0' * 7)",
    "pages of a file": "os.posix_fadvise(os.open(os.__file__, 0), 0, 0, 4)",
    "pages of a map": "import mmap; m = mmap.mmap(os.open(os.__file__, 0), 0, prot=1)\n"
    "m.madvise(21)",
    "large pipe": "import fcntl; fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)",
    "large socket": "import socket; socket.socketpair()[0].setsockopt(1, 7, 1 << 20)",
    "flags of a file": "import fcntl; x = os.open(os.__file__, 0)\n"
    "fcntl.ioctl(x, 0x80086601, b'1' * 8)",
    "to be looked into": "assert libc.prctl(4, 1, 0, 0, 0) == 0",
    "a core for itself": "assert libc.prctl(62, 1, 0, 0, 0) == 0",
    "kernel's requests": "assert libc.syscall(206, 9, ctypes.byref(ctypes.c_long(0))) == 0",
    "all processors interrupted": "assert libc.syscall(324, 2, 0, 0) == 0",
    "memory that stays": "x = ctypes.create_string_buffer(1 << 20)\n"
    "assert libc.mlock(x, 1 << 20) == 0",
    "a hundred timers": "t = ctypes.c_long(0)\n"
    "for _ in range(100): assert libc.timer_create(1, None, ctypes.byref(t)) == 0",
    "a thread with files of its own": "assert libc.syscall(56, 0x10B00, 0, 0, 0, 0) >= 0",
    "calls of newer kernels": "assert libc.syscall(457, 0, 0, 0, 0) >= 0 or "
    "ctypes.get_errno() != 38",
    "become root": "os.setuid(0) or os.chroot('/')",
    "io_uring": "assert libc.syscall(425, 1, ctypes.create_string_buffer(120)) >= 0",
    "leave the seccomp table": "assert libc.syscall(0x40000000 + 39) > 0",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_held(pool, name):
    report = judge(pool, f"{LIBC}{ATTACKS[name]}\nprint('open')\n", ("", "open\n"))
    assert report.verdict is Verdict.RUNTIME, report
    assert "open" not in report.tests[0].stdout


INNOCENT = {
    "asyncio": "import asyncio\nasync def f(): print(3)\nasyncio.run(f())",
    "threads": "import threading as t\nx = [t.Thread(target=print, args=(3,))]\n"
    "x[0].start(); x[0].join()",
    "thread with a large stack": "import threading as t\nt.stack_size(2**27)\n"
    "x = t.Thread(target=lambda: print(3)); x.start(); x.join()",
    "recursion": "import sys\nsys.setrecursionlimit(10**6)\n"
    "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(50000) - 49997)",
    "stack limit": "import resource as r\n"
    "r.setrlimit(r.RLIMIT_STACK, (2**28, r.getrlimit(r.RLIMIT_STACK)[1]))\nprint(3)",
    "lazy imports": "import decimal, fractions, zlib, array, queue, hashlib\nprint(3)",
    "commands for own files": "import fcntl, mmap, os, socket, termios\n"
    "r, w = os.pipe(); os.set_inheritable(r, True); os.set_blocking(r, False)\n"
    "assert fcntl.fcntl(r, fcntl.F_GETFL) & os.O_NONBLOCK and not os.isatty(r)\n"
    "os.write(w, b'3'); assert fcntl.ioctl(r, termios.FIONREAD, b'0' * 4)[0] == 1\n"
    "m = mmap.mmap(-1, 9); m.madvise(mmap.MADV_DONTNEED); m.flush(); os.fsync(1)\n"
    "a, b = socket.socketpair(); a.settimeout(1); a.sendall(b'3')\n"
    "print(b.recv(1).decode())",
    "a name for a thread": "import ctypes\n"
    "print(3 if ctypes.CDLL(None).prctl(15, b'name', 0, 0, 0) == 0 else 0)",
    "read own input again": "import os\nos.read(0, 1); os.lseek(0, 0, 0)\nprint(input())",
}


@pytest.mark.parametrize("name", INNOCENT)
def test_innocent_programs_are_not_held(pool, name):
    report = judge(pool, INNOCENT[name] + "\n", ("3\n", "3\n"))
    assert report.passed, report


def test_locks_of_a_program_keep_nobody_waiting():
    """While it has tried to lock a file of the interpreter and runs on."""
    source = "import fcntl, os, time\nfd = os.open(os.__file__, os.O_RDONLY)\n"
    source += "try: fcntl.flock(fd, fcntl.LOCK_EX)\nexcept OSError: pass\n"
    source += "try: fcntl.lockf(fd, fcntl.LOCK_SH)\nexcept OSError: pass\n"
    source += "time.sleep(0.2)\nprint(3)\n"
    got = []
    with Pool(make_settings(workers=1)) as pool, open(os.__file__, "rb") as file:
        asked = pool.stream([make_program(source, ("", "3\n"))] * 2)
        reports = [next(asked)]  # the second runs meanwhile
        for _ in range(10):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            got.append(fcntl.flock(file, fcntl.LOCK_UN))
            time.sleep(0.01)
        reports += asked
    assert all(report.passed for _, report in reports) and len(got) == 10


CHEATS = {
    "expected values in frames": "import sys, gc\nframe = sys._getframe()\n"
    "while frame:\n    print([v for v in frame.f_locals.values() if 'SECRET' in str(v)])\n"
    "    frame = frame.f_back\n",
    "expected values in objects": "import gc\n"
    "print([o for o in gc.get_objects() if 'SECRET' in str(o)[:500]])\n",
    "leave early": "import os\nos._exit(0)\n",
    "leave by an exit hook": "import atexit, os\natexit.register(os._exit, 0)\n",
    "patched exits": "import os\nos._exit = lambda code: None\nraise ValueError\n",
    "result descriptor": "import os\nos.pwrite(3, b'\"SECRET\"', 0)\n",
    "tampered coverage": "import builtins, sys\nfor name in vars(builtins).copy():\n"
    "    if name[0] == '@': vars(builtins).pop(name)\n"
    "getattr(sys, 'monitoring', None) and sys.monitoring.free_tool_id(1)\n",
    "str that equals all": "class S(str):\n    def __eq__(s, o): return True\n"
    "print(S('x'))\n",
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_do_not_pass(pool, name):
    report = judge(pool, CHEATS[name], ("", "SEC" + "RET\n"))
    assert report.verdict in (Verdict.WRONG, Verdict.RUNTIME), report


CALL_CHEATS = {
    "equal to all": "class E(int):\n    def __eq__(s, o): return True\n"
    "def f(): return E(1)",
    "equal list": "class E(list):\n    def __eq__(s, o): return True\n"
    "    def __iter__(s): return iter([5])\ndef f(): return E([9])",
    "exit in the function": "import os\ndef f(): os._exit(0)",
    "own result": "import os\ndef f():\n    os.pwrite(3, b'5', 0)\n    return 6",
    "patched len": "import builtins\nbuiltins.len = lambda x: 0\n"
    "builtins.isinstance = lambda *a: True\ndef f(): return 6",
    "spoofed class": "class C:\n    __class__ = int\n    def __int__(s): return 5\n"
    "def f(): return C()",
    "nan": "def f(): return float('nan')",
    "no answer": "def f(): pass",
    "deep": "def f():\n    x = 5\n    for _ in range(10**5): x = [x]\n    return x",
    "crafted bytes": "import os\ndef f():\n    os.pwrite(3, b'[' * 10**6, 0)\n"
    "    os._exit(0)",
}


@pytest.mark.parametrize("name", CALL_CHEATS)
def test_call_cheats_do_not_pass(pool, name):
    options = {"mode": Mode.CALL, "entry_point": "f"}
    report = judge(pool, CALL_CHEATS[name] + "\n", ((), 5), **options)
    assert report.verdict in (Verdict.WRONG, Verdict.RUNTIME), report


def test_patched_builtins_do_not_disturb_the_verdict(pool):
    source = "import builtins\nbuiltins.issubclass = builtins.len = lambda *a: 0\n"
    source += "def f(x): return x"
    options = {"mode": Mode.CALL, "entry_point": "f"}
    assert judge(pool, source, (([5],), [5]), **options).passed
    assert judge(pool, source, ((6,), 5), **options).verdict is Verdict.WRONG


def test_attacks_leave_the_worker_sound(pool):
    pids = [worker.process.pid for worker in pool._workers if worker is not None]
    before = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids}
    for source in [
        "import os\nwhile True: os.dup(0)",
        "import os\nos.closerange(0, 99)",
    ] * 5:
        judge(pool, source, ("", "3"))
    assert judge(pool, "print(3)", ("", "3")).passed
    assert {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids} == before


def test_shared_hostile_programs(pool):
    rows, programs = read_hostile()
    assert not wrong_verdicts(rows, pool.run(programs))


def test_workers_keep_a_limit_of_files_of_their_own(pool):
    """A user's descriptors on their way through sockets count against the sender's limit.

    With a program's limit, a worker could send none once another program had sent many.
    """
    mine = resource.getrlimit(resource.RLIMIT_NOFILE)
    for pid in pool.pids:
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == mine
    source = "import resource\nprint(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    assert judge(pool, source, ("", "64 64\n")).passed


# the layers and the level


def test_the_canaries_measure_level_3_or_2():
    with Pool(make_settings(workers=1)) as pool:
        assert pool.level == (3 if pool.layers["landlock"].startswith("ABI") else 2)
        assert tuple(pool.layers) == confinement.LAYERS
        opened = [name for name, saw in pool.canaries.items() if saw == "open"]
        assert pool.level < 3 or not opened


# Without the layer, these attacks succeed; with it they do not: no layer is decoration.
HELD_BY = {
    "landlock": ("read", "list"),
    "seccomp": (
        "memfd",
        "tcp",
        "unix datagrams",
        "fork",
        "pidfd",
        "outlive the worker",
        "signals by files",
        "flock",
        "large pipe",
        "all processors interrupted",
    ),
    "rlimits": ("a hundred timers",),
}


@pytest.mark.parametrize(
    ("layer", "level"), [("landlock", 2), ("seccomp", 1), ("rlimits", 0)]
)
def test_each_layer_holds_what_it_is_there_for(layer, level, capfd):
    settings = make_settings(workers=1, without=(layer,), allow_unsafe=True)
    with Pool(settings) as pool:
        assert pool.level == level
        assert pool.layers[layer] == "switched off"
        flipped = {
            name: judge(pool, f"{LIBC}{ATTACKS[name]}\nprint('open')\n", ("", "open\n"))
            for names in HELD_BY.values()
            for name in names
        }
        opened = {
            name for name, report in flipped.items() if "open" in report.tests[0].stdout
        }
        assert opened == set(HELD_BY[layer])
        bomb = judge(pool, "x = bytes(10**9)\nprint('open')\n", ("", "open\n"))
        assert bomb.passed == (layer == "rlimits")
    assert f"isolation level {level} of 3" in capfd.readouterr().err


def test_too_low_a_level_is_refused_with_the_mend():
    with pytest.raises(SandboxError, match=r"reached level 1.*allow_unsafe"):
        Pool(make_settings(workers=1, without=("seccomp",)))
    with Pool(make_settings(workers=1, without=("seccomp",), min_level=1)) as pool:
        assert pool.level == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its uid")
def test_root_keeps_no_power_in_the_sandbox():
    source = "import os\nprint(os.getuid())\nos.setuid(0); os.setgid(5)"
    seen = collections.Counter()
    for python in ("", "/usr/bin/python3"):
        if python and not os.path.exists(python):
            continue
        with Pool(make_settings(workers=1, python=python)) as pool:
            report = judge(pool, source, ("", ""))
            assert report.tests[0].error == "PermissionError"
            seen[report.tests[0].stdout != "0\n"] += 1
            dropped = pool.layers["uid"].startswith("dropped to")
            assert dropped == (report.tests[0].stdout != "0\n")
            assert pool.level >= 2
    assert seen
