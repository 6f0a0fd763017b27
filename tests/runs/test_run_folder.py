"""A run's folder: what an older version began goes on; starts leave nothing half-made."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from stepcoder_jax.config import Config, ConfigError, older
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.runs import problem_set
from stepcoder_jax.runs.disk.interrupt import Stopped
from stepcoder_jax.runs.disk.run_folder import RunFolder
from stepcoder_jax.runs.disk.sft_folder import SFTFolder

# A config.json and the record of a checkpoint from before seals and `resume: auto`.
HERE = Path(__file__).parent
OLD = json.loads((HERE.parent / "config" / "older" / "d5e64f9_ppo.json").read_text())
RECORD = json.loads((HERE / "old_record.json").read_text())


@pytest.fixture
def old(tmp_path):
    """The folder of an older run, and its config with `run.resume` settled."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.config_file.write_text(json.dumps(OLD))
    config = Config.from_dict(OLD["config"])
    config.run.folder = str(folder.path)
    return folder, config


def test_an_older_run_goes_on(old):
    folder, config = old
    assert OLD["config"]["run"]["resume"] is False
    assert config.run.resume == "no"
    config.validate()
    config.run.resume = "auto"
    folder.settle(config.run)
    assert config.run.resume == "yes"
    folder.open(config)
    problem_set.check(RECORD, benchmark.load("train")[:6], 6)
    config.ppo.kl_coef = 0.5
    with pytest.raises(ConfigError, match=r"ppo.kl_coef: the run in .* was started with"):
        folder.open(config)


def test_an_older_run_goes_on_as_before_a_field_was_added(old, monkeypatch):
    """Its file is silent, and that has a meaning: the value of the table, no other."""
    folder, config = old
    config.run.resume = "yes"
    tree = copy.deepcopy(OLD)
    del tree["config"]["grpo"]["kl_coef"]
    folder.config_file.write_text(json.dumps(tree))
    monkeypatch.setitem(older.ADDED, "grpo.kl_coef", 0.25)
    with pytest.raises(
        ConfigError, match=r"grpo.kl_coef: the run in .* with 0.25, not 0.0"
    ):
        folder.open(config)
    config.grpo.kl_coef = 0.25
    folder.open(config)


def test_a_field_of_a_newer_version_is_named_with_that_version(old):
    folder, _ = old
    tree = copy.deepcopy(OLD)
    tree["config"]["fgo"]["newer"] = 1
    tree["versions"]["stepcoder_jax"] = "7.0"
    folder.config_file.write_text(json.dumps(tree))
    said = r"^fgo.newer: .*config.json \(written by stepcoder_jax 7.0\) has it; use .*$"
    with pytest.raises(ConfigError, match=said):
        folder.read_config()


def test_older_true_is_yes():
    tree = dataclasses.asdict(Config())
    tree["run"]["resume"] = True
    assert Config.from_dict(tree).run.resume == "yes"


@pytest.mark.parametrize("kind", [RunFolder, SFTFolder])
def test_auto_begins_where_nothing_is(tmp_path, kind):
    config = Config()
    config.run.resume = "auto"
    folder = kind(tmp_path / "run")
    folder.settle(config.run)
    assert config.run.resume == "no"
    folder.open(config)
    assert folder.config_file.is_file()


def test_a_start_that_was_killed_is_begun_again(tmp_path):
    (tmp_path / "config.part").write_text("{")
    folder = RunFolder(tmp_path)
    folder.open(Config())
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_what_a_start_takes_away_when_it_fails(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run")
    with pytest.raises(OSError), folder.starting():
        folder.open(Config())
        (folder.path / "limits.json").write_text("{}")
        raise OSError
    assert not (tmp_path / "a").exists()
    folder = RunFolder(tmp_path / "a" / "run")
    with pytest.raises(Stopped), folder.starting():  # a signal is no failure
        folder.open(Config())
        raise Stopped
    assert folder.config_file.is_file()
    again = RunFolder(tmp_path / "a" / "run")
    with pytest.raises(ConfigError), again.starting():  # not its own
        again.open(Config())
    assert folder.config_file.is_file()


def test_a_step_without_a_resume_is_refused(tmp_path):
    config = Config()
    config.run.step = 3
    with pytest.raises(ConfigError, match=r"run.step: 3 is a checkpoint to go on from"):
        RunFolder(tmp_path).settle(config.run)
