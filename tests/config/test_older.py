"""The config of an older run means today what it meant then.

older/ keeps one small config.json (sft.json of SFT) of each earlier form, under the name of
the commit that wrote it. Whoever changes the fields of the config adds one: run the commit
before the change on a few steps, copy the file as it is but for `run.folder`, and write
into MEANT what its fields mean under today's names, where that is not what the file says.
"""

import json
from pathlib import Path

import pytest

from stepcoder_jax.config import Config, ConfigError, older
from stepcoder_jax.config.older import NEVER, Change

FORMS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "older").glob("*.json"))
}
D6F60ED = {
    "sampling.layout": "replicated",
    "run.track": "tensorboard",
    "run.join_minutes": 5.0,
    "run.lost_seconds": 30.0,
    "run.stall_minutes": 15.0,
    "run.walltime": 0.0,
    "reward.terms": ["stepcoder"],
    "reward.located_alpha": "paper",
    "reward.rlcf_discriminator": "",
    "reward.rlcf_locate": True,
    "coderl.baseline": "greedy",
    "coderl.critic": "",
    "coderl.supervised": 1.0,
    "grpo.estimator": "grpo",
    "grpo.policy_loss": "clipped",
    "grpo.sequence_clip_low": 3e-4,
    "grpo.sequence_clip_high": 4e-4,
    "sampling.extra_problems": 0,
    "sampling.buffer": 0,
    "data.sample": "uniform",
    "data.profile": "",
    "ppo.overlong_buffer": 0,
    "ppo.tis_cap": 0.0,
    "ppo.target_kl": 0.0,
    "ppo.adaptive_kl_target": 0.0,
    "ppo.adaptive_kl_horizon": 10000,
    "ppo.actor.decay": "none",
    "ppo.critic.decay": "none",
    "ppo.actor.floor": 0.0,
    "ppo.critic.floor": 0.0,
    "ppo.kl_warning": 0.0,
    "evaluation.beside": "",
}
E2BE149 = {
    **D6F60ED,
    "run.track": "jsonl",
    "cccs.prefix": "cccs",
    "cccs.demote": 0.0,
    "data.difficulties": [],
    "prompt.show_visible": False,
    "data.contexts": [],
    "prompt.variant": "direct",
    "reward.program": "paper",
    "reward.explanation": "paper",
    "reward.encoder": "",
    "reward.one_scalar": False,
    "ppo.coupling": "printed",
    "ppo.value_unit": "token",
    "sft.records": [],
    "sft.per_wrong": 1,
    "sft.blank_wrong": 0.0,
    "sft.control": "none",
    "run.total_tokens": 0,
    "evaluation.every_tokens": 0,
}
D5E64F9 = {"run.resume": "no", "run.step": -1, "run.max_empty": NEVER, **E2BE149}
MEANT = {f"d5e64f9_{kind}": D5E64F9 for kind in ("ppo", "grpo", "sft")}
MEANT |= {"e2be149_ppo": E2BE149, "d6f60ed_ppo": D6F60ED}


@pytest.mark.parametrize("form", FORMS)
def test_an_older_config_means_what_it_meant(form):
    tree = FORMS[form]["config"]
    config = Config.from_dict(tree)
    config.validate()
    gone = {name for name, change in older.CHANGED.items() if change.now != name}
    said = {name: x for name, x in older.flatten(tree).items() if name not in gone}
    assert older.flatten(config.to_dict()) == said | MEANT[form]


def test_each_form_has_its_meaning_written_down():
    assert FORMS.keys() == MEANT.keys()


def test_the_tables_are_whole():
    """Each field of today is in a form or in a table, and each row has a form to read."""
    names = older.flatten(Config().to_dict()).keys()
    forms = [older.flatten(form["config"]).keys() for form in FORMS.values()]
    renamed = {change.now for change in older.CHANGED.values()}
    for form in forms:
        silent = names - form - renamed - older.ADDED.keys()
        assert not silent, f"added since, with no row in older.ADDED: {silent}"
        unknown = form - names - older.CHANGED.keys()
        assert not unknown, f"gone since, with no row in older.CHANGED: {unknown}"
    assert older.ADDED.keys() <= names
    assert all(any(name not in form for form in forms) for name in older.ADDED)
    assert all(any(name in form for form in forms) for name in older.CHANGED)


CHANGED = {
    "kl": Change("ppo.kl_coef", {}),
    "ppo.clip": Change("ppo.clip_kind", {True: "both", "one": "upper"}),
    "ppo.beam": Change("", {1: "", False: ""}),
}


def read(tree):
    return older.read(tree, "old.json", CHANGED, {"ppo.kl_coef": 0.5, "run.new": 7})


def test_a_renamed_field_is_found_under_its_new_name():
    assert read({"kl": 0.1}) == {"ppo.kl_coef": 0.1, "run.new": 7}


def test_a_value_has_its_new_name_and_any_other_stays():
    for then, now in ((True, "both"), ("one", "upper"), ("upper", "upper"), ([1], [1])):
        assert read({"ppo": {"clip": then}})["ppo.clip_kind"] == now


def test_a_field_added_since_has_the_value_of_before_unless_it_is_there():
    assert read({}) == {"ppo.kl_coef": 0.5, "run.new": 7}
    assert read({"run": {"new": 1}}) == {"ppo.kl_coef": 0.5, "run.new": 1}


def test_a_field_that_is_gone_is_read_only_where_it_meant_what_is_done_today():
    assert "ppo.beam" not in read({"ppo": {"beam": 1}})
    for value in (4, [1]):
        with pytest.raises(
            ConfigError, match=r"^ppo.beam: .* cannot do .* old.json has it"
        ):
            read({"ppo": {"beam": value}})


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ({"run": {"newer": 5}}, "run.newer"),
        ({"newer": {"steps": 5}}, "newer.steps"),
        ({"ppo": {"actor": {"newer": None}}}, "ppo.actor.newer"),
        ({"run": 5}, "run"),
    ],
)
def test_an_unknown_field_is_named_with_what_has_it(tree, name):
    with pytest.raises(ConfigError, match=rf"^{name}: .* r/config.json has it") as error:
        Config.from_dict(tree, "r/config.json")
    assert "\n" not in str(error.value)
