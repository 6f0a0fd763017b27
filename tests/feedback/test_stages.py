"""The rules of each prefix, by hand: what a stage gives, the first one, the moves."""

import math

import numpy as np
import pytest

from stepcoder_jax.config import CCCSConfig
from stepcoder_jax.feedback import stages


def test_stages_and_cuts_by_hand():
    # E = 9: ceil(sqrt 9) = 3 stages, stride ceil(9 / 3) = 3: cuts at 6, 3, then none.
    assert [stages.cut_index(9, c) for c in (2, 1)] == [6, 3]
    # E = 4: 2 stages, stride 2. E = 5: 3 stages, stride 2. E = 2: 2 stages, stride 1.
    assert stages.cut_index(4, 1) == 2
    assert [stages.cut_index(5, c) for c in (2, 1)] == [4, 2]
    assert stages.cut_index(2, 1) == 1
    assert [stages.num_stages(count) for count in range(11)] == [
        *(1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 4),
    ]


def test_every_stage_has_a_cut_inside_the_program():
    for count in range(1, 600):
        number = stages.num_stages(count)
        assert number == max(1, math.ceil(math.sqrt(count)))
        cuts = [stages.cut_index(count, stage) for stage in range(1, number)]
        assert all(0 < cut < count for cut in cuts) and cuts == sorted(set(cuts))


@pytest.mark.parametrize("stage", [-1, 3, 7])
def test_a_stage_that_does_not_exist_is_an_error(stage):
    with pytest.raises(ValueError, match=f"stage {stage} has no cut: 9 .* stages 0 to 2"):
        stages.cut_index(9, stage)


# prefix -> for E = 0, 1, 2, 9: the first stage, what it gives, the stages to come
BY_HAND = {
    "cccs": ([0, 0, 1, 2], [0, 0, 1, 6], [[0], [0], [0, 1], [0, 1, 2]]),
    "random": ([0, 0, 1, 8], [0, 0, 1, 8], [[0], [0], [0, 1], list(range(9))]),
    "half": ([0, 0, 1, 4], [0, 0, 1, 4], [[0], [0], [1], [4]]),
    "adaptive": ([0, 0, 1, 6], [0, 0, 1, 6], [[0], [0], [0, 1], list(range(9))]),
}


@pytest.mark.parametrize("prefix", BY_HAND)
def test_each_prefix_by_hand(prefix):
    config = CCCSConfig(prefix=prefix)
    counts = (0, 1, 2, 9)
    firsts = [stages.first(count, config) for count in counts]
    given = [stages.given(*pair, config) for pair in zip(counts, firsts)]
    reachable = [list(stages.reachable(count, config)) for count in counts]
    assert (firsts, given, reachable) == BY_HAND[prefix]


def test_half_is_whole_too_where_a_share_of_the_batch_is():
    config = CCCSConfig(prefix="half", full_fraction=0.1)
    assert [list(stages.reachable(count, config)) for count in (1, 2, 9)] == [
        *([0], [0, 1], [0, 4]),
    ]


@pytest.mark.parametrize("prefix", BY_HAND)
def test_a_stage_is_always_one_that_can_be_posed(prefix):
    config = CCCSConfig(prefix=prefix)
    for count in range(40):
        seen = set(stages.reachable(count, config))
        assert stages.first(count, config) in seen
        for stage in seen:
            assert 0 <= stages.given(count, stage, config) < max(1, count)
            for rate in (0.0, 0.3, 1.0):
                after = stages.moved(count, stage, 99, np.float32(rate), rate, config)
                assert after in seen and abs(after - stage) <= 1


def moves(config, count, stage, visits, rho, rate):
    return stages.moved(count, stage, visits, np.float32(rho), rate, config) - stage


def test_the_papers_stages_have_no_way_back():
    for visits in (1, 1000):
        assert moves(CCCSConfig(), 9, 1, visits, 0.0, 0.0) == 0
        assert moves(CCCSConfig(), 9, 1, visits, 0.51, 0.0) == -1
        assert moves(CCCSConfig(), 9, 0, visits, 1.0, 1.0) == 0


def test_demotion_by_hand():
    config = CCCSConfig(alpha=0.25, demote=0.125)  # settled after 12 visits
    assert moves(config, 9, 1, 11, 0.1, 0.0) == 0
    assert moves(config, 9, 1, 12, 0.1, 0.0) == 1
    assert moves(config, 9, 1, 12, 0.125, 0.0) == 0  # strictly below
    assert moves(config, 9, 0, 12, 0.1, 0.0) == 1  # also from the whole problem
    assert moves(config, 9, 2, 12, 0.1, 0.0) == 0  # E = 9 begins at stage 2
    assert moves(config, 1, 0, 12, 0.1, 0.0) == 0  # and E = 1 at stage 0
    assert moves(config, 9, 1, 12, 0.6, 0.0) == -1


def test_adaptive_moves_by_the_groups_pass_rate():
    config = CCCSConfig(prefix="adaptive", threshold=0.5)
    assert moves(config, 9, 6, 1, 0.0, 0.0) == 1
    assert moves(config, 9, 8, 1, 0.0, 0.0) == 0  # E - 1 is the most
    assert moves(config, 9, 6, 1, 0.0, 0.25) == 0
    assert moves(config, 9, 6, 1, 0.0, 0.5) == 0  # strictly above
    assert moves(config, 9, 6, 1, 0.0, 0.75) == -1
    assert moves(config, 9, 0, 1, 0.0, 1.0) == 0 and moves(config, 9, 0, 1, 1.0, 0.0) == 1
    assert [moves(config, count, 0, 1, 0.0, 0.0) for count in (0, 1, 2)] == [0, 0, 1]


@pytest.mark.parametrize("prefix", ["random", "half"])
def test_a_fixed_prefix_never_moves(prefix):
    config = CCCSConfig(prefix=prefix)
    for rate in (0.0, 1.0):
        assert moves(config, 9, 4, 99, rate, rate) == 0
