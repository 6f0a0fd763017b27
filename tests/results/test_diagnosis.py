"""When nothing can be learnt: the cause and the mend, from a row of metrics."""

import pytest

from stepcoder_jax.config import Config
from stepcoder_jax.results import diagnosis

GOOD = {"step": 40, "batch/valid_rows": 16, "verdict/compile": 0.1, "pass_rate": 0.5}
GOOD |= {"masked_fraction": 0.2, "reward_spread": 2.0, "kl": 0.01}
GOOD |= {"truncated_fraction": 0.0, "grpo/equal_share": 0.5}
EQUAL = {"reward_spread": 0.0, "grpo/equal_share": 1.0}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, None),
        ({"batch/valid_rows": 0, "kl": None, "reward_spread": None}, diagnosis.INVALID),
        (EQUAL | {"verdict/compile": 1.0, "pass_rate": 0.0}, diagnosis.UNCOMPILED),
        (
            EQUAL | {"verdict/compile": 1.0, "truncated_fraction": 0.9},
            diagnosis.CUT_OFF,
        ),
        ({"masked_fraction": 1.0}, diagnosis.MASKED),
        (EQUAL | {"pass_rate": 1.0}, diagnosis.ALL_PASS),
        (EQUAL | {"pass_rate": 0.0}, diagnosis.NONE_PASSES),
        ({"grpo/equal_share": 1.0}, diagnosis.EQUAL_GROUPS),
        ({"kl": 3e-9}, diagnosis.STANDS_STILL),
        ({"kl": 3e-9, "step": 2}, None),  # too early to say
    ],
)
def test_each_cause_is_told_from_the_others(changes, cause):
    assert diagnosis.find_cause(GOOD | changes, Config(algorithm="grpo")) == cause


def test_the_critics_warm_up_is_no_standstill():
    config = Config()
    config.ppo.critic_warmup_steps = 38
    still = GOOD | {"kl": 0.0}
    row = still | {"explained_variance": None}  # that of a batch without a valid row
    assert diagnosis.find_cause(row, config) is None
    assert diagnosis.find_cause(row | {"step": 43}, config)
    assert diagnosis.find_cause(still, config)  # no critic, no warm-up


def test_a_cause_is_warned_of_at_first_and_at_10_and_100_in_a_row():
    watch = diagnosis.Watch(Config())
    warned = []
    for step in range(120):
        mark, warning = watch.look(GOOD | EQUAL | {"step": step, "pass_rate": 0.0})
        assert mark == "nothing learnt: all rewards are equal and none passes"
        if warning:
            warned.append(step)
            assert "cccs.enabled" in warning
    assert warned == [0, 9, 99]
    assert watch.look(GOOD) == ("", "")
    mark, warning = watch.look(GOOD | EQUAL | {"pass_rate": 0.0})
    assert mark and not warning  # known since the first
    assert watch.look(GOOD | {"masked_fraction": 1.0})[1]


def test_the_summary_tells_causes_of_a_tenth_of_the_iterations_the_most_frequent_first():
    broken = GOOD | {"batch/valid_rows": 0}
    equal = GOOD | EQUAL | {"pass_rate": 1.0}
    told = diagnosis.summarise([GOOD] * 15 + [broken] * 2 + [equal] * 3, Config())
    assert [line.split(":")[0] for line in told] == [
        "In 3 of 20 iterations there was nothing to learn",
        "In 2 of 20 iterations there was nothing to learn",
    ]
    assert diagnosis.summarise([GOOD] * 19 + [broken], Config()) == []
    assert diagnosis.summarise([], Config()) == []
    assert diagnosis.summarise([{"step": 0}], Config()) == []  # a row of an older run
