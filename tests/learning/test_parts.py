"""Answers of two parts, an explanation and a program: what each is worth, and what learns.

Without networks, but for the last test.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.devices.steps import ALGORITHMS
from stepcoder_jax.learning import advantages as adv
from stepcoder_jax.learning import metrics, ppo, scoring, updates
from stepcoder_jax.learning.scoring import Current, RolloutScores
from stepcoder_jax.models import policy
from tests import kit

# within the answer, none, all of it, and an invalid row (3)
EXPLAINED = np.tile(np.array([2, 0, kit.COLUMNS, 1], np.int32), kit.ROWS // 4)


def make_config(**fields):
    config = kit.tiny_config()
    for name, value in fields.items():
        assert hasattr(config.ppo, name)
        setattr(config.ppo, name, value)
    return config


def batch():
    """Rollouts with rewards at |e| and T; |e| is never beyond the answer's end."""
    rollout, feedback = kit.rollout_batch()
    count = rollout.mask.sum(axis=1).astype(np.int32)
    explained = np.minimum(EXPLAINED, count)
    rewards = feedback.rewards.copy()
    has = explained > 0
    rewards[has, explained[has] - 1] += np.linspace(-2, 2, has.sum(), dtype=np.float32)
    return rollout, feedback._replace(rewards=rewards, explained=explained)


def complete(config):
    """The experience of random scores, and the rewards that its advantages are of."""
    rollout, feedback = batch()
    begun = ppo.begin(config, adv.init_reward_scale(), rollout, feedback)
    mask = begun.experience.mask
    draw = np.random.default_rng(4).normal(size=(3, *mask.shape)).astype(np.float32)
    old, ref, values = (np.where(mask, x, 0) for x in draw)
    found = ppo.complete(
        config, begun.experience, begun.outcome, RolloutScores(old, ref, None, values)
    )
    rewards = np.where(mask, feedback.rewards - config.ppo.kl_coef * (old - ref), 0)
    return found, rewards


def spans(row, explained):
    """The parts of a row's answer as slices."""
    end = int(row.sum())
    cuts = sorted({0, min(explained, end), end})
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


def test_split_the_explanation_is_worth_nothing_that_comes_behind_it():
    fields = {"gamma": 0.9, "gae_lambda": 0.8}
    split, rewards = complete(make_config(coupling="hard_split", **fields))
    printed, _ = complete(make_config(**fields))
    for row, mask in enumerate(np.asarray(split.mask)):
        for part in spans(mask, split.explained[row]):
            one = [np.asarray(x)[None, part] for x in (rewards[row], split.old_values[row])]
            advantages, returns = adv.gae(*one, np.ones_like(one[0], bool), 0.9, 0.8)
            np.testing.assert_allclose(
                split.advantages[row, part], advantages[0], atol=1e-5
            )
            np.testing.assert_allclose(split.returns[row, part], returns[0], atol=1e-5)
    inside = np.asarray(adv.in_explanation(split.explained, split.mask))
    cut = (np.asarray(split.explained) > 0) & (split.explained < split.mask.sum(axis=1))
    differ = np.abs(np.asarray(split.advantages - printed.advantages)) > 1e-5
    assert differ[cut][inside[cut]].all() and cut.sum() > 3
    assert not differ[~inside].any() and not differ[~cut].any()


@pytest.mark.parametrize("coupling", ["printed", "hard_split"])
def test_a_value_of_a_whole_answer_is_learnt_where_it_is_read(coupling):
    config = make_config(coupling=coupling, value_unit="answer")
    found, rewards = complete(config)
    firsts = np.zeros_like(found.mask)
    for row, mask in enumerate(np.asarray(found.mask)):
        apart = int(found.explained[row]) if coupling == "hard_split" else 0
        for part in spans(mask, apart):
            worth = rewards[row, part].sum()
            baseline = found.old_values[row, part.start]
            np.testing.assert_allclose(
                found.advantages[row, part], worth - baseline, atol=1e-5
            )
            np.testing.assert_allclose(found.returns[row, part], worth, atol=1e-5)
            firsts[row, part.start] = True
    np.testing.assert_array_equal(ppo.value_mask(config, found), firsts)
    divisors = ppo.divisors(config, found)
    assert divisors[1] == firsts.sum() < found.mask.sum()
    logs = metrics.critic_metrics(found, firsts)
    np.testing.assert_allclose(
        logs["return"], np.asarray(found.returns)[firsts].mean(), 1e-5
    )

    def loss(values):
        current = Current(found.old_logprobs, jnp.zeros_like(values), values, None)
        return ppo.loss(config, current, found, divisors)[0]

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(found.old_values)))
    np.testing.assert_array_equal(gradient != 0, firsts)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_token_of_the_prompt_is_in_the_loss(algorithm, monkeypatch):
    """The wrong program and the feedback: whatever is predicted there, nothing changes."""
    config = make_config(entropy_coef=0.1, coupling="hard_split")
    config.algorithm, ours = algorithm, ALGORITHMS[algorithm]
    state = updates.init_state(ours, config, kit.tiny_params())
    if algorithm == "ppo":  # a fresh head is 0, and its trunk would have no gradient
        head = {"kernel": jnp.full((32, 1), 0.02), "bias": jnp.full(1, 0.1)}
        state = state._replace(critic=state.critic | {"value_head": head})
    rollout, feedback = batch()
    rows = updates.begin_rows(rollout, feedback)
    noise = np.random.default_rng(2).normal(size=(5, *rows.mask.shape)).astype(np.float32)
    names = ("old_logprobs", "ref_logprobs", "old_values", "advantages", "returns")
    rows = rows._replace(**dict(zip(names, np.where(rows.mask, 0.1 * noise - 5.7, 0))))
    hidden_states = policy.hidden_states

    @jax.jit
    def gradient(moved):
        def loss(moved):
            def shifted(*given):
                return hidden_states(*given) + moved

            monkeypatch.setattr(policy, "hidden_states", shifted)
            now = scoring.run_networks(config, state.actor, state.critic, rows, 1)
            return ours.loss(config, now, rows, ours.divisors(config, rows))[0]

        return jax.grad(loss)(moved)

    moves = np.any(gradient(jnp.zeros((*rows.tokens.shape, 32))) != 0, axis=-1)
    place = np.arange(rows.tokens.shape[1])[None] - rows.prompt_length[:, None] + 1
    learnt = rows.mask if algorithm == "ppo" else rows.loss_mask  # its critic has them all
    count = rows.mask.shape[1]
    inside = (place >= 0) & (place < count)
    expected = inside & np.take_along_axis(learnt, np.clip(place, 0, count - 1), axis=1)
    np.testing.assert_array_equal(moves, expected)
    assert expected.sum() == learnt.sum() > 20
