"""System calls by number, and what an untrusted program may ask of them.

Numbers are those of x86-64 and aarch64 (Linux unistd.h), (x86-64, aarch64); None where
the architecture has no such call. Calls that do many things, by a command among their
arguments, are in `COMMANDS` with the commands that pass: a list of what is allowed, so that
what a newer kernel adds to them is held.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

Numbers = tuple[int | None, int | None]
Table = dict[str, Numbers]


class Commands(NamedTuple):
    """Of a call with these numbers: the values of one argument that pass."""

    numbers: Numbers
    argument: int  # counted from 0; all of these are ints of 32 bits to the kernel
    allowed: tuple[int, ...]
    refusal: int = errno.EPERM


# Those that programs make often come first. The files that a program can open belong to
# others too: no leases, locks, hints or flags on them.
COMMANDS: dict[str, Commands] = {
    "madvise": Commands(
        (28, 233),
        2,
        # NORMAL to DONTNEED, FREE, REMOVE, DONTFORK, DOFORK, HUGEPAGE to WIPEONFORK,
        # KEEPONFORK: not to take pages of files from others, nor to merge or break any
        (0, 1, 2, 3, 4, 8, 9, 10, 11, 14, 15, 16, 17, 18, 19),
        errno.EINVAL,
    ),
    "ioctl": Commands(
        (16, 29),
        1,
        # TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX; and what the
        # worker asks of its listener, see tasks.py
        (
            *(0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451),
            *(0xC0502100, 0xC0182101),
        ),
        errno.ENOTTY,
    ),
    "fcntl": Commands(
        (72, 25),
        1,
        # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETOWN, F_DUPFD_CLOEXEC,
        # F_GETPIPE_SZ, F_GET_SEALS
        (0, 1, 2, 3, 4, 9, 1030, 1032, 1034),
    ),
    # all advice but to drop the pages of a file from memory
    "fadvise64": Commands((221, 223), 3, (0, 1, 2, 3, 5), errno.EINVAL),
    # on this process alone: QUERY, PRIVATE_EXPEDITED and their registration
    "membarrier": Commands((324, 283), 0, (0, 8, 16, 32, 64), errno.EINVAL),
    # ARCH_GET_FS, ARCH_GET_GS, ARCH_GET_XCOMP_SUPP to ARCH_REQ_XCOMP_PERM
    "arch_prctl": Commands((158, None), 0, (0x1003, 0x1004, 0x1021, 0x1022, 0x1023)),
    # SO_REUSEADDR, SO_TYPE, SO_ERROR, SO_KEEPALIVE, SO_RCVTIMEO, SO_SNDTIMEO: no memory of
    # the kernel, no filters
    "setsockopt": Commands((54, 208), 2, (2, 3, 4, 9, 20, 21)),
}
# PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP,
# PR_CAPBSET_READ, PR_GET_NO_NEW_PRIVS, PR_SET_VMA
PRCTL = Commands((157, 167), 0, (2, 3, 15, 16, 21, 23, 39, 0x53564D41))

# Nothing that a program can write to is kept anywhere: done, without the disk.
DONE_ALREADY: Table = {
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "msync": (26, 227),
    "sync_file_range": (277, 84),
}

DENIED: Table = {
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
    "process_mrelease": (448, 448),
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
    "fanotify_mark": (301, 263),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
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
    # of which the whole machine, or all of a user's processes, have but so many
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    # locks on files of the interpreter, for which others would wait
    "flock": (73, 32),
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
}
# what the worker itself calls, with any arguments
WORKERS: Table = {"pidfd_open": (434, 434), "memfd_create": (319, 279)}
CLONE = (56, 220)
CLONE3 = (435, 435)
KILL = ((62, 129), (234, 131))  # kill, tgkill
PRLIMIT64 = (302, 261)
SOCKETPAIR = (53, 199)
# Above this number are calls that this table does not know, equal everywhere; mseal alone
# is known, and harmless.
LAST_KNOWN = 456
MSEAL = 462
