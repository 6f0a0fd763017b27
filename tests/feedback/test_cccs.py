"""The curriculum: its state, what is posed, and what rollouts do to it."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from stepcoder_jax.config import CCCSConfig, SamplingConfig
from stepcoder_jax.feedback import cccs, cuts
from stepcoder_jax.records import Report, Verdict
from tests.feedback.kit import problem, with_conditionals

SAMPLING = SamplingConfig(problems_per_step=4, rollouts_per_problem=2)
CONFIG = CCCSConfig(alpha=0.5, threshold=0.5)
PREFIXES = ("cccs", "random", "half", "adaptive")


def report(verdict):
    return Report(verdict, (), frozenset())


def test_initial_state():
    pool = [with_conditionals(count) for count in (0, 1, 2, 9)]
    state = cccs.initial(pool, CONFIG)
    assert state.stage.tolist() == [0, 0, 1, 2] and state.stage.dtype == np.int32
    assert state.rho.dtype == np.float32 and not any(map(np.any, state[1:]))
    off = cccs.initial(pool, CCCSConfig(enabled=False))
    assert off.stage.tolist() == [0, 0, 0, 0]


def test_a_solution_that_does_not_parse_is_named():
    with pytest.raises(ValueError, match=r"problem bad: .* does not parse \(line 2.*mend"):
        cccs.initial([problem("bad", "a = 1\nif a\n")], CONFIG)
    assert cccs.initial([problem("ok", "if a: pass\n")], CONFIG).stage.tolist() == [0]


def choose(pool, state, step, seed=0, config=CONFIG, sampling=SAMPLING):
    return cccs.choose_tasks(
        pool, state, step=step, seed=seed, sampling=sampling, config=config
    )


def test_problems_come_in_epoch_permutations():
    pool = [problem(str(i)) for i in range(10)]
    state = cccs.initial(pool, CONFIG)
    rows = []
    for step in range(5):
        tasks = choose(pool, state, step)
        assert len(tasks) == 8
        assert [t.index for t in tasks[::2]] == [t.index for t in tasks[1::2]]
        rows += [task.index for task in tasks[::2]]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:], "each epoch has an order of its own"
    other = [task.index for task in choose(pool, state, 0, seed=1)[::2]]
    assert other != rows[:4]


def test_a_resumed_run_draws_what_the_interrupted_one_would_have():
    pool = [problem(str(i)) for i in range(7)]
    state = cccs.initial(pool, CONFIG)
    config = dataclasses.replace(CONFIG, full_fraction=0.4)
    first = [choose(pool, state, step, config=config) for step in range(6)]
    assert choose(pool, state, 5, config=config) == first[5]
    assert first[0] != first[1]


def test_pool_smaller_than_a_batch_and_empty_pool():
    pool = [problem("a"), problem("b")]
    tasks = choose(pool, cccs.initial(pool, CONFIG), 3)
    assert sorted(task.index for task in tasks) == [0] * 4 + [1] * 4
    with pytest.raises(ValueError, match=r"empty; check data.path and data.pool_size"):
        choose([], cccs.initial([], CONFIG), 0)


def test_full_fraction_poses_whole_problems():
    pool = [with_conditionals(9, str(i)) for i in range(8)]
    state = cccs.initial(pool, CONFIG)
    config = dataclasses.replace(CONFIG, full_fraction=0.3)
    counts = []
    for step in range(200):
        tasks = choose(pool, state, step, config=config)
        assert {task.stage for task in tasks} <= {0, 2}
        assert all(task.head == cuts.head(task.problem, 3 * task.stage) for task in tasks)
        counts.append(
            sum(task.stage == 0 for task in tasks) / SAMPLING.rollouts_per_problem
        )
    assert set(counts) == {1, 2}  # 0.3 of 4 problems: 1.2 on average
    assert abs(np.mean(counts) - 1.2) < 0.1
    assert all(task.stage == 2 for task in choose(pool, state, 0))
    whole = dataclasses.replace(CONFIG, full_fraction=1.0)
    assert all(task.stage == 0 for task in choose(pool, state, 0, config=whole))


P, W, I = Verdict.PASS, Verdict.WRONG, Verdict.INFRA  # noqa: E741


def step_once(state, pool, verdicts, stage=None, config=CONFIG):
    """Advance by rollouts of problem 0 at its own stage, or at the stage given."""
    posed = int(state.stage[0]) if stage is None else stage
    task = choose(pool[:1], state, 0, config=config)[0]
    task = dataclasses.replace(task, stage=posed)
    return cccs.advance(
        state, [task] * len(verdicts), [report(v) for v in verdicts], config
    )


def test_advance_by_hand():
    pool = [with_conditionals(9)]
    state = cccs.initial(pool, CONFIG)
    state = step_once(state, pool, [P, W, W, W])  # p = 1/4: rho = 0.5 * 0.25 = 0.125
    assert state.rho.tolist() == [0.125] and state.stage.tolist() == [2]
    state = step_once(state, pool, [P, P, P, W])  # 0.5 * 0.75 + 0.5 * 0.125 = 0.4375
    assert state.rho.tolist() == [0.4375] and state.stage.tolist() == [2]
    state = step_once(state, pool, [P, P])  # 0.5 + 0.21875 = 0.71875 > 0.5: moves on
    assert state.rho.tolist() == [0.0] and state.stage.tolist() == [1]
    state = step_once(state, pool, [P, P])  # rho = 0.5 is not above 0.5
    assert state.rho.tolist() == [0.5] and state.stage.tolist() == [1]
    state = step_once(state, pool, [P])
    assert state.stage.tolist() == [0] and state.visits.tolist() == [5]
    for _ in range(4):
        state = step_once(state, pool, [P])
    assert state.stage.tolist() == [0] and state.rho[0] > 0.9, "stage 0 is the last"


def test_what_never_updates():
    pool = [with_conditionals(9)]
    start = cccs.initial(pool, CONFIG)._replace(rho=np.array([0.4], np.float32))
    for verdicts, stage in (([I, I], None), ([P, P], 0)):
        state = step_once(start, pool, verdicts, stage)
        assert state.rho.tolist() == start.rho.tolist() and state.stage.tolist() == [2]
        assert state.visits.tolist() == [1]
    mixed = step_once(start, pool, [P, I, I])  # infra is out of the share: p = 1
    assert mixed.stage.tolist() == [1]
    assert start.rho[0] == np.float32(0.4) and start.visits[0] == 0, "advance is pure"


def test_a_whole_problem_at_its_own_stage_0_does_update():
    pool = [with_conditionals(1)]
    config = dataclasses.replace(CONFIG, full_fraction=1.0)
    state = cccs.initial(pool, config)
    tasks = choose(pool, state, 0, config=config)
    state = cccs.advance(state, tasks, [report(P)] * len(tasks), config)
    assert state.rho.tolist() == [0.5]


def test_only_drawn_problems_move():
    pool = [with_conditionals(9, str(i)) for i in range(6)]
    state = cccs.initial(pool, CONFIG)
    tasks = choose(pool, state, 0)
    drawn = {task.index for task in tasks}
    after = cccs.advance(
        state, tasks, [report(P)] * len(tasks), dataclasses.replace(CONFIG, alpha=0.9)
    )
    for row in range(6):
        assert (after.stage[row], after.visits[row]) == ((1, 1) if row in drawn else (2, 0))
    numbers = cccs.metrics(after, tasks, [report(P)] * len(tasks), CONFIG)
    assert numbers["cccs/stage0_share"] == 0.0
    assert numbers["cccs/mean_stage"] == pytest.approx((4 * 1 + 2 * 2) / 6)
    assert numbers["cccs/given_share"] == pytest.approx(6 / 9)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_curriculum_that_is_off_poses_whole_problems(prefix):
    pool = [problem(str(i), "a = 1\nif a\n") for i in range(4)]  # does not even parse
    config = CCCSConfig(enabled=False, prefix=prefix)
    state = cccs.initial(pool, config)
    for step, verdict in enumerate((W, P)):
        tasks = choose(pool, state, step, config=config)
        assert {task.stage for task in tasks} == {0}
        state = cccs.advance(state, tasks, [report(verdict)] * len(tasks), config)
        assert state.stage.tolist() == [0] * 4
    assert [len(cccs.pose_all(row, 0, config)) for row in pool] == [1] * 4


def test_random_is_uniform_over_the_cuts():
    """Chi-square with 8 degrees of freedom; 26.1 is exceeded with a chance of .001."""
    pool = [with_conditionals(9, str(i)) for i in range(4)]
    config = CCCSConfig(prefix="random")
    state, seen = cccs.initial(pool, config), []
    for step in range(450):
        tasks = choose(pool, state, step, config=config)
        seen += [task.stage for task in tasks[::2]]
        assert all(task.head == cuts.head(task.problem, task.stage) for task in tasks)
    counts = np.bincount(seen, minlength=9)
    assert len(counts) == 9 and len(seen) == 1800
    assert ((counts - 200) ** 2 / 200).sum() < 26.1
    # nor does a place follow another, or an iteration the one before
    places = np.array(seen).reshape(-1, 4)
    for one, other in ((places[:, 0], places[:, 1]), (places[:-1, 0], places[1:, 0])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


def test_random_has_a_stream_of_its_own():
    """How many problems are posed whole says nothing of where the others are cut."""
    pool = [with_conditionals(9, str(i)) for i in range(4)]
    config = CCCSConfig(prefix="random", full_fraction=0.3)
    state, seen = cccs.initial(pool, config), []
    for step in range(200):
        if cccs.choose_full(4, 0.3, step, seed=0).sum() == 2:
            seen.append(choose(pool, state, step, config=config)[0].stage)
    assert {1, 2, 7, 8} <= set(seen)


def test_random_draws_each_place_by_itself():
    for count, expected in ((0, {0}), (1, {0}), (2, {0, 1})):
        drawn = [cccs.draw_cuts([count], step, 0)[0] for step in range(50)]
        assert set(drawn) == expected
    few, many = cccs.draw_cuts([9, 9, 9], 5, 1), cccs.draw_cuts([2, 0, 9, 4], 5, 1)
    assert few[2] == many[2], "what stands beside a problem has no influence"
    assert cccs.draw_cuts([100] * 4, 5, 1) != cccs.draw_cuts([100] * 4, 5, 2)
    assert cccs.draw_cuts([100] * 4, 5, 1) != cccs.draw_cuts([100] * 4, 6, 1)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_group_shares_its_cut(prefix):
    """Also where full_fraction poses some of the groups whole."""
    pool = [with_conditionals(9, str(i)) for i in range(8)]
    config = CCCSConfig(prefix=prefix, full_fraction=0.25)
    state = cccs.initial(pool, config)
    for step in range(20):
        tasks = choose(pool, state, step, config=config)
        for one, other in zip(tasks[::2], tasks[1::2]):
            assert one == other
        assert {task.stage for task in tasks[::2]} >= {0}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_run_that_goes_on_from_its_arrays_is_the_same(prefix):
    """Verdicts by a rule; the interrupted run knows no more than a checkpoint holds."""
    pool = [with_conditionals(count, str(count)) for count in (0, 1, 2, 5, 9, 9)]
    demote = 0.4 if prefix == "cccs" else 0.0
    config = CCCSConfig(prefix=prefix, alpha=0.9, demote=demote, full_fraction=0.1)

    def iterate(state, step):
        tasks = choose(pool, state, step, config=config)
        verdicts = [P if (step + i) % 3 else W for i in range(len(tasks))]
        if step % 2:
            verdicts = [W] * len(tasks)
        return tasks, cccs.advance(state, tasks, [report(v) for v in verdicts], config)

    state, posed, states = cccs.initial(pool, config), [], []
    for step in range(30):
        tasks, state = iterate(state, step)
        posed.append(tasks)
        states.append(state)
    state = cccs.from_arrays({name: x.copy() for name, x in states[11]._asdict().items()})
    for step in range(12, 30):
        tasks, state = iterate(state, step)
        assert tasks == posed[step]
        for mine, theirs in zip(state, states[step]):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
    moves = {int(x) for a, b in itertools.pairwise(states) for x in b.stage - a.stage}
    assert moves == ({0} if prefix in ("random", "half") else {-1, 0, 1})


def test_demotion_goes_back_a_stage_and_begins_anew():
    pool = [with_conditionals(9)]
    config = CCCSConfig(alpha=0.75, threshold=0.5, demote=0.2)  # settled after 4 visits
    state = step_once(cccs.initial(pool, config), pool, [P], config=config)
    assert state.stage.tolist() == [1] and state.stage_visits.tolist() == [0]
    for visits in (1, 2, 3):
        state = step_once(state, pool, [W, W], config=config)
        state = step_once(state, pool, [W, W], stage=0, config=config)  # full_fraction
        state = step_once(state, pool, [I, I], config=config)  # nobody judged it
        assert state.stage.tolist() == [1] and state.stage_visits.tolist() == [visits]
    before = state._replace(rho=np.array([0.5], np.float32))
    state = step_once(before, pool, [W, W], config=config)  # rho = 0.125 < 0.2
    assert state.stage.tolist() == [2] and state.rho.tolist() == [0]
    assert state.stage_visits.tolist() == [0] and state.visits.tolist() == [11]
    assert before.stage_visits.tolist() == [3], "advance is pure"
    for _ in range(9):
        state = step_once(state, pool, [W, W, W, W, P], config=config)
    assert state.stage.tolist() == [2], "the first stage is the last to go back to"
    assert state.rho[0] == pytest.approx(0.2, abs=1e-5) and state.stage_visits.tolist() == [
        9
    ]


def test_adaptive_goes_both_ways():
    pool = [with_conditionals(9)]
    config = CCCSConfig(prefix="adaptive", threshold=0.5)
    state, seen = cccs.initial(pool, config), []
    for verdicts in ([W, W], [P, W], [I, I], [W, W], [W, I], *[[P, P]] * 9, [W, W]):
        seen.append(int(state.stage[0]))
        state = step_once(state, pool, verdicts, config=config)
    assert seen == [6, 7, 7, 7, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    assert state.stage.tolist() == [1]
    assert state.rho.tolist() == [0] and state.stage_visits.tolist() == [0]


def test_a_checkpoint_from_before_visits_at_the_stage_is_read():
    state = cccs.initial([with_conditionals(9)] * 3, CONFIG)._replace(
        visits=np.array([4, 0, 2], np.int32)
    )
    older = state._asdict()
    del older["stage_visits"]
    read = cccs.from_arrays(older)
    assert read.stage_visits.tolist() == [0] * 3 and read.stage_visits.dtype == np.int32
    for mine, theirs in zip(read, state):
        np.testing.assert_array_equal(mine, theirs)


def test_pass_rates_by_what_was_given():
    pool = [with_conditionals(9, str(i)) for i in range(4)]
    config = CCCSConfig(prefix="half", full_fraction=0.5)
    state = cccs.initial(pool, config)
    tasks = choose(pool, state, 0, config=config)
    whole = [task.stage == 0 for task in tasks]
    assert sum(whole) == 4
    verdicts = iter([P, W, W, I]), iter([P, P, W, W])
    reports = [report(next(verdicts[0 if is_whole else 1])) for is_whole in whole]
    numbers = cccs.metrics(state, tasks, reports, config)
    assert numbers["cccs/pass_rate_stage0"] == pytest.approx(1 / 3)
    assert numbers["cccs/pass_rate_given"] == pytest.approx(1 / 2)
    assert numbers["cccs/stage0_share"] == 0.5
    assert numbers["cccs/given_share"] == pytest.approx(4 / 9 / 2)
    assert (numbers["cccs/mean_stage"], numbers["cccs/done_share"]) == (4, 0)
    none = cccs.metrics(state, tasks, [report(I)] * 8, config)
    assert math.isnan(none["cccs/pass_rate_stage0"]) and none.keys() == numbers.keys()
