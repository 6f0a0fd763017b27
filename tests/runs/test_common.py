"""Hosts that do not belong together are told apart before anything is built."""

import contextlib
import threading

import pytest

from stepcoder_jax.config import Config
from stepcoder_jax.runs.disk.common import facts, see_one_folder
from stepcoder_jax.runs.hosts.comparing import DifferError, require_same


class Meeting:
    """Where two threads gather what two hosts would."""

    def __init__(self):
        self.come, self.values = threading.Barrier(2), {}


class Host:
    def __init__(self, meeting, number):
        self.meeting, self.number = meeting, number

    def gather(self, name, value):
        self.meeting.values[name, self.number] = value
        self.meeting.come.wait(timeout=60)
        return [self.meeting.values[name, number] for number in range(2)]


def see(*folders):
    """What each of two hosts says of its run folder."""
    meeting, errors = Meeting(), [None, None]

    def look(number):
        try:
            see_one_folder(Host(meeting, number), str(folders[number]))
        except DifferError as error:
            errors[number] = str(error)

    threads = [threading.Thread(target=look, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("name", ["run", ".", "not/yet/there"])
def test_one_folder_is_one(tmp_path, name):
    (tmp_path / "run").mkdir()
    assert see(tmp_path / name, tmp_path / name) == [None, None]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no mark is left


def test_a_folder_below_a_file_is_refused_by_others(tmp_path):
    (tmp_path / "file").write_text("")  # the checks to come say what is wrong
    assert see(tmp_path / "file" / "run", tmp_path / "file" / "run") == [None, None]


def test_no_mark_stays_where_another_host_ends_all_meanwhile(tmp_path, monkeypatch):
    class Ended(Host):
        def gather(self, name, value):
            for action in actions:
                action()
            assert list(tmp_path.iterdir()) == []
            raise SystemExit

    actions = []
    monkeypatch.setattr(
        "stepcoder_jax.runs.hosts.channel.at_end",
        lambda action: contextlib.nullcontext(actions.append(action)),
    )
    with pytest.raises(SystemExit):
        see_one_folder(Ended(Meeting(), 0), str(tmp_path))


def test_hosts_without_a_shared_disk_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("stepcoder_jax.runs.disk.common._SEEN", 0.3)
    monkeypatch.setattr("os.listdir", lambda _: [])  # as another machine's disk would say
    first, second = see(tmp_path / "run", tmp_path / "run")
    assert first == second
    assert f"the disk of run.folder is {tmp_path}/run on host 0, another" in first
    assert list(tmp_path.iterdir()) == []


def test_what_is_compared(tmp_path):
    one, other = Config(), Config()
    one.data.path = other.data.path = str(tmp_path / "problems.jsonl")
    (tmp_path / "problems.jsonl").write_text("{}\n")
    found = facts(one)
    (tmp_path / "problems.jsonl").write_text("{ }\n")
    other.run.seed = 3
    with pytest.raises(DifferError) as told:
        require_same([found, facts(other)])
    assert "run.seed is 0 on host 0, 3 on host 1; the digest of " in str(told.value)
    one.reward.terms = ("stepcoder", f"{tmp_path}/mine.py:half")
    (tmp_path / "mine.py").write_text("half = 1\n")
    assert facts(one)[f"the digest of {tmp_path}/mine.py"] != "nothing"
    assert "the commit" in found and "the version of jax" in found
