"""The online buffer: what stays, what is drawn and told, and that a run goes on alike."""

import json

import jax
import numpy as np
import pytest

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.runs.posing import buffer
from tests.run_kit import check_names, metrics_of, rollouts_of, run_train, saved
from tests.runs.posing.test_dynamic import GROUP, batch, tasks_of

BATCH, CAPACITY = 4, 10


def after(steps, capacity=CAPACITY):
    """A buffer after so many iterations; a rollout's first token is its number."""
    found = None
    for step in range(steps):
        fresh = batch(tasks_of(1, 2), first=step * BATCH)
        found = buffer.push(found, fresh, step, capacity)
    return found


def numbers(rollout):
    return rollout.tokens[:, 0].tolist()


def test_the_newest_stay_in_the_order_in_which_they_came():
    assert numbers(after(1).rollout) == [0, 1, 2, 3]
    full = after(4)
    assert numbers(full.rollout) == list(range(6, 16))
    assert full.born.tolist() == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    # all that belongs to a row stays with it: the first rollout of problem 1 alone passes
    passes = [number % BATCH == 0 for number in range(6, 16)]
    assert [report.passed for report in full.known.reports()] == passes
    assert (full.feedback.rewards[:, 1] > 0).tolist() == passes
    assert len(full.feedback.valid) == len(full.rollout.mask) == CAPACITY
    assert full.feedback.explained is None


def test_a_batch_is_drawn_from_all_of_them_by_seed_and_step():
    full = after(4)
    seen = set()
    for step in range(3, 40):
        drawn = buffer.draw(full, BATCH, 1, seed=5, step=step)
        rows = numbers(drawn.rollout)
        assert len(set(rows)) == BATCH and rows == sorted(rows)
        assert rows == numbers(buffer.draw(full, BATCH, 1, seed=5, step=step).rollout)
        seen |= set(rows)
        fresh = [row - 12 for row in rows if row >= 12]
        # the place in the batch of each rollout of the newest iteration
        assert [int(x) for x in drawn.places[fresh]] == list(
            range(BATCH - len(fresh), BATCH)
        )
        assert (np.delete(drawn.places, fresh) == -1).all()
    assert seen == set(range(6, 16))
    assert numbers(buffer.draw(full, BATCH, 1, seed=6, step=3).rollout) != numbers(
        buffer.draw(full, BATCH, 1, seed=5, step=3).rollout
    )


def test_the_first_batch_is_the_iterations_own():
    fresh, drawn = batch(tasks_of(1, 2)), buffer.draw(after(1), BATCH, 1, seed=0, step=0)
    for one, other in zip(drawn.rollout, fresh.rollout, strict=True):
        np.testing.assert_array_equal(one, other)
    assert drawn.places.tolist() == [0, 1, 2, 3]
    assert drawn.metrics == {
        "buffer/rows": 4,
        "buffer/stale_share": 0.0,
        "buffer/mean_age": 0.0,
    }


def test_age_is_told():
    full = after(3)  # ages 2 (two rows), 1, 0
    for step in range(2, 30):
        drawn = buffer.draw(full, BATCH, 1, seed=1, step=step)
        born = np.array(numbers(drawn.rollout)) // BATCH
        assert drawn.metrics["buffer/mean_age"] == pytest.approx((step - born).mean())
        assert drawn.metrics["buffer/stale_share"] == (born < step).mean()
    assert drawn.metrics["buffer/rows"] == 10


def test_groups_are_drawn_whole():
    full = after(4)
    for step in range(10):
        rows = numbers(buffer.draw(full, BATCH, GROUP, seed=2, step=step).rollout)
        assert rows[1::GROUP] == [row + 1 for row in rows[::GROUP]]
        assert all(row % GROUP == 0 for row in rows[::GROUP])


def test_it_comes_back_from_its_arrays():
    full = after(4)
    arrays = buffer.to_arrays(full)
    assert "explained" not in arrays["feedback"]
    again = buffer.from_arrays(arrays)
    for one, other in zip(full[:3], again[:3], strict=True):
        assert [x is None for x in one] == [x is None for x in other]
        for x, y in zip(one, other, strict=True):
            if x is not None:
                np.testing.assert_array_equal(x, y)
                assert x.dtype == y.dtype
    np.testing.assert_array_equal(full.born, again.born)


def test_a_buffer_holds_an_iteration_and_whole_groups():
    config = Config()
    config.model.max_positions = 4096
    config.sampling.problems_per_step = config.sampling.rollouts_per_problem = 4
    for right in (0, 16, 20):
        config.sampling.buffer = right
        config.validate()
    for wrong in (12, 18, -16):
        config.sampling.buffer = wrong
        with pytest.raises(ConfigError, match=rf"^sampling.buffer: .* got {wrong};[^\n]*$"):
            config.validate()


@pytest.mark.long
def test_a_run_with_a_buffer_goes_on_as_if_it_had_not_stopped(tmp_path):
    flags = ["--sampling.buffer", "40", "--run.save_every", "1"]
    flags += ["--evaluation.every", "0", "--evaluation.test_problems", "0"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_train(whole, *flags) == 0
    assert run_train(parts, *flags, "--run.total_steps", "2") == 0
    assert run_train(parts, *flags, "--run.resume") == 0
    check_names(whole)
    assert metrics_of(whole) == metrics_of(parts)
    assert rollouts_of(whole) == rollouts_of(parts)
    state, curriculum, _, _ = saved(whole, 4)
    again, curriculum2, _, _ = saved(parts, 4)
    for one, other in ((state.actor, again.actor), (curriculum, curriculum2)):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    rows = metrics_of(whole)
    assert [row["buffer/rows"] for row in rows] == [16, 32, 40, 40]
    assert rows[0]["buffer/stale_share"] == 0 < rows[-1]["buffer/stale_share"]
    logged = [
        [json.loads(line) for line in rollouts_of(whole)[f"{step}.jsonl"].splitlines()]
        for step in range(4)
    ]
    # those that are left for later are told apart
    assert all(row["advantages"] and row["values"] for row in logged[0])
    left = [row for row in logged[3] if not row["advantages"]]
    stale = round(16 * rows[3]["buffer/stale_share"])
    assert len(left) == stale > 0 and not any(row["values"] for row in left)
