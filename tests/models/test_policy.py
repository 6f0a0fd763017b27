import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.models import decoding, policy
from tests import kit

LENGTHS = jnp.array([3, 5, 1, 4])


@functools.cache
def tokens():
    return jax.random.randint(jax.random.key(3), (4, 5 + 6), 2, 304)


@functools.cache
def logits():
    return policy.all_logits(kit.tiny_model(), kit.tiny_params(), tokens())


@pytest.mark.parametrize("window", [0, 4])
def test_cached_equals_uncached(window):
    config = kit.tiny_model(family="mistral", sliding_window=window)
    params, row = kit.tiny_params(), jnp.arange(4)
    whole = policy.all_logits(config, params, tokens())
    for column, got in enumerate(kit.read_on(config, params, tokens(), LENGTHS, 6)):
        np.testing.assert_allclose(got, whole[row, LENGTHS - 1 + column], atol=1e-5)


def test_an_untied_head_decodes_as_it_trains():
    config = kit.tiny_model(tie_embeddings=False)
    params = policy.init_params(config, jax.random.key(0))
    whole = policy.all_logits(config, params, tokens())
    got = kit.read_on(config, params, tokens(), LENGTHS, 1)[1]
    np.testing.assert_allclose(got, whole[jnp.arange(4), LENGTHS], atol=1e-5)


def test_bfloat16_weights_are_cast_once_and_norms_stay():
    config = kit.tiny_model(dtype="bfloat16")
    weights = decoding.prepare(config, kit.tiny_params())
    layer = weights["layers"][1]
    assert layer["q_proj"]["kernel"].dtype == weights["embed"].dtype == jnp.bfloat16
    assert layer["input_layernorm"]["scale"].dtype == jnp.float32
    whole = policy.all_logits(config, kit.tiny_params(), tokens())
    got = kit.read_on(config, kit.tiny_params(), tokens(), LENGTHS, 1)[1]
    expected = whole[jnp.arange(4), LENGTHS]
    assert jnp.abs(got - expected).max() < 0.02 * jnp.abs(expected).max()


def test_the_cache_does_not_see_what_lies_right_of_a_prompt():
    config, params = kit.tiny_model(), kit.tiny_params()
    batch = tokens()
    clean = jnp.where(jnp.arange(11)[None] < LENGTHS[:, None] + 1, batch, 0)
    results = [kit.read_on(config, params, each, LENGTHS, 1)[1] for each in (batch, clean)]
    np.testing.assert_allclose(*results, atol=1e-5)


def test_columns_are_read_where_their_token_is_predicted():
    got = kit.completion_logits(kit.tiny_model(), kit.tiny_params(), tokens(), LENGTHS, 6)
    for row, start in enumerate(LENGTHS):
        expected = logits()[row, start - 1 : start + 5]
        np.testing.assert_allclose(got[row], expected, atol=1e-5)


def test_a_critic_begins_as_the_actor_with_values_of_zero():
    config, actor = kit.tiny_model(), kit.tiny_params()
    critic = policy.init_critic(config, actor, None)
    jax.tree.map(np.testing.assert_array_equal, critic["trunk"], actor["trunk"])
    args = (tokens(), LENGTHS, 6)
    assert not np.any(policy.hidden_and_values(config, actor, critic, *args)[1])
    critic["value_head"]["kernel"] += 1.0
    values = policy.apply_value_head(
        critic, policy.completion_hidden(config, critic["trunk"], *args)
    )
    both = policy.hidden_and_values(config, actor, critic, *args)
    np.testing.assert_array_equal(both[1], values)
    hidden = policy.hidden_states(config, actor["trunk"], tokens())
    expected = jnp.sum(hidden[1, 4:10], axis=-1)  # prompt of 5: read from position 4
    np.testing.assert_allclose(values[1], expected, rtol=1e-4, atol=1e-4)


def test_a_shared_trunk_gives_in_one_pass_what_two_give():
    config, actor = kit.tiny_model(shared_trunk=True), kit.tiny_params()
    critic = policy.init_critic(config, actor, None)
    assert set(critic) == {"value_head"}
    critic["value_head"]["kernel"] += 1.0
    args = (tokens(), LENGTHS, 6)
    hidden, values = policy.hidden_and_values(config, actor, critic, *args)
    alone = policy.completion_hidden(config, actor["trunk"], *args)
    np.testing.assert_allclose(hidden, alone, atol=1e-5)
    np.testing.assert_allclose(values, policy.apply_value_head(critic, alone), rtol=1e-5)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_fresh_parameters_are_calm_and_follow_the_key(tie_embeddings):
    config = kit.tiny_model(tie_embeddings=tie_embeddings)
    params = policy.init_params(config, jax.random.key(0))
    assert ("lm_head" in params) is not tie_embeddings
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    entropy = -np.sum(
        (p := jax.nn.softmax(policy.all_logits(config, params, tokens())[0, 0])) * np.log(p)
    )
    assert np.log(304) - 0.1 < entropy < np.log(304)
    other = policy.init_params(config, jax.random.key(1))
    kernel = lambda tree: tree["trunk"]["layers"]["q_proj"]["kernel"]  # noqa: E731
    assert np.abs(kernel(params) - kernel(other)).max() > 0.1
    assert np.abs(kernel(params)[0] - kernel(params)[1]).max() > 0.1
