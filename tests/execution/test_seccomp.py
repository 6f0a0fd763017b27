"""The filters run by an interpreter of classic BPF, for both architectures."""

import errno
import struct

import pytest

from stepcoder_jax.execution.sandbox import seccomp, syscalls

ALLOW, DENY, NO_CALL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
ASK, KILL = 0x7FC00000, 0x80000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COLUMN = {"x86_64": 0, "aarch64": 1}


def execute(program: bytes, audit: int, number: int, arguments=()) -> tuple[int, int]:
    """What a filter returns for a call, and the instructions that it took."""
    data = struct.pack("=iIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("HBBI", program))
    value = place = steps = 0
    while True:
        operation, yes, no, operand = code[place]
        steps, place = steps + 1, place + 1
        if operation == 0x06:
            return operand, steps
        if operation == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif operation == 0x54:
            value &= operand
        else:
            taken = {
                0x15: value == operand,
                0x35: value >= operand,
                0x45: bool(value & operand),
            }
            place += yes if taken[operation] else no


@pytest.fixture(params=AUDIT)
def machine(request, monkeypatch):
    monkeypatch.setattr(seccomp, "machine", lambda: request.param)
    return request.param


def ask_worker(machine, number, *arguments):
    return execute(seccomp.worker_filter(True), AUDIT[machine], number, arguments)[0]


def ask_child(machine, number, *arguments):
    return execute(seccomp.child_filter()[0], AUDIT[machine], number, arguments)[0]


def test_denied_calls_are_denied_whatever_their_arguments(machine):
    column = COLUMN[machine]
    for name, numbers in syscalls.DENIED.items():
        if numbers[column] is not None:
            assert ask_worker(machine, numbers[column], 1, 2, 3) == DENY, name
    for name, numbers in syscalls.WORKERS.items():
        assert ask_worker(machine, numbers[column]) == ALLOW, name
        assert ask_child(machine, numbers[column]) == DENY, name
    for name, numbers in syscalls.DONE_ALREADY.items():
        assert ask_worker(machine, numbers[column]) == 0x50000, name


def test_commands_pass_only_where_they_are_listed(machine):
    commands = syscalls.COMMANDS | {"prctl": syscalls.PRCTL}
    for name, each in commands.items():
        number = each.numbers[COLUMN[machine]]
        if number is None:
            continue
        ask = ask_child if name == "prctl" else ask_worker
        refused = 0x50000 | each.refusal
        for value in {*range(70), *range(1020, 1040), *each.allowed, 0xFFFFFFFF}:
            arguments = [0x5401] * 6  # elsewhere a command that would pass
            arguments[each.argument] = value | 0xABC << 32  # the kernel takes the low half
            wanted = ALLOW if value in each.allowed else refused
            assert ask(machine, number, *arguments) == wanted, (name, value)


def test_what_makes_others_wait_is_no_command(machine):
    fcntl, ioctl = (syscalls.COMMANDS[name].allowed for name in ("fcntl", "ioctl"))
    # F_SETLK(W), F_OFD_SETLK(W), F_SETOWN(_EX), F_SETSIG, leases, notices, pipes, hints
    assert not {6, 7, 37, 38, 8, 15, 10, 1024, 1026, 1031, 1036} & set(fcntl)
    assert not {0x5452, 0x40049409, 0x40086602, 0x5412} & set(ioctl)  # FIOASYNC, FICLONE
    assert not {1, 4, 35, 36, 62, 0x59616D61} & set(syscalls.PRCTL.allowed)


def test_threads_are_asked_for_and_processes_are_not_started(machine):
    clone = syscalls.CLONE[COLUMN[machine]]
    glibc, musl, process = 0x3D0F00, 0x7D0F00, 0x01200011
    for flags in (glibc, musl):
        assert ask_worker(machine, clone, flags) == ASK
        assert ask_child(machine, clone, flags) == ALLOW
        for changed in (flags ^ 0x400, flags ^ 0x200, flags | 0x10000000, flags | 17):
            assert ask_child(machine, clone, changed) == DENY
    assert ask_worker(machine, clone, process) == ALLOW  # the worker's own
    assert ask_child(machine, clone, process) == DENY
    assert ask_worker(machine, 435) == NO_CALL  # clone3: its flags cannot be read
    plain = seccomp.worker_filter(asks_for_threads=False)
    assert execute(plain, AUDIT[machine], clone, [glibc])[0] == ALLOW


def test_calls_that_the_table_does_not_know_do_not_exist(machine):
    for number in (457, 463, 470, 9999):
        assert ask_worker(machine, number) == NO_CALL
    for number in (436, 454, 456, 462):  # close_range, futex_wake, futex_requeue, mseal
        assert ask_worker(machine, number) == ALLOW
    if machine == "x86_64":
        assert ask_worker(machine, 0x40000000 + 39) == DENY
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[machine]
    assert execute(seccomp.worker_filter(True), AUDIT[other], 0)[0] == KILL


def test_signals_go_to_the_pid_that_is_put_in(machine):
    program, places = seccomp.child_filter()
    code = bytearray(program)
    for place in places:
        code[place : place + 4] = struct.pack("=I", 4321)
    for numbers in syscalls.KILL:
        number = numbers[COLUMN[machine]]
        for pid, wanted in ((4321, ALLOW), (1, DENY), (0xFFFFFFFF, DENY)):
            assert execute(bytes(code), AUDIT[machine], number, [pid])[0] == wanted


def test_what_programs_do_often_is_found_early(machine):
    """The kernel remembers calls that pass whatever they say; these it must ask about."""
    column = COLUMN[machine]
    for name, command, most in (
        ("madvise", 4, 12),
        ("ioctl", 0x5401, 20),
        ("fcntl", 1030, 40),
    ):
        number = syscalls.COMMANDS[name].numbers[column]
        answers = [0] * 6
        answers[syscalls.COMMANDS[name].argument] = command
        worker = seccomp.worker_filter(True)
        assert execute(worker, AUDIT[machine], number, answers)[1] <= most
    assert len(seccomp.child_filter()[0]) // 8 < 50
