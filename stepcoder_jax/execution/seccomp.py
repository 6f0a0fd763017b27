"""The system calls that an untrusted program may not make, as seccomp BPF programs.

There are two: the long one holds what a worker has no need of either, so that it puts it
on itself once and its children inherit it; the short one is put on in each child. (For
every filter the kernel tries all call numbers when it is put on: 0.3 ms for the long one.)

Numbers are those of x86-64 and aarch64 (Linux unistd.h); None where the architecture has
no such call. Everything else is allowed: files are Landlock's affair, sizes and times are
the resource limits'.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping

# name: (x86-64, aarch64)
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # network; a connected pair of stream sockets stays (asyncio needs it), see below
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "accept4": (288, 242),
    "bind": (49, 200),
    "listen": (50, 201),
    # processes
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    # namespaces, mounts and the machine itself
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "personality": (135, 92),
    "sync": (162, 81),
    "syncfs": (306, 267),
    # kernel surface that no judged program needs
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "seccomp": (317, 277),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "lookup_dcookie": (212, 18),
    "fanotify_init": (300, 262),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # memory that RLIMIT_AS does not count
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # what the same user's other processes made of these, by guessing its number or name
    "shmctl": (31, 195),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_unlink": (241, 181),
    # the worker's share of the machine, which the same user may change
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    # changes to files that Landlock does not govern
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "truncate": (76, 45),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
}
# what the worker itself calls, with any arguments
_WORKERS = {"pidfd_open": (434, 434), "memfd_create": (319, 279)}
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_KILL = ((62, 129), (234, 131))  # kill, tgkill
_PRLIMIT64 = (302, 261)
_SOCKETPAIR = (53, 199)
_FCNTL = (72, 25)
_PRCTL = (157, 167)

_ARCH = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
_AF_UNIX = 1
_SOCK_STREAM = 1
_FCNTL_SIGNALS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX
_PR_SET_PDEATHSIG = 1
_PID_MARK = 0x7FEDCBA9  # stands where a pid is to be: no other operand

# struct sock_filter and the opcodes of linux/bpf_common.h
_INSTRUCTION = struct.Struct("HBBI")
_OPERAND = 4  # its offset in an instruction
_LOAD, _JEQ, _JGE, _JSET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_ARGS = 0, 4, 16
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_DENY = _ERRNO | errno.EPERM

Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether there is a table for this machine's architecture."""
    return platform.machine() in _ARCH


def worker_filter() -> bytes:
    """Return the BPF program for a worker, which its children inherit.

    Denied calls fail with EPERM; clone3 with ENOSYS, so that glibc falls back to clone,
    whose flags a filter can read.
    """
    column, audit_arch = _ARCH[platform.machine()]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_JEQ, 1, 0, audit_arch),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NR),
    ]
    if column == 0:
        program += [(_JGE, 0, 1, _X32_BIT), (_RETURN, 0, 0, _DENY)]
    program += [(_JEQ, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    program += _when(
        _SOCKETPAIR[column],
        [
            *_argument(0),
            (_JEQ, 0, 3, _AF_UNIX),
            *_argument(1),
            (_AND, 0, 0, 0xF),
            (_JEQ, 1, 0, _SOCK_STREAM),
        ],
    )
    program += _unless_argument(_FCNTL[column], 1, _FCNTL_SIGNALS)
    return _pack(program + _deny_all(_DENIED, column))


def child_filter() -> tuple[bytes, list[int]]:
    """Return the BPF program for a child of a filtered worker, and where its pid stands.

    Threads pass, processes do not; signals go alone to the process whose pid is put there,
    as a native unsigned int.
    """
    column, _ = _ARCH[platform.machine()]
    program: list[Instruction] = [(_LOAD, 0, 0, _OFFSET_NR)]
    program += _when(_CLONE[column], [*_argument(0), (_JSET, 1, 0, _CLONE_THREAD)])
    for numbers in _KILL:
        program += _when(numbers[column], [*_argument(0), (_JEQ, 1, 0, _PID_MARK)])
    program += _when(_PRLIMIT64[column], [*_argument(0), (_JEQ, 1, 0, 0)])
    program += _unless_argument(_PRCTL[column], 0, (_PR_SET_PDEATHSIG,))
    marked = [place for place, (*_, operand) in enumerate(program) if operand == _PID_MARK]
    places = [_INSTRUCTION.size * place + _OPERAND for place in marked]
    return _pack(program + _deny_all(_WORKERS, column)), places


def _deny_all(
    calls: Mapping[str, tuple[int | None, int | None]], column: int
) -> list[Instruction]:
    """The end of a program: EPERM for these calls, and allow all others."""
    program: list[Instruction] = []
    for pair in calls.values():
        if pair[column] is not None:
            program += [(_JEQ, 0, 1, pair[column] or 0), (_RETURN, 0, 0, _DENY)]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _pack(program: list[Instruction]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def _argument(index: int) -> list[Instruction]:
    """Load the low half of an argument (both architectures are little-endian)."""
    return [(_LOAD, 0, 0, _OFFSET_ARGS + 8 * index)]


def _when(number: int, test: list[Instruction]) -> list[Instruction]:
    """For call `number`: allow when the last jump of `test` is taken, else EPERM."""
    block = [*test, (_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _ALLOW)]
    return [(_JEQ, 0, len(block), number), *block]


def _unless_argument(number: int, index: int, values: tuple[int, ...]) -> list[Instruction]:
    """For call `number`: EPERM when the argument is one of `values`, else allow."""
    block = _argument(index)
    for value in values:
        block += [(_JEQ, 0, 1, value), (_RETURN, 0, 0, _DENY)]
    block.append((_RETURN, 0, 0, _ALLOW))
    return [(_JEQ, 0, len(block), number), *block]
