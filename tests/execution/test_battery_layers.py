"""Each layer of the sandbox switched off: the listed programs flip, and only those."""

import os
import socket

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.records import Verdict
from tests.execution.battery import CASES
from tests.execution.kit import make_program, make_settings
from tests.execution.test_attacks import ATTACKS, LIBC

# A list of what may run, not of what may not: with a layer off these do succeed, and
# leave nothing behind. Those that reach other processes, write files or fill the machine
# are never run so.
ATTACKS_WITHOUT_TRACE = (
    "read",
    "read the worker's file",
    "list",
    "memfd",
    "truncate",
    "tcp",
    "unix datagrams",
    "fork",
    "pidfd",
    "outlive the worker",
    "signals by files",
    "flock",
    "large pipe",
    "a hundred timers",
)
CASES_WITHOUT_TRACE = (
    "popen",
    "slow down itself",
    "chain to a core",
    "seventy threads at once",
    "lock on the library",
    "pool of threads",
    "command line of the worker",
    "seals",
    "map of 8 GB",
    "65 descriptors",
    "900 calls deep",
    "fast input class",
    "the device",
    "stdout closed after",
    "executor",
    "exit(True)",
    "watchdog",
    "lost",
    "too large",
    "nan for nan",
)
FLIPS = {
    "none": set(),
    "landlock": {"read", "list", "command line of the worker"},
    "seccomp": {
        "memfd",
        "tcp",
        "unix datagrams",
        "fork",
        "pidfd",
        "outlive the worker",
        "signals by files",
        "slow down itself",
        "chain to a core",
        "flock",
        "large pipe",
        "seventy threads at once",
        "lock on the library",
    },
    "rlimits": {"map of 8 GB", "65 descriptors", "a hundred timers"},
    "uid": set(),  # what these two hold, the others hold too: second walls, see below
    "namespaces": set(),
}


def programs_without_trace():
    """{name: (program, right verdicts)}."""
    attacks = {
        name: (
            make_program(f"{LIBC}{ATTACKS[name]}\nprint('open')\n", ("", "open\n")),
            (Verdict.RUNTIME,),
        )
        for name in ATTACKS_WITHOUT_TRACE
    }
    ours = {case.title: (case.program, case.verdicts) for case in CASES}
    return attacks | {name: ours[name] for name in CASES_WITHOUT_TRACE}


@pytest.mark.parametrize("layer", FLIPS)
def test_each_layer_holds_what_it_is_there_for(layer):
    programs = programs_without_trace()
    without = () if layer == "none" else (layer,)
    with Pool(make_settings(without=without, allow_unsafe=True)) as pool:
        reports = pool.run([program for program, _ in programs.values()])
    flipped = {
        name
        for (name, (_, verdicts)), report in zip(programs.items(), reports)
        if report.verdict not in verdicts
    }
    assert flipped == FLIPS[layer]


# What a second wall holds is seen when the first ones are off too.
SECOND_WALLS = {
    # Landlock and seccomp hold it as well
    "namespaces": (
        ("landlock", "seccomp"),
        "import socket\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect('\\0stepcoder-{pid}')\nprint('open')\n",
    ),
    # Landlock holds it as well: another user's file, which root's capabilities open
    "uid": (("landlock",), "open('{file}').read()\nprint('open')\n"),
}


@pytest.mark.parametrize("layer", SECOND_WALLS)
def test_second_walls_hold_what_they_are_there_for(layer, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("")
    secret.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(secret, 1, 1)
    others, source = SECOND_WALLS[layer]
    program = make_program(
        source.format(pid=os.getpid(), file=secret), ("", "open\n"), name=layer
    )
    opened = {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0stepcoder-{os.getpid()}")
        listener.listen()
        for without in (others, (*others, layer)):
            settings = make_settings(workers=1, without=without, allow_unsafe=True)
            with Pool(settings) as pool:
                state = pool.layers[layer]
                opened[without] = pool.run([program])[0].passed
                if state.startswith(("not allowed", "an ordinary", "root")):
                    pytest.skip(f"{layer} cannot be had here: {state}")
    assert opened == {others: False, (*others, layer): True}
