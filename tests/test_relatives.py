"""Relatives: an arm differs in what it is named for, on each tier; the measures."""

import dataclasses

import ablation
import pytest
import relatives
from ablation_runner import command, steps, table
from ablation_runner.study import Job

from stepcoder_jax.config import ConfigError, flatten

RATE = "ppo.actor.learning_rate"
CHANGED = {
    "stepcoder": {"cccs.enabled", "fgo.mask"},
    "ppocoder": {"reward.terms", "ppo.kl_coef", "ppo.adaptive_kl_target"},
    "rltf": {"algorithm", "reward.terms", "execution.tests", "sampling.buffer"},
    "coderl": {"algorithm"},
    "rlcf": {"reward.terms", "reward.rlcf_discriminator"},
    "coderl_no_baseline": {"algorithm", "coderl.baseline"},
    "coderl_no_text": {"algorithm", "coderl.supervised"},
    "grpo": {"algorithm"},
    "gspo": {"algorithm", "grpo.policy_loss", "grpo.kl_coef"},
    "rloo": {"algorithm", "grpo.estimator", "grpo.average"},
    "ppo_buffer": {"sampling.buffer"},
}


def fields(arg):
    config = relatives.get_config(arg)
    if arg.endswith("rlcf"):  # the runner gives the head that it has learnt
        config.reward.rlcf_discriminator = "head"
    config.validate()
    return flatten(dataclasses.asdict(config))


def differ(one, other):
    return {name for name in one if one[name] != other[name]} - {"run.folder", RATE}


@pytest.mark.parametrize("tier", relatives.TIERS)
def test_an_arm_differs_in_what_it_is_named_for(tier):
    ppo = fields(f"{tier}ppo")
    # of APPS+ the user names the files
    assert ppo["data.path"] == ("guarded" if tier == "guarded_" else "builtin")
    assert not ppo["cccs.enabled"] and ppo["fgo.mask"] == "none"
    for arm in relatives.ARMS:
        ours = fields(tier + arm)
        if arm in CHANGED:
            assert differ(ours, ppo) == CHANGED[arm], arm
        # what is to be equal: the model, the sampler, the problems, the budget
        for name in ("model.checkpoint", "sampling.problems_per_step", "run.total_tokens"):
            assert ours[name] == ppo[name]
    dynamic, static = fields(f"{tier}dapo"), fields(f"{tier}dapo_static")
    assert differ(dynamic, static) == {"sampling.extra_problems"}


def test_an_arm_with_a_head_learns_it_first(tmp_path):
    study = relatives.study_of("")
    assert set(study.heads) <= set(relatives.ARMS)
    for arm, kind, flag in (
        ("coderl", "outcome", "--coderl.critic"),
        ("rlcf", "pair", "--reward.rlcf_discriminator"),
    ):
        places, job = steps.Places(tmp_path, tmp_path / "results"), Job(arm, 3)
        judged, head, learns, _ = list(steps.steps_of(study, places, job))
        assert judged[3:5] == ["train", f"{study.file}:samples"]
        assert judged[judged.index("--run.seed") + 1] == "3"
        folder = judged[judged.index("--run.folder") + 1]
        assert head[3:9] == ["head", folder, "--kind", kind, "--seed", "3"]
        assert learns[4] == f"{study.file}:{arm}" and learns[-2:] == [flag, head[-1]]
        places.head(job).mkdir()  # once it is there, it stays
        assert next(steps.steps_of(study, places, job)) == learns
    plain = list(steps.steps_of(study, places, Job("rltf", 0)))
    assert len(plain) == 2 and "--coderl.critic" not in plain[0]
    samples = relatives.get_config("guarded_samples")
    samples.validate()
    assert samples.ppo.actor.learning_rate == 0 and samples.run.rollouts_every == 1


def test_rates_are_those_that_were_tried_or_of_the_nearest_arm():
    for tier, rates in relatives.RATES.items():
        assert rates.keys() == relatives.TRIED[tier].keys() == set(relatives.TUNED)
        assert all(rate in relatives.TRIED[tier][arm] for arm, rate in rates.items())
    assert set(relatives.NEAREST) <= set(relatives.ARMS)
    assert fields("guarded_dapo")[RATE] == ablation.RATES["grpo"]
    assert fields("gspo@0.125")[RATE] == 0.125
    for arg in ("pop", "guarded_pop", "ppo@fast"):
        with pytest.raises(ConfigError, match="EXPERIMENT: expected "):
            relatives.get_config(arg)


def test_comparisons_are_of_arms_that_are_claimed():
    for tier in ("", "guarded_"):
        study = relatives.study_of(tier)
        assert {x for pair in study.comparisons for x in pair} <= set(study.claimed)
        assert all(len(study.seeds(arm)) >= 3 for arm in (*study.claimed, "guarded_cispo"))


def record(arm, passes):
    curve = {"tokens": [0, 100], "rollouts": [0, 8]}
    sizes = ("introductory", "interview", "competition")
    curve |= {name: [0.0, end] for name, end in zip(sizes, passes)}
    return {
        **{"arm": arm, "seed": 0, "status": "done", "budget": "tokens", "curve": curve},
        "config": {"run.total_tokens": 100},
    }


def test_the_primary_measure_of_each_tier():
    ends = table.Ends(100, 8)
    for tier, expected in (("", 0.3 / 2), ("guarded_", 0.1 / 2)):
        study, made = relatives.study_of(tier), record(f"{tier}ppo", (0.5, 0.3, 0.1))
        runs = table.collect([made], study.measured)
        (found,) = runs.done[f"{tier}ppo"].values()
        assert table.measure(found, "tokens", ends) == pytest.approx(expected)
        assert "primary" not in made["curve"]


def test_the_other_tier_has_folders_of_its_own(capsys):
    names = []
    for tier in ("", "guarded_"):
        given = command.parse(relatives.study_of(tier), ["run"])
        names.append((given.results.name, given.runs.name))
    assert names == [("relatives", "relatives"), ("relatives_guarded",) * 2]
    assert relatives.main(["guarded", "run", "--arms", "ppo", "--seeds", "0"]) == 2
    assert (
        "there is no arm 'ppo'; expected some of guarded_ppo, " in capsys.readouterr().err
    )
