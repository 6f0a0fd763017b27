import functools

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from stepcoder_jax.config import MeshConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.learning import updates, vocabulary
from stepcoder_jax.learning.ppo import PPO
from stepcoder_jax.models import policy
from stepcoder_jax.planning import counting, hlo, programs
from stepcoder_jax.pytrees import PromptBatch
from stepcoder_jax.sampling import slots
from tests import kit

MESHES = [pytest.param(x, marks=pytest.mark.slow) for x in ((8, 1, 1), (1, 8, 1))]
MESHES.append((2, 2, 2))


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch):
    """304 tokens in 5 chunks of 61, on two devices of the tensor axis in 3 of 51 each."""
    monkeypatch.setattr(vocabulary, "CHUNK", 70)


def make_config(num_micro_batches=1, optimizer="adamw", **model):
    config = kit.tiny_config()
    config.model = kit.tiny_model(**model)
    config.ppo.actor.name = config.ppo.critic.name = optimizer
    config.ppo.num_micro_batches = num_micro_batches
    config.ppo.num_minibatches = 1
    # Adam divides a gradient near 0 by its own size: with a small eps, rounding in the
    # order of sums would come out as whole steps
    config.ppo.actor.eps = config.ppo.critic.eps = 1e-3
    return config


def make_steps(shape, **fields):
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = sharding.make_mesh(MeshConfig(*shape), devices)
    return Steps(make_config(**fields), mesh, (kit.EOS,))


@functools.cache
def run_iteration(shape):
    """One whole iteration; arrays on the host, and flops of one device in the update."""
    steps = make_steps(shape)
    actor = steps.place_params(kit.tiny_params())
    state = steps.init_state(actor)
    rollout, feedback = sample(steps, actor)
    experience, state, _ = steps.make_experience(state, actor, rollout, feedback)
    cost = steps.update_program.lower(state, experience).compile().cost_analysis()
    seen = sharding.to_host(experience)
    state, metrics = steps.update(state, experience)
    results = {"rollout": rollout, "experience": seen, "metrics": metrics}
    results |= {"actor": state.actor, "critic": state.critic}
    return sharding.to_host(results), cost["flops"]


def sample(steps, actor):
    """Rollouts, and feedback with some code that was not executed."""
    batch = kit.prompt_batch()
    done = [x for chunk in steps.sample(actor, batch, 0, None) for x in chunk]
    sampled = slots.collect(batch, kit.COLUMNS, done)
    rewards, executed = sampled.logprobs * 0, sampled.mask.copy()
    last = sampled.length - sampled.prompt_length - 1
    rewards[np.arange(kit.ROWS), last] = np.where(np.arange(kit.ROWS) % 3, -0.6, 1.0)
    executed[::2, 1] = False
    return sampled, kit.Feedback(rewards, executed, np.ones(kit.ROWS, bool))


@pytest.mark.long  # the next has the mesh too, and test_one_pass the numbers
@pytest.mark.parametrize("shape", MESHES)
def test_one_iteration_equals_that_of_one_device(shape):
    expected, _ = run_iteration((1, 1, 1))
    got, _ = run_iteration(shape)
    np.testing.assert_array_equal(got["rollout"].tokens, expected["rollout"].tokens)
    jax.tree.map(close, got, expected)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow  # test_one_pass has one device, and the above the mesh
def test_one_pass_on_a_mesh_equals_two_on_one_device():
    expected, _ = run_iteration((1, 1, 1))
    steps = make_steps((2, 2, 2))
    actor = steps.place_params(kit.tiny_params())
    given = sample(steps, actor)
    state, seen, _, _ = steps.learn(steps.init_state(actor), actor, *given)
    got = {"experience": seen, "actor": state.actor, "critic": state.critic}
    jax.tree.map(close, sharding.to_host(got), {name: expected[name] for name in got})


@pytest.mark.slow  # two compilations each
@pytest.mark.parametrize(
    "fields", [{"lora_rank": 2}, {"optimizer": "adamw8bit"}], ids=["lora", "8bit"]
)
def test_what_saves_memory_learns_the_same_on_a_mesh(fields):
    def learn(shape):
        steps = make_steps(shape, **fields)
        actor = steps.place_params(kit.tiny_params())
        reference = steps.place_reference(actor)
        given = (steps.init_state(actor), reference, *kit.rollout_batch())
        state = steps.learn(*given)[0]
        return sharding.to_host({"actor": state.actor, "critic": state.critic})

    got, expected = learn((2, 2, 2)), learn((1, 1, 1))
    jax.tree.map(close, got, expected)
    start = updates.init_state(PPO, make_config(**fields), kit.tiny_params()).actor
    assert any(
        map(np.any, jax.tree.leaves(jax.tree.map(np.not_equal, start, got["actor"])))
    )


@pytest.mark.parametrize("shape", MESHES)
def test_each_device_does_a_share_of_the_work(shape):
    _, whole = run_iteration((1, 1, 1))
    _, share = run_iteration(shape)
    assert share < 0.3 * whole  # a shuffle without a constraint would leave it at 1


def test_an_update_moves_every_parameter():
    result, _ = run_iteration((1, 1, 1))
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), result["actor"], kit.tiny_params()
    )
    assert all(jax.tree.leaves(moved))


def test_split_weights_decode_the_same_tokens_and_stay_where_they_are():
    """sampling.layout split on fsdp 4 x tensor 2: each device has an eighth of them, and
    in a token it receives less than one matrix."""
    expected, _ = run_iteration((1, 1, 1))
    config = make_config()
    config.sampling.layout = "split"
    mesh = sharding.make_mesh(MeshConfig(1, 4, 2), jax.devices())
    steps = Steps(config, mesh, (kit.EOS,))
    actor = steps.place_params(kit.tiny_params())
    got, _ = sample(steps, actor)
    np.testing.assert_array_equal(got.tokens, expected["rollout"].tokens)
    jax.tree.map(close, got, expected["rollout"])
    found = {program.name: program for program in programs.programs(steps)}
    weights = found["advance"].args[0]
    whole, here = (
        counting.bytes_of(weights, shardings)
        for shardings in (None, jax.tree.map(lambda x: x.sharding, weights))
    )
    norms = 4 * config.model.hidden_size * (2 * config.model.num_layers + 1)
    assert here - norms == (whole - norms) / 8
    text = found["advance"].jitted.lower(*found["advance"].args).compile().as_text()
    largest = max(
        hlo.collectives(text, dict(mesh.shape)), key=lambda x: x.received / x.trips
    )
    matrix = 4 * config.model.hidden_size * config.model.intermediate_size
    assert largest.received / largest.trips < matrix, largest


def test_split_weights_that_do_not_divide_are_named():
    config = make_config(num_kv_heads=1, head_dim=4)
    config.sampling.layout = "split"
    mesh = sharding.make_mesh(MeshConfig(1, 8, 1), jax.devices())
    steps = Steps(config, mesh, (kit.EOS,))
    with pytest.raises(sharding.ShardingError, match=r"k_proj/kernel.*take replicated"):
        steps.sampler_programs(*steps.rollout_sampler())


def count_compilations(caplog, call):
    caplog.clear()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        result = call()
    return result, sum("Compiling jit(" in r.getMessage() for r in caplog.records)


def test_greedy_batches_of_any_size_share_their_programs(caplog):
    steps = make_steps((8, 1, 1))
    actor, batch = steps.place_params(kit.tiny_params()), kit.prompt_batch()

    def greedy(rows):
        part = PromptBatch(*(x[rows] for x in batch))

        def call():
            done = [x for chunk in steps.sample_greedy(actor, part, None) for x in chunk]
            return slots.collect(part, kit.COLUMNS, done)

        return count_compilations(caplog, call)

    whole, compiled = greedy(slice(0, 16))
    assert compiled >= 4  # prepare, read_prompts, fill_slots, advance
    for rows in (slice(0, 5), slice(5, 16)):
        part, compiled = greedy(rows)
        assert compiled == 0
        for a, b in zip(part, whole, strict=True):
            np.testing.assert_allclose(a, b[rows], atol=1e-5)


@functools.cache
def abstract_state(**fields):
    config = kit.tiny_config()
    config.model = kit.tiny_model(**fields)
    key = jax.eval_shape(lambda: jax.random.key(0))
    actor = jax.eval_shape(functools.partial(policy.init_params, config.model), key)
    return jax.eval_shape(functools.partial(updates.init_state, PPO, config), actor)


@pytest.mark.parametrize("shared_trunk", [False, True])
@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_every_leaf_of_a_state_has_one_rule(shared_trunk, tie_embeddings):
    mesh = AbstractMesh((2, 2, 2), sharding.AXES)
    state = abstract_state(shared_trunk=shared_trunk, tie_embeddings=tie_embeddings)
    shardings = sharding.param_shardings(mesh, state)
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    query = shardings.actor["trunk"]["layers"]["q_proj"]["kernel"]
    shape = state.actor["trunk"]["layers"]["q_proj"]["kernel"].shape
    assert query.shard_shape(shape) == (2, 16, 16)
    moments = jax.tree.leaves(shardings.actor_opt)
    assert any(not s.is_fully_replicated for s in moments)


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(sharding.ShardingError, match=r"trunk/layers/lora/kernel.* 0 rules"):
        sharding.find_rule("trunk/layers/lora/kernel")


def test_a_parameter_that_does_not_divide_is_an_error():
    mesh = AbstractMesh((1, 1, 5), sharding.AXES)
    with pytest.raises(
        sharding.ShardingError, match=r"304 does not divide over mesh.tensor"
    ):
        sharding.param_shardings(mesh, abstract_state())


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ((3, 1, 1), "found 8"),
        ((-1, 3, 1), "multiple of 3 devices.*found 8"),
        ((-1, -1, 1), "only one axis"),
        ((0, 1, 1), "must be positive"),
    ],
)
def test_a_mesh_that_does_not_fit_is_an_error(axes, message):
    with pytest.raises(sharding.ShardingError, match=message):
        sharding.make_mesh(MeshConfig(*axes), jax.devices())


def test_the_free_axis_takes_what_is_left():
    mesh = sharding.make_mesh(MeshConfig(-1, 2, 2), jax.devices())
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}


def test_a_batch_that_does_not_divide_names_the_numbers():
    with pytest.raises(sharding.ShardingError, match=r"16 rollouts.*num_micro_batches 4"):
        make_steps((8, 1, 1), num_micro_batches=4)


def test_arrays_survive_the_way_to_the_devices_and_back():
    mesh = sharding.make_mesh(MeshConfig(8, 1, 1), jax.devices())
    batch = kit.prompt_batch()
    there = sharding.to_devices(batch, sharding.batch_sharding(mesh, 0))
    assert there.tokens.sharding.shard_shape(there.tokens.shape) == (2, kit.PROMPT)
    back = sharding.to_host(there)
    assert isinstance(back, PromptBatch)
    jax.tree.map(np.testing.assert_array_equal, back, batch)


def experience_of(config, prepare):
    mesh = sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    steps = Steps(config, mesh, (kit.EOS,))
    actor = steps.place_params(kit.tiny_params())
    reference = prepare(steps, actor)
    found = steps.make_experience(steps.init_state(actor), reference, *kit.rollout_batch())
    return reference, sharding.to_host(found[0])


def test_a_reference_on_the_host_and_in_bfloat16_says_the_same_to_the_bit():
    """Each use rounds the kernels to the activations' dtype, wherever they are kept."""
    config = kit.tiny_config()
    config.model.dtype = "bfloat16"
    _, expected = experience_of(config, lambda _, actor: actor)
    config.ppo.offload_reference = True
    reference, got = experience_of(config, Steps.place_reference)
    query = reference["trunk"]["layers"]["q_proj"]["kernel"]
    assert (query.sharding.memory_kind, query.dtype) == (sharding.HOST, "bfloat16")
    assert reference["trunk"]["norm"]["scale"].dtype == np.float32
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert np.any(got.ref_logprobs)


def test_a_device_that_reads_no_memory_of_the_host_is_named(monkeypatch):
    config = kit.tiny_config()
    config.ppo.offload_reference = True
    monkeypatch.setattr(sharding, "HOST", "elsewhere")
    with pytest.raises(sharding.ShardingError, match=r"read elsewhere memory, the cpu"):
        Steps(config, sharding.make_mesh(MeshConfig(), jax.devices()), (kit.EOS,))
