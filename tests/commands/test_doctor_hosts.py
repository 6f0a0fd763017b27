"""`stepcoder doctor --hosts`: who is there, and who is not of the same run."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.commands import doctor
from stepcoder_jax.runs.hosts.comparing import DifferError, require_same
from stepcoder_jax.runs.hosts.place import HOSTS_VARIABLE

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    found = doctor.survey(str(tmp_path_factory.mktemp("disk") / "run"))
    return found | {"the isolation level": "L3"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"name": "b", "cores": 1, "free": 5}, ""),  # told, and no hindrance
        ({"the commit": "abc with changes"}, "the commit is .* abc with changes on host 1"),
        (
            {"the isolation level": "L1"},
            "the isolation level is L3 on host 0, L1 on host 1",
        ),
        ({"versions": {"jax": "0.1"}}, "version of jax is .* 0.1 on host 1"),
    ],
)
def test_what_must_be_alike_on_all_hosts(own, change, said):
    surveys = [own, own | change]
    lines = doctor.describe(surveys)
    assert len(lines) == 3 and lines[0].startswith(f"host 0     {own['name']}: ")
    assert lines[2].startswith("versions   ")
    if not said:
        return require_same([doctor.compared(of) for of in surveys])
    with pytest.raises(DifferError, match=said):
        require_same([doctor.compared(of) for of in surveys])


def test_a_process_that_is_alone_has_no_hosts(monkeypatch, capsys):
    monkeypatch.delenv(HOSTS_VARIABLE, raising=False)
    assert main(["doctor", "--hosts"]) == 2
    told = capsys.readouterr().err
    assert "--hosts: this process is alone; set STEPCODER_DISTRIBUTED to" in told
    assert len(told.splitlines()) == 1


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


ENV = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHON": sys.executable}


@pytest.mark.long
def test_two_processes_of_this_machine_find_each_other(tmp_path):
    """Through the launcher, as a user would."""
    command = ("doctor", "--hosts", "--run.folder", str(tmp_path / "run"))
    ended = subprocess.run(
        [str(LAUNCH / "local_multiprocess.sh"), "--port", free_port(), "2", *command],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    heads = [line[:10].strip() for line in ended.stdout.splitlines()]
    wanted = ["host 0", "host 1", "versions", "run folder", "devices", "together"]
    assert [head for head in heads if head in wanted] == wanted
    assert "hosts 0, 1 has 1 cpu" in ended.stdout
    assert "together   2 devices on 2 hosts hear each other" in ended.stdout
    assert not any(tmp_path.iterdir())


@pytest.mark.long
def test_hosts_that_see_another_folder_are_told_alike(tmp_path):
    port, processes = free_port(), []
    for number in range(2):
        here = tmp_path / f"host{number}"
        here.mkdir()
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "stepcoder_jax", "doctor", "--hosts"],
                env=ENV | {HOSTS_VARIABLE: f"127.0.0.1:{port},2,{number}"},
                cwd=here,  # "runs/run" is another folder in each
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
        )
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    said = (
        r"stepcoder doctor: host \d: the hosts differ: the disk of run.folder is runs/run"
    )
    assert all(re.match(said, text) for text in errors), errors
    assert errors[0] == errors[1] and len(errors[0].splitlines()) == 1
