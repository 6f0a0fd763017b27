"""An iteration of one update learns in one pass what it would learn in two."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.devices.steps import ALGORITHMS
from stepcoder_jax.learning import updates
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.models import policy
from tests import kit


def make_config(algorithm, **fields):
    config = kit.tiny_config()
    config.algorithm = algorithm
    config.ppo.num_minibatches = 1
    config.ppo.entropy_coef = 0.01
    # Adam divides a gradient near 0 by its own size: rounding would come out as whole steps
    config.ppo.actor.eps = config.ppo.critic.eps = 1e-3
    for name, value in fields.items():
        owner = config.model if hasattr(config.model, name) else config.ppo
        assert hasattr(owner, name)
        setattr(owner, name, value)
    return config


def reference():
    keys = iter(jax.random.split(jax.random.key(5), 100))
    return jax.tree.map(
        lambda x: x + 0.02 * jax.random.normal(next(keys), x.shape), kit.tiny_params()
    )


CASES = {
    "ppo": ("ppo", {"num_micro_batches": 4, "scale_rewards": True, "widths": (14,)}),
    "shared": ("ppo", {"shared_trunk": True}),
    "warm-up": ("ppo", {"critic_warmup_steps": 9}),
    "grpo": ("grpo", {"num_micro_batches": 2}),
    "lora": ("grpo", {"lora_rank": 2}),
}


SLOW = ("grpo", "shared", "warm-up", "lora")  # two compilations each


@pytest.mark.parametrize(
    "case", [pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in CASES]
)
def test_one_pass_learns_what_two_do(case):
    algorithm, fields = CASES[case]
    config = make_config(algorithm, **fields)
    ours = ALGORITHMS[algorithm]

    def in_two(state, *given):
        experience, scale, looked = updates.make_experience(
            ours, config, state, *given, ONE_DEVICE
        )
        state, learnt = updates.update(
            ours, config, state._replace(reward_scale=scale), experience, ONE_DEVICE
        )
        return state, experience, looked, learnt

    def in_one(state, *given):
        return updates.one_pass(ours, config, state, *given, ONE_DEVICE)

    state = updates.init_state(ours, config, kit.tiny_params())
    if state.critic is not None:
        head = {"kernel": jnp.full((32, 1), 0.02), "bias": jnp.full(1, 0.1)}
        state = state._replace(critic=state.critic | {"value_head": head})
    given = (state, reference(), *kit.rollout_batch())
    compiled = jax.jit(in_one)
    got, expected = compiled(*given), jax.jit(in_two)(*given)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, expected
    )
    moved = jax.tree.map(lambda a, b: np.any(a != b), got[0].actor, state.actor)
    assert any(jax.tree.leaves(moved)) == (case != "warm-up")
    assert got[3]["nonfinite"] == 0 and got[0].step == 1
    broken = given[3]._replace(
        rewards=given[3].rewards + np.where(given[2].mask, np.inf, 0)
    )
    left = compiled(*given[:3], broken)
    assert left[3]["nonfinite"] == 1
    jax.tree.map(np.testing.assert_array_equal, left[0], state)  # reward moments as well


def test_only_a_single_update_without_whitening_takes_one_pass():
    def takes(algorithm="ppo", **fields):
        return updates.learns_in_one_pass(
            ALGORITHMS[algorithm], make_config(algorithm, **fields)
        )

    assert takes() and takes("grpo", whiten_advantages=True)
    assert not takes(num_epochs=2) and not takes(num_minibatches=2)
    assert not takes(whiten_advantages=True)


@pytest.mark.parametrize(("algorithm", "fewer"), [("ppo", 2), ("grpo", 1)])
def test_one_pass_runs_each_trained_network_forward_once(algorithm, fewer):
    """Counted in the programs as they are written: 9 passes become 7, 5 become 4."""
    # a head that is small beside the layers, and no loop, of which one turn is counted
    config = make_config(algorithm, num_layers=8, unroll=8)
    ours = ALGORITHMS[algorithm]
    key = jax.random.key(0)
    actor = jax.eval_shape(functools.partial(policy.init_params, config.model), key)
    state = jax.eval_shape(functools.partial(updates.init_state, ours, config), actor)
    given = (state, actor, *kit.rollout_batch())

    def flops(function, *given):
        return jax.jit(function).lower(*given).cost_analysis()["flops"]

    def experience(*given):
        return updates.make_experience(ours, config, *given, ONE_DEVICE)

    made = jax.eval_shape(experience, *given)[0]
    both = flops(experience, *given)
    both += flops(lambda s, e: updates.update(ours, config, s, e, ONE_DEVICE), state, made)
    share = flops(lambda *x: updates.one_pass(ours, config, *x, ONE_DEVICE), *given) / both
    passes = {"ppo": 9, "grpo": 5}[algorithm]
    assert share == pytest.approx(1 - fewer / passes, abs=0.06)
