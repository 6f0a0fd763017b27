"""Written programs behind a batch: which are drawn, and what stands in their rows."""

import numpy as np

from stepcoder_jax.config import CCCSConfig
from stepcoder_jax.feedback import cccs
from stepcoder_jax.feedback.sft_rows import Example, write_on
from stepcoder_jax.pytrees import Feedback, Rollout
from stepcoder_jax.records import Task
from stepcoder_jax.runs.posing import written
from tests.feedback.kit import problem

SOLUTION = "x = 1\nif x:\n    x = 2\nif x:\n    x = 3\nprint(x)\n"
PROBLEMS = [problem(str(i), SOLUTION) for i in range(6)]


def test_each_problem_comes_once_in_an_epoch_at_its_stage():
    config = CCCSConfig()
    state = cccs.initial(PROBLEMS, config)
    state.stage[3] = 0
    tasks = [
        x for step in (0, 1) for x in written.choose(PROBLEMS, state, 3, (5, step), config)
    ]
    assert sorted(task.index for task in tasks) == [*range(6)]
    again = written.choose(PROBLEMS, state, 3, (5, 1), config)
    assert [x.index for x in again] == [x.index for x in tasks[3:]]
    for task in tasks:
        assert task.stage == state.stage[task.index]
        assert SOLUTION.startswith(task.head) and bool(task.head) == (task.stage > 0)


def encode(task, code):
    ids = [ord(x) for x in task.head + code]
    return Example(ids, len(task.head)) if len(code) < 50 else None


def test_a_solution_goes_on_behind_the_head_or_stands_whole():
    one = problem("p", "ab\ncd\n")
    assert write_on(Task(one, 0, 1, "ab\n"), encode) == Example([*b"ab\ncd"], 3)
    assert write_on(Task(one, 0, 0, "zz\n"), encode) == Example([*b"ab\ncd"], 0)
    assert write_on(Task(problem("p", "a" * 60), 0, 0, ""), encode) is None
    assert write_on(Task(problem("p", ""), 0, 0, ""), encode) is None


def test_rows_stand_behind_the_rollouts():
    ends, mask = np.array([3, 4], np.int32), np.ones((2, 3), bool)
    zeros, tokens = np.ones((2, 3), np.float32), np.full((2, 7), 9, np.int32)
    rollout = Rollout(tokens, ends - 1, ends, mask, zeros, zeros, ends > 3)
    feedback = Feedback(zeros, mask, ends > 0, baseline=zeros[:, 0], token_values=zeros)
    examples = [Example([5, 6, 7, 8], 2), None]
    found, told = written.add(rollout, feedback, examples)
    assert found.tokens.tolist()[2:] == [[5, 6, 7, 8, 0, 0, 0], [0] * 7]
    assert found.prompt_length.tolist() == [2, 3, 2, 1]
    assert found.length.tolist() == [3, 4, 4, 1]
    assert found.mask.tolist()[2:] == [[True, True, False], [False] * 3]
    assert found.truncated.tolist() == [False, True, False, False]
    assert told.written.tolist() == [False, False, True, True]
    assert told.valid.tolist() == [True, True, True, False]
    assert told.executed.tolist() == found.mask.tolist()
    assert told.rewards.tolist()[2:] == told.token_values.tolist()[2:] == [[0.0] * 3] * 2
    assert told.baseline.tolist() == [1, 1, 0, 0] and told.explained is None
    # the first rows are as they were
    for array, new in zip([*rollout, *feedback[:3]], [*found, *told[:3]]):
        np.testing.assert_array_equal(array, new[:2])
