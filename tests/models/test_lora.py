"""LoRA: adapters beside a frozen base, and what they leave alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.devices import sharding
from stepcoder_jax.learning import updates
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.learning.ppo import PPO
from stepcoder_jax.models import lora, policy
from tests import kit

RANK = 4
LENGTHS = jnp.array([3, 5, 1, 4])


def make_config(**fields):
    config = kit.tiny_config()
    config.model = kit.tiny_model(lora_rank=RANK, lora_alpha=8.0, **fields)
    config.ppo.actor.learning_rate = config.ppo.critic.learning_rate = 1e-2
    return config


def tokens():
    return jax.random.randint(jax.random.key(3), (4, 11), 2, 304)


@functools.cache
def learnt(targets="all"):
    """Adapters that say something: B away from zero."""
    config = make_config(lora_targets=targets)
    actor = policy.add_adapters(config.model, kit.tiny_params(), jax.random.key(1))
    adapters, base = lora.split(actor)
    keys = iter(jax.random.split(jax.random.key(2), 50))
    adapters = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), adapters
    )
    return config, lora.graft(base, adapters)


def test_fresh_adapters_add_exactly_nothing():
    config = make_config()
    actor = policy.add_adapters(config.model, kit.tiny_params(), jax.random.key(1))
    logits = policy.all_logits(config.model, actor, tokens())
    base = policy.all_logits(config.model, kit.tiny_params(), tokens())
    np.testing.assert_array_equal(logits, base)
    query = actor["trunk"]["layers"]["q_proj"]
    assert query["lora_a"].shape == (2, 32, RANK) and query["lora_b"].shape == (2, RANK, 32)
    assert np.std(query["lora_a"]) == pytest.approx(32**-0.5, rel=0.2)
    assert (
        policy.add_adapters(kit.tiny_model(), kit.tiny_params(), None) is kit.tiny_params()
    )


@pytest.mark.parametrize(("targets", "count"), [("attention", 4), ("all", 7)])
def test_merged_weights_say_the_same(targets, count):
    config, actor = learnt(targets)
    adapted = [name for name, x in actor["trunk"]["layers"].items() if "lora_a" in x]
    assert len(adapted) == count
    merged = lora.merge(config.model, actor)
    assert jax.tree.structure(merged) == jax.tree.structure(kit.tiny_params())
    logits, plain = (
        policy.all_logits(config.model, params, tokens()) for params in (actor, merged)
    )
    np.testing.assert_allclose(logits, plain, atol=2e-5)
    base = policy.all_logits(config.model, kit.tiny_params(), tokens())
    assert np.abs(logits - base).max() > 0.1


def test_split_strip_and_graft_take_a_tree_apart_and_join_it():
    _, actor = learnt()
    adapters, base = lora.split(actor)
    assert jax.tree.structure(base) == jax.tree.structure(kit.tiny_params())
    assert len(jax.tree.leaves(adapters)) == 14
    again = lora.graft(base, adapters)
    assert jax.tree.structure(again) == jax.tree.structure(actor)
    jax.tree.map(np.testing.assert_array_equal, again, actor)
    assert lora.split(kit.tiny_params()) == (kit.tiny_params(), {})


def test_cached_decoding_has_the_adapters_too():
    config, actor = learnt()
    whole = policy.all_logits(config.model, actor, tokens())
    row = jnp.arange(4)
    read = kit.read_on(config.model, actor, tokens(), LENGTHS, 1)
    for column, got in enumerate(read):
        np.testing.assert_allclose(got, whole[row, LENGTHS - 1 + column], atol=2e-5)


@functools.cache
def iteration(shared_trunk):
    config = make_config(shared_trunk=shared_trunk)
    state = updates.init_state(PPO, config, kit.tiny_params())
    # with a head of zeros the critic's adapters would have no gradient yet
    state.critic["value_head"]["kernel"] += 0.02

    @jax.jit
    def run(state, rollout, feedback):
        experience, _, metrics = updates.make_experience(
            PPO, config, state, {}, rollout, feedback, ONE_DEVICE
        )
        return metrics, updates.update(PPO, config, state, experience, ONE_DEVICE)

    metrics, (after, learned) = jax.device_get(run(state, *kit.rollout_batch()))
    later, _ = jax.device_get(run(after, *kit.rollout_batch()))
    return state, metrics, after, learned, later


@pytest.mark.parametrize(
    "shared_trunk", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_an_iteration_moves_the_adapters_alone(shared_trunk):
    state, metrics, after, learned, later = iteration(shared_trunk)
    # the base is the reference, but for how the compiler rounds two programs
    assert metrics["kl"] == pytest.approx(0, abs=1e-7)
    assert metrics["kl_sampled"] == pytest.approx(0, abs=1e-7)
    assert later["kl"] > 1e-4  # and stays where it was
    assert learned["ratio_max_first"] == pytest.approx(1, abs=1e-6)
    assert learned["ratio_max"] > 1.001 and learned["nonfinite"] == 0
    jax.tree.map(np.testing.assert_array_equal, lora.strip(after.actor), kit.tiny_params())
    for old, new in zip(*(jax.tree.leaves(lora.split(s.actor)[0]) for s in (state, after))):
        assert np.any(old != new)
    moments = [x for x in jax.tree.leaves(after.actor_opt) if x.ndim]
    assert len(moments) == 2 * 14  # the base has none
    critic = jax.tree.leaves(after.critic)
    assert len(critic) == (2 if shared_trunk else 16)
    values = {"value_head"} if shared_trunk else {"value_head", "trunk"}
    assert set(after.critic) == values
    for old, new in zip(jax.tree.leaves(state.critic), critic, strict=True):
        assert np.any(old != new)


def test_every_adapter_has_one_rule_and_its_share():
    mesh = jax.sharding.AbstractMesh((2, 2, 2), sharding.AXES)
    state = jax.eval_shape(
        functools.partial(updates.init_state, PPO, make_config()), kit.tiny_params()
    )
    found = sharding.param_shardings(mesh, state)
    layers, shapes = (t.actor["trunk"]["layers"] for t in (found, state))
    for name, kind, shape in (
        ("q_proj", "lora_a", (2, 16, RANK)),
        ("q_proj", "lora_b", (2, RANK, 16)),
        ("down_proj", "lora_a", (2, 32, RANK)),
        ("down_proj", "lora_b", (2, RANK, 16)),
    ):
        assert layers[name][kind].shard_shape(shapes[name][kind].shape) == shape


def test_a_host_copy_of_a_base_that_is_there_anyway_is_refused():
    config = Config()
    config.model.lora_rank, config.ppo.offload_reference = 4, True
    with pytest.raises(ConfigError, match=r"ppo.offload_reference.*reference is the base"):
        config.validate()
