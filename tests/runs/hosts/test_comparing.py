"""Hosts that are not of one run are told so before anything is built."""

import subprocess
from pathlib import Path

import pytest

from stepcoder_jax.runs.hosts.comparing import DifferError, commit_of, require_same


def test_who_differs_in_what_is_one_line():
    require_same([{"a": 1, "b": 2}] * 3)
    with pytest.raises(DifferError) as told:
        require_same([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": 0}])
    assert str(told.value) == (
        "the hosts differ: b is 2 on hosts 0, 2, 3 on host 1; c is nothing on hosts 0, 1, "
        "0 on host 2; start all with the same"
    )


def test_many_differences_are_counted():
    with pytest.raises(DifferError, match=r"; and 7 more; start all"):
        require_same([dict.fromkeys("abcdefghij", host) for host in range(2)])


def test_a_checkout_that_was_changed_is_not_its_commit(tmp_path):
    assert commit_of(tmp_path) == "none"

    def git(*words):
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True)

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "first")
    clean = commit_of(tmp_path)
    assert len(clean) == 12 and commit_of(Path(tmp_path)) == clean
    (tmp_path / "file").write_text("two")
    assert commit_of(tmp_path) == f"{clean} with changes"
