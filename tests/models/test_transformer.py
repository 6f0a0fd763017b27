import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.models import policy, rotary, transformer
from tests import kit


@functools.cache
def tokens():
    return jax.random.randint(jax.random.key(3), (2, 12), 2, 304)


@functools.cache
def logits():
    return policy.all_logits(kit.tiny_model(), kit.tiny_params(), tokens())


def test_causality_by_gradient():
    """No logit depends on a later token: the gradient to its embedding is exactly 0."""
    config, params = kit.tiny_model(tie_embeddings=False), kit.tiny_params()
    read = 5
    row = jnp.arange(2, 14)[None]  # twelve different tokens: one embedding row each
    kernel = jax.random.normal(jax.random.key(0), (32, 304))

    def one_position(embedding):
        trunk = params["trunk"] | {"embed_tokens": {"embedding": embedding}}
        untied = {"trunk": trunk, "lm_head": {"kernel": kernel}}
        return jnp.sum(policy.all_logits(config, untied, row)[0, read] ** 2)

    gradient = jax.grad(one_position)(params["trunk"]["embed_tokens"]["embedding"])
    touched = np.any(np.asarray(gradient) != 0, axis=1)[2:14]
    np.testing.assert_array_equal(touched, np.arange(12) <= read)


def test_more_padding_changes_nothing():
    config, params = kit.tiny_model(), kit.tiny_params()
    wide = jnp.pad(tokens(), ((0, 0), (0, 5)))
    got = policy.all_logits(config, params, wide)[:, :12]
    np.testing.assert_allclose(got, logits(), atol=1e-5)


def test_rows_do_not_see_each_other():
    config, params = kit.tiny_model(), kit.tiny_params()
    other = tokens().at[1].set(7)
    got = policy.all_logits(config, params, other)
    np.testing.assert_allclose(got[0], logits()[0], atol=1e-5)
    assert np.abs(got[1] - logits()[1]).max() > 0.1


def test_rotary_positions_are_relative():
    """q_m . k_n depends on m - n alone, and linear scaling divides the distance."""
    key = jax.random.split(jax.random.key(0))
    query, keys = (jax.random.normal(k, (1, 1, 1, 8)) for k in key)

    def score(m, n, factor):
        model = kit.tiny_model(rope_factor=factor)
        turned = (
            rotary.rotate(x, *rotary.rotary_angles(model, jnp.array([[at]])))
            for x, at in ((query, m), (keys, n))
        )
        return float(jnp.vdot(*turned))

    assert score(9, 4, 1.0) == pytest.approx(score(25, 20, 1.0), abs=1e-4)
    assert score(8, 0, 4.0) == pytest.approx(score(2, 0, 1.0), abs=1e-4)
    assert abs(score(9, 4, 1.0) - score(9, 8, 1.0)) > 1e-2


def test_rmsnorm_by_hand():
    # x = (3, 4): mean square 12.5; y = x / sqrt(12.5) * (1, 2)
    norm = transformer.RMSNorm(eps=0.0, dtype=jnp.float32)
    params = {"params": {"scale": jnp.array([1.0, 2.0])}}
    got = norm.apply(params, jnp.array([[[3.0, 4.0]]]))
    np.testing.assert_allclose(got[0, 0], np.array([3, 8]) / np.sqrt(12.5), rtol=1e-6)


def test_remat_changes_the_program_but_not_the_gradient():
    def loss(params, remat):
        return jnp.mean(
            policy.all_logits(kit.tiny_model(remat=remat), params, tokens()) ** 2
        )

    params = kit.tiny_params()
    plain, again = (jax.grad(loss)(params, remat) for remat in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, again)
    texts = [
        str(jax.make_jaxpr(jax.grad(loss), static_argnums=1)(params, r)) for r in (0, 1)
    ]
    assert ["remat" in text or "checkpoint" in text for text in texts] == [False, True]


def test_unrolled_layers_have_the_same_gradient():
    def loss(params, unroll):
        model = kit.tiny_model(unroll=unroll)
        return jnp.mean(policy.all_logits(model, params, tokens()) ** 2)

    one, all_layers = (jax.grad(loss)(kit.tiny_params(), unroll) for unroll in (1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, all_layers)


def test_bfloat16_activations_leave_parameters_and_logits_in_float32():
    config = kit.tiny_model(dtype="bfloat16")
    hidden = policy.hidden_states(config, kit.tiny_params()["trunk"], tokens())
    assert hidden.dtype == jnp.bfloat16
    half = policy.all_logits(config, kit.tiny_params(), tokens())
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - logits()).max() < 0.2 * np.abs(logits()).max()


def test_a_window_hides_what_is_left_of_it():
    """With a window of 4 one layer reads 4 positions; each more reads 3 further back."""
    config = kit.tiny_model(family="mistral", sliding_window=4)
    clear = policy.all_logits(config, kit.tiny_params(), tokens())
    reach = 1 + config.num_layers * (config.sliding_window - 1)
    changed = policy.all_logits(config, kit.tiny_params(), tokens().at[:, 0].set(7))
    moved = np.abs(clear - changed).max(axis=(0, 2)) > 0
    np.testing.assert_array_equal(moved, np.arange(12) < reach)
    wide = kit.tiny_model(family="mistral", sliding_window=12)
    whole = policy.all_logits(wide, kit.tiny_params(), tokens())
    np.testing.assert_array_equal(whole, logits())


def test_the_attention_asked_for_is_the_one_that_runs():
    """Nothing falls back in silence: cuDNN without an NVIDIA GPU is an error."""
    config = kit.tiny_model(attention="cudnn", dtype="bfloat16")
    with pytest.raises(RuntimeError, match=r"(?i)cudnn"):
        policy.all_logits(config, kit.tiny_params(), tokens())


def test_the_remat_policy_keeps_the_matrix_products():
    def products(policy_name):
        config = kit.tiny_model(remat=True, remat_policy=policy_name)
        loss = jax.grad(lambda p: jnp.mean(policy.all_logits(config, p, tokens()) ** 2))
        return str(jax.make_jaxpr(loss)(kit.tiny_params())).count("dot_general")

    assert products("dots") < products("nothing")


# theta 100 and D = 8: frequencies 1, 10^-0.5, 0.1, 10^-1.5; over 100 positions they turn
# 15.9, 5.03, 1.59 and 0.503 times
FREQUENCIES = np.array([1, 10**-0.5, 0.1, 10**-1.5])


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ("linear", [0, 0, 0, 0]),
        # (turns - 1) / (4 - 1), between 0 and 1
        ("llama3", [1, 1, (50 / np.pi * 0.1 - 1) / 3, 0]),
        # 4 turns at pair 8 ln(100 / 8 pi) / (2 ln 100) = 1.2, 1 turn at 2.4: 1 to 3
        ("yarn", [1, 1, 0.5, 0]),
    ],
)
def test_stretched_frequencies_by_hand(kind, kept):
    config = kit.tiny_model(
        rope_theta=100.0, rope_scaling=kind, rope_factor=5.0, rope_context=100
    )
    expected = np.array(kept) * FREQUENCIES + (1 - np.array(kept)) * FREQUENCIES / 5
    np.testing.assert_allclose(rotary.frequencies(config), expected, rtol=1e-5)


def test_layernorm_by_hand():
    # x = (1, 3, 5): mean 3, variance 8/3; y = (x - 3) / sqrt(8/3) * 2 + 1
    norm = transformer.make_norm(kit.tiny_model(family="starcoder2", norm_eps=1e-12), None)
    params = {"params": {"scale": jnp.full(3, 2.0), "bias": jnp.ones(3)}}
    got = norm.apply(params, jnp.array([[[1.0, 3.0, 5.0]]]))
    side = 4 / np.sqrt(8 / 3)
    np.testing.assert_allclose(got[0, 0], [1 - side, 1, 1 + side], rtol=1e-6)
