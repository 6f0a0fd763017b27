"""Scores by chunks of the vocabulary, against the naive formula on whole logits."""

from functools import partial

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.learning import vocabulary
from stepcoder_jax.learning.vocabulary import Scoring
from stepcoder_jax.models.policy import Head
from tests import kit

B, T, H, V = 2, 3, 8, 46
TEMPERATURE = 0.7


@pytest.fixture(params=[100, 23, 12, 7], ids=lambda width: f"chunk{width}")
def chunk(request, monkeypatch):
    """Chunks that hold the vocabulary, divide it, and do not divide it."""
    monkeypatch.setattr(vocabulary, "CHUNK", request.param)
    return request.param


def arrays(tied, dtype=jnp.float32, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    hidden = jax.random.normal(keys[0], (B, T, H)).astype(dtype)
    kernel = jax.random.normal(keys[1], (V, H) if tied else (H, V))
    chosen = jax.random.randint(keys[2], (B, T), 0, V)
    # both ends of the vocabulary, and of its middle where two shards meet
    return hidden, kernel, chosen.at[0].set(jnp.array([0, V - 1, V // 2]))


def naive(hidden, kernel, chosen, tied):
    kernel = (kernel.T if tied else kernel).astype(hidden.dtype)
    logits = jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)
    log_pi = kit.log_policy(logits, TEMPERATURE)
    return kit.token_logprobs(log_pi, chosen), kit.entropy(log_pi), log_pi


def ours(hidden, kernel, chosen, tied, shards=1, entropy=True):
    scoring = Scoring(TEMPERATURE, shards, entropy)

    @jax.jit
    def score(hidden, kernel, chosen):
        return vocabulary.score_tokens(Head(kernel, tied), hidden, chosen, scoring)

    return score(hidden, kernel, chosen)


def gradients(score, hidden, kernel, *rest):
    weight = jnp.arange(1.0, 1 + B * T).reshape(B, T) / (B * T)

    def total(hidden, kernel):
        logprobs, entropy, *_ = score(hidden, kernel, *rest)
        return jnp.sum(weight * logprobs) - 0.3 * jnp.sum(weight**2 * entropy)

    return jax.jit(jax.grad(total, argnums=(0, 1)))(hidden, kernel)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_values_and_gradients_equal_those_of_whole_logits(chunk, tied, shards):
    hidden, kernel, chosen = arrays(tied)
    expected, got = (
        naive(hidden, kernel, chosen, tied),
        ours(hidden, kernel, chosen, tied, shards),
    )
    np.testing.assert_allclose(got.logprobs, expected[0], atol=2e-6)
    np.testing.assert_allclose(got.entropy, expected[1], atol=5e-6)
    for a, b in zip(
        gradients(ours, hidden, kernel, chosen, tied, shards),
        gradients(naive, hidden, kernel, chosen, tied),
        strict=True,
    ):
        assert np.abs(b).max() > 0.1
        np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_states_have_float32_scores(chunk, tied):
    """The forward pass has the same products; the backward one rounds slopes to bfloat16,
    as the naive way rounds the gradient of the head.
    """
    hidden, kernel, chosen = arrays(tied, jnp.bfloat16)
    expected, got = naive(hidden, kernel, chosen, tied), ours(hidden, kernel, chosen, tied)
    np.testing.assert_allclose(got.logprobs, expected[0], atol=5e-6)
    np.testing.assert_allclose(got.entropy, expected[1], atol=5e-6)
    one = gradients(ours, hidden, kernel, chosen, tied)
    two = gradients(naive, *arrays(tied)[:2], chosen, tied)  # in float32
    assert (one[0].dtype, one[1].dtype) == (jnp.bfloat16, jnp.float32)
    for a, b in zip(one, two, strict=True):
        error = np.abs(np.asarray(a, np.float32) - b).max()
        assert error < 2e-2 * np.abs(b).max()


def test_scores_of_extreme_logits_are_finite(chunk):
    hidden, kernel, chosen = arrays(False)
    got, expected = (f(hidden * 100, kernel, chosen, False) for f in (ours, naive))
    assert np.abs(expected[0]).max() > 500
    np.testing.assert_allclose(got.logprobs, expected[0], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(got.entropy, expected[1], atol=1e-3)
    for a in gradients(ours, hidden * 100, kernel, chosen, False):
        assert np.all(np.isfinite(a))


def test_entropy_is_left_out_unless_it_is_asked_for(chunk):
    args = arrays(False)
    assert not np.any(ours(*args, tied=False, entropy=False).entropy)
    asked, left_out = (
        str(jax.make_jaxpr(partial(ours, tied=False, entropy=entropy))(*args))
        for entropy in (True, False)
    )
    assert len(left_out) < len(asked)


@pytest.mark.parametrize("shards", [1, 2])
def test_two_policies_are_compared_exactly(chunk, shards):
    """Here one head is tied and the other is not, as nothing keeps them alike."""
    hidden, kernel, chosen = arrays(True)
    ref_hidden, ref_kernel, _ = arrays(False, seed=1)
    heads = Head(kernel, True), Head(ref_kernel, False)
    got = vocabulary.compare_tokens(
        heads[0], hidden, heads[1], ref_hidden, chosen, Scoring(TEMPERATURE, shards, False)
    )
    one, two = (
        naive(hidden, kernel, chosen, True),
        naive(ref_hidden, ref_kernel, chosen, False),
    )
    np.testing.assert_allclose(got[0], one[0], atol=2e-6)
    np.testing.assert_allclose(got[1], two[0], atol=2e-6)
    np.testing.assert_allclose(got[2], kit.kl_divergence(one[2], two[2]), atol=1e-5)
    same = vocabulary.compare_tokens(
        heads[0], hidden, heads[0], hidden, chosen, Scoring(TEMPERATURE, shards, False)
    )
    np.testing.assert_array_equal(same[2], 0)  # exactly
    np.testing.assert_array_equal(same[0], same[1])


def test_entropy_by_hand():
    # uniform over V tokens: log V, whatever the temperature
    hidden, kernel, chosen = arrays(False)
    got = ours(hidden * 0, kernel, chosen, False)
    np.testing.assert_allclose(got.entropy, np.full((B, T), np.log(V)), rtol=1e-6)
    np.testing.assert_allclose(got.logprobs, np.full((B, T), -np.log(V)), rtol=1e-6)


def largest_float32(jaxpr):
    """Elements of the largest float32 array that a program makes, in loops as well."""
    sizes = [0]
    for equation in jaxpr.eqns:
        for value in equation.outvars:
            if getattr(value.aval, "dtype", None) == jnp.float32:
                sizes.append(value.aval.size)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            sizes.append(largest_float32(inner))
    return max(sizes)


def test_no_array_grows_with_tokens_times_vocabulary(monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK", 10)
    rows, columns = 20, 30
    hidden, kernel = jnp.ones((rows, columns, H)), jnp.ones((H, 200))
    chosen = jnp.zeros((rows, columns), jnp.int32)

    def total(score, hidden, kernel):
        logprobs, entropy, *_ = score(hidden, kernel, chosen, False)
        return jnp.sum(logprobs) + jnp.sum(entropy)

    def largest(score):
        program = jax.grad(lambda *x: total(score, *x), argnums=(0, 1))
        return largest_float32(jax.make_jaxpr(program)(hidden, kernel).jaxpr)

    assert largest(naive) == rows * columns * 200
    assert largest(ours) == rows * columns * 10
