"""An algorithm is one object: a third one needs nothing but itself."""

import ast
import functools
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import stepcoder_jax
from stepcoder_jax.config import Config
from stepcoder_jax.devices.steps import ALGORITHMS
from stepcoder_jax.learning import losses, updates
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.learning.metrics import update_metrics
from tests import kit

PACKAGE = Path(stepcoder_jax.__file__).parent


def begin(config, scale, rollout, feedback):
    rows = updates.begin_rows(rollout, feedback)
    outcome = jnp.where(rows.mask, feedback.rewards, 0.0).sum(axis=1, keepdims=True)
    rows = rows._replace(advantages=jnp.where(rows.mask, outcome, 0.0))
    return updates.Begun(rows, None, scale, {"reinforce/reward": outcome.mean()})


def complete(config, rows, outcome, scores):
    return rows._replace(old_logprobs=scores.logprobs, ref_logprobs=scores.ref_logprobs)


def divisors(config, batch):
    return losses.sum_over(batch.advantages, batch.loss_mask).count


def loss(config, current, batch, number):
    tokens = -batch.advantages * current.logprobs
    logged = update_metrics(current, batch, tokens, jnp.zeros_like(tokens))
    return losses.sum_over(tokens, batch.loss_mask).total / number, logged


# Williams 1992, without a baseline
REINFORCE = updates.Algorithm(begin, complete, lambda config: False, divisors, loss)


def test_a_third_algorithm_learns_an_iteration():
    """REINFORCE, whose gradient at ratio 1 is that of PPO's surrogate."""
    config = kit.tiny_config()
    config.ppo.num_minibatches = 1
    state = updates.init_state(REINFORCE, config, kit.tiny_params())
    assert state.critic is state.critic_opt is None
    assert updates.learns_in_one_pass(REINFORCE, config)
    learn = jax.jit(
        functools.partial(updates.one_pass, REINFORCE, config, layout=ONE_DEVICE)
    )
    rollout, feedback = kit.rollout_batch()
    after, experience, looked, learnt = learn(
        state, kit.tiny_params(), rollout=rollout, feedback=feedback
    )
    mask = np.asarray(experience.loss_mask)
    logprobs = np.asarray(experience.old_logprobs)
    expected = -(np.asarray(experience.advantages) * logprobs)[mask].mean()
    np.testing.assert_allclose(learnt["policy_loss"], expected, rtol=1e-5)
    rewards = np.where(feedback.valid, feedback.rewards.sum(axis=1), 0)
    np.testing.assert_allclose(looked["reinforce/reward"], rewards.mean(), rtol=1e-5)
    assert learnt["actor_grad_norm"] > 0 and "critic_grad_norm" not in learnt
    moved = jax.tree.map(lambda a, b: np.any(a != b), after.actor, state.actor)
    assert any(jax.tree.leaves(moved)) and after.step == 1


def branches(source):
    """Lines of a source that compare the algorithm's name with something."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Compare, ast.Match))
        and any(
            isinstance(part, ast.Attribute) and part.attr == "algorithm"
            for part in ast.walk(node)
        )
    ]


def test_no_code_but_the_rules_of_the_config_asks_for_an_algorithm_by_name():
    assert branches("x = 1\ny = config.algorithm == 'ppo'") == [2]
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if branches(path.read_text())
    }
    assert all(name.startswith("config") for name in found), found
    assert set(ALGORITHMS) == set(
        typing.get_args(typing.get_type_hints(Config)["algorithm"])
    )
