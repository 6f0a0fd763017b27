"""What an untrusted program may ask of the kernel, as seccomp BPF programs.

There are two: the long one holds what a worker has no need of either, so that it puts it
on itself once and its children inherit it; the short one is put on in each child. (For
every filter the kernel tries all call numbers when it is put on, 0.3 ms for the long one,
and never runs it again for those that pass whatever their arguments are.)

Which calls are denied, and which commands of those that do many things pass, is in
`syscalls`. Everything else is allowed: files are Landlock's affair, sizes and times are
the resource limits', the number of tasks is that of `tasks`.
"""

from __future__ import annotations

import errno
import os
import struct

from stepcoder_jax.execution.sandbox import syscalls
from stepcoder_jax.execution.sandbox.syscalls import Commands

_ARCH = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
# CLONE_VM | _FS | _FILES | _SIGHAND | _THREAD: without one, a table of files of its own
_THREAD_FLAGS = 0x00010F00
# CLONE_SYSVSEM, _SETTLS, _PARENT_SETTID, _CHILD_CLEARTID, _DETACHED: as a library likes
_FREE_FLAGS = 0x007C0000
_AF_UNIX = 1
_SOCK_STREAM = 1
_PID_MARK = 0x7FEDCBA9  # stands where a pid is to be: no other operand

# struct sock_filter and the opcodes of linux/bpf_common.h
_INSTRUCTION = struct.Struct("HBBI")
_OPERAND = 4  # its offset in an instruction
_LOAD, _JEQ, _JGE, _JSET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_ARGS = 0, 4, 16
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ASK_LISTENER = 0x7FC00000
_ERRNO = 0x00050000
_DENY = _ERRNO | errno.EPERM

Instruction = tuple[int, int, int, int]


def machine() -> str:
    """This machine's architecture; `platform` would load 30 pages to say it."""
    return os.uname().machine


def supported() -> bool:
    """Whether there is a table for this machine's architecture."""
    return machine() in _ARCH


def worker_filter(asks_for_threads: bool) -> bytes:
    """Return the BPF program for a worker, which its children inherit.

    Denied calls fail with EPERM; clone3 with ENOSYS, so that glibc falls back to clone,
    whose flags a filter can read. With `asks_for_threads` whoever installed it with a
    listener is asked before a thread is started; without one, threads cannot be.
    """
    column, audit_arch = _ARCH[machine()]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_JEQ, 1, 0, audit_arch),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NR),
    ]
    for commands in syscalls.COMMANDS.values():
        program += _only(commands, column)
    if asks_for_threads:
        asks = [*_argument(0), (_JSET, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _ASK_LISTENER)]
        program += _block(syscalls.CLONE[column], [*asks, (_RETURN, 0, 0, _ALLOW)])
    program += _when(
        syscalls.SOCKETPAIR[column],
        [
            *_argument(0),
            (_JEQ, 0, 3, _AF_UNIX),
            *_argument(1),
            (_AND, 0, 0, 0xF),
            (_JEQ, 1, 0, _SOCK_STREAM),
        ],
    )
    if column == 0:
        program += [(_JGE, 0, 1, _X32_BIT), (_RETURN, 0, 0, _DENY)]
    program += _all(syscalls.DONE_ALREADY, column, _ERRNO)
    program += _all(syscalls.DENIED, column, _DENY)
    program += _all({"clone3": syscalls.CLONE3}, column, _ERRNO | errno.ENOSYS)
    program += [(_JEQ, 1, 0, syscalls.MSEAL), (_JGE, 1, 0, syscalls.LAST_KNOWN + 1)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    return _pack(program)


def child_filter() -> tuple[bytes, list[int]]:
    """Return the BPF program for a child of a filtered worker, and where its pid stands.

    Threads pass, processes do not; signals go alone to the process whose pid is put there,
    as a native unsigned int.
    """
    column, _ = _ARCH[machine()]
    program: list[Instruction] = [(_LOAD, 0, 0, _OFFSET_NR)]
    is_thread = [*_argument(0), (_AND, 0, 0, ~_FREE_FLAGS & 0xFFFFFFFF)]
    program += _when(syscalls.CLONE[column], [*is_thread, (_JEQ, 1, 0, _THREAD_FLAGS)])
    for numbers in syscalls.KILL:
        program += _when(numbers[column], [*_argument(0), (_JEQ, 1, 0, _PID_MARK)])
    program += _when(syscalls.PRLIMIT64[column], [*_argument(0), (_JEQ, 1, 0, 0)])
    program += _only(syscalls.PRCTL, column)
    marked = [place for place, (*_, operand) in enumerate(program) if operand == _PID_MARK]
    places = [_INSTRUCTION.size * place + _OPERAND for place in marked]
    program += [*_all(syscalls.WORKERS, column, _DENY), (_RETURN, 0, 0, _ALLOW)]
    return _pack(program), places


def _all(calls: syscalls.Table, column: int, answer: int) -> list[Instruction]:
    """Give this answer to all of these calls."""
    program: list[Instruction] = []
    for pair in calls.values():
        number = pair[column]
        if number is not None:
            program += [(_JEQ, 0, 1, number), (_RETURN, 0, 0, answer)]
    return program


def _pack(program: list[Instruction]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def _argument(index: int) -> list[Instruction]:
    """Load the low half of an argument (both architectures are little-endian)."""
    return [(_LOAD, 0, 0, _OFFSET_ARGS + 8 * index)]


def _block(number: int, block: list[Instruction]) -> list[Instruction]:
    """For call `number`: this block, which returns."""
    return [(_JEQ, 0, len(block), number), *block]


def _when(number: int, test: list[Instruction]) -> list[Instruction]:
    """For call `number`: allow when the last jump of `test` is taken, else EPERM."""
    return _block(number, [*test, (_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _ALLOW)])


def _only(commands: Commands, column: int) -> list[Instruction]:
    """Of a call with commands: allow those listed, refuse all others."""
    number = commands.numbers[column]
    if number is None:
        return []
    block = _argument(commands.argument)
    for left in range(len(commands.allowed), 0, -1):  # each jumps to the end
        block.append((_JEQ, left, 0, commands.allowed[-left]))
    refusal = (_RETURN, 0, 0, _ERRNO | commands.refusal)
    return _block(number, [*block, refusal, (_RETURN, 0, 0, _ALLOW)])
