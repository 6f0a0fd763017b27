"""The table of metrics: written as it is, exact about what a run writes, unambiguous.

That whole runs write these names is held where such runs are made, by `check_names` of
tests/run_kit.py: PPO, GRPO, SFT, contexts and validation.
"""

from pathlib import Path

import numpy as np

from stepcoder_jax.config import Config
from stepcoder_jax.feedback.rewards import stepcoder
from stepcoder_jax.learning import controls
from stepcoder_jax.pytrees import Experience, Feedback, Rollout
from stepcoder_jax.tracking import metrics
from stepcoder_jax.tracking.metrics import KINDS, complaint, expand, kinds_of

SOFT = ["sft", "validation", "sft validation"]


def names(*kinds):
    return [x for kind in kinds for row in KINDS[kind].metrics for x in expand(row.name)]


def test_the_written_table_is_that_of_the_code():
    written = (Path(metrics.__file__).parent / "METRICS.md").read_text()
    assert written == metrics.table(), "run `python -m stepcoder_jax.tracking.metrics`"


def test_no_name_is_told_twice_and_each_says_something():
    controls = ["dynamic", "overlong", "tis", "target_kl", "adaptive_kl"]
    rl = [
        "rl",
        "ppo",
        "grpo",
        *controls,
        "terms",
        "contexts",
        "grpo contexts",
        "validation",
    ]
    for one in (rl, SOFT):
        found = names(*one)
        assert len(found) == len(set(found))
    for kind in KINDS.values():
        for row in kind.metrics:
            assert row.unit and len(row.meaning) > 8 and "|" not in row.unit + row.meaning
            assert len(row.meaning) <= 72


def test_verdicts_are_those_that_have_a_reward():
    assert tuple(map(str, stepcoder.OUTCOMES)) == metrics.OUTCOMES


def test_what_is_missing_on_either_side_is_named_in_a_line():
    level = ["validation/pass@1_easy", "validation/pass@1_hard"]
    whole = {*names("validation"), *level} - {"validation/pass@1_DIFFICULTY"}
    assert complaint(whole, ["validation"]) == ""
    said = complaint({*whole, "hosts/slowest", "lost"}, ["validation"])
    assert said == "tracking/metrics.py: written, and not in KINDS: hosts/slowest, lost"
    said = complaint(whole - {*level, "validation/compiles"}, ["validation"])
    assert said == (
        "tracking/metrics.py: in KINDS, and not written: validation/pass@1_DIFFICULTY, "
        "validation/compiles"
    )


def test_a_config_says_which_rows_it_has():
    config = Config()
    assert kinds_of(config, is_sft=False) == ["rl", "ppo", "terms"]
    assert kinds_of(config, is_sft=True) == ["sft"]
    config.algorithm, config.data.contexts = "grpo", ("records.jsonl",)
    config.evaluation.every_tokens = 1000
    assert kinds_of(config, is_sft=False) == [
        *("rl", "grpo", "contexts", "grpo contexts", "validation")
    ]
    config.evaluation.every = 2
    assert kinds_of(config, is_sft=True) == SOFT


def test_what_steers_learning_is_told_where_it_is_on():
    config, zeros, mask = Config(), np.zeros((1, 4), np.float32), np.ones((1, 4), bool)
    config.ppo.overlong_buffer, config.ppo.tis_cap, config.ppo.num_epochs = 2, 2.0, 2
    config.ppo.target_kl = config.ppo.adaptive_kl_target = 0.1
    steered = ["overlong", "tis", "target_kl", "adaptive_kl"]
    assert kinds_of(config, is_sft=False) == ["rl", "ppo", *steered, "terms"]
    length = np.array([4])
    rollout = Rollout(zeros, length, length, mask, zeros, zeros + 1, length > 4)
    feedback = Feedback(zeros, mask, np.ones(1, bool))
    batch = Experience(
        zeros, length, length, mask, mask, old_logprobs=zeros, sampler_logprobs=zeros
    )
    assert controls.shape_overlong(config, rollout, feedback)[1].keys() == {
        *names("overlong")
    }
    assert controls.weight_metrics(config, batch).keys() == {*names("tis")}


def test_explanations_groups_are_told_as_the_others():
    told = {f"{name}_explained" for name in names("grpo") if name.startswith("grpo/")}
    assert set(names("grpo contexts")) == told
