"""The curriculum: conditionals, cuts, draws and the moves between stages."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from stepcoder_jax.config import CCCSConfig, ConfigError, SamplingConfig
from stepcoder_jax.feedback import cccs
from stepcoder_jax.records import Mode, Problem, Report, Verdict

SAMPLING = SamplingConfig(problems_per_step=4, rollouts_per_problem=2)
CONFIG = CCCSConfig(alpha=0.5, threshold=0.5)

SOLUTION = '''def f(a):
    """if this were code: it would count"""
    for x in a:
        if x:
            y = [i for i in a if i]
        elif x > 1:
            y = 1 if x else 2
    while y:
        try:
            y = 0
        except E:
            with z:
                pass
    return y
'''


def problem(name="p", solution=SOLUTION, starter=""):
    return Problem(name, "Do.", starter, solution, "f", Mode.CALL, (), "interview")


def with_conditionals(count, name="p"):
    return problem(
        name, "a = 1\n" + "".join(f"if a == {i}:\n    a += 1\n" for i in range(count))
    )


def report(verdict):
    return Report(verdict, (), frozenset())


def test_conditionals_are_if_elif_for_while():
    assert cccs.conditionals(SOLUTION) == ((3, 4), (4, 8), (6, 8), (8, 4))
    assert cccs.conditionals("async def f():\n  async for é in a: pass\n") == ((2, 2),)
    assert cccs.conditionals("s = '日'\nif s:\n  for c in s: pass\n") == ((2, 0), (3, 2))


def test_stages_and_cuts_by_hand():
    # E = 9: ceil(sqrt 9) = 3 stages, stride ceil(9 / 3) = 3: cuts at 6, 3, then none.
    assert [cccs.cut_index(9, c) for c in (2, 1)] == [6, 3]
    # E = 4: 2 stages, stride 2. E = 5: 3 stages, stride 2. E = 2: 2 stages, stride 1.
    assert cccs.cut_index(4, 1) == 2
    assert [cccs.cut_index(5, c) for c in (2, 1)] == [4, 2]
    assert cccs.cut_index(2, 1) == 1
    assert [cccs.num_stages(count) for count in range(11)] == [
        1,
        1,
        2,
        2,
        2,
        3,
        3,
        3,
        3,
        3,
        4,
    ]


def test_every_stage_has_a_cut_inside_the_program():
    for count in range(1, 600):
        stages = cccs.num_stages(count)
        assert stages == max(1, math.ceil(math.sqrt(count)))
        cuts = [cccs.cut_index(count, stage) for stage in range(1, stages)]
        assert all(0 < cut < count for cut in cuts) and cuts == sorted(set(cuts))


@pytest.mark.parametrize("stage", [-1, 3, 7])
def test_a_stage_that_does_not_exist_is_an_error(stage):
    with pytest.raises(ValueError, match=f"stage {stage} has no cut: 9 .* stages 0 to 2"):
        cccs.cut_index(9, stage)


def test_head_is_the_canonical_text_before_the_header():
    lines = SOLUTION.splitlines(keepends=True)
    # E = 4: stage 1 cuts before conditional number 2, the `elif` of line 6.
    assert cccs.head(problem(), 1) == "".join(lines[:5])
    nine = with_conditionals(9)
    for stage in (1, 2):
        prefix = cccs.head(nine, stage)
        rest = nine.solution.removeprefix(prefix)
        assert prefix.endswith("\n") and rest.startswith(f"if a == {3 * stage}:")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_head_counts_lines_as_python_does(end):
    solution = end.join(["a = '\x0c\u2028'", "if a:", "    a", "if b:", "    b", ""])
    assert cccs.head(problem(solution=solution), 1) == solution[: solution.index("if b")]


def test_head_at_stage_0_is_the_starter_code_alone():
    for starter, expected in (
        ("", ""),
        ("\n", ""),
        ("def f(a):", "def f(a):\n"),
        ("\n\ndef f(a):\n\t\n\n", "\n\ndef f(a):\n"),
    ):
        assert cccs.head(problem(starter=starter), 0) == expected


def test_initial_state():
    pool = [with_conditionals(count) for count in (0, 1, 2, 9)]
    state = cccs.initial(pool, CONFIG)
    assert state.stage.tolist() == [0, 0, 1, 2] and state.stage.dtype == np.int32
    assert state.rho.dtype == np.float32 and not state.rho.any() and not state.visits.any()
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
        assert all(task.head == cccs.head(task.problem, task.stage) for task in tasks)
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
    task = choose(pool[:1], state, 0)[0]
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
    numbers = cccs.metrics(after, tasks)
    assert numbers["cccs/stage0_share"] == 0.0
    assert numbers["cccs/mean_stage"] == pytest.approx((4 * 1 + 2 * 2) / 6)


APPS = Path(__file__).parents[3] / "shared" / "data" / "apps_plus" / "problems.json"


@pytest.mark.skipif(not APPS.exists(), reason=f"no APPS+ problems at {APPS}")
def test_heads_of_real_problems_are_prefixes_that_grow_with_the_stage():
    rows = json.loads(APPS.read_text())
    pool = [problem(str(i), row["canonical_solution"]) for i, row in enumerate(rows)]
    stages = cccs.initial(pool, CONFIG).stage
    assert len(pool) == 316 and stages.max() > 2
    for row, last in zip(pool, stages):
        sizes = [0]
        for stage in range(1, last + 1):
            prefix = cccs.head(row, stage)
            assert row.solution.startswith(prefix) and prefix[-1] in "\r\n"
            sizes.append(len(prefix))
        assert sizes == sorted(set(sizes)), row.id


@pytest.mark.parametrize("solution", ["a\0b\n", "x = " + "-" * 9000 + "1\n"])
def test_a_solution_that_the_parser_gives_up_on_is_named(solution):
    problem = Problem("odd", "", "", solution, None, Mode.STDIN_MAIN, (), "introductory")
    with pytest.raises(ConfigError, match="problem odd: the canonical solution does not"):
        cccs.problem_conditionals(problem)
