import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.learning import losses

SHAPE = (4, 6)


def random_batch():
    rng = np.random.default_rng(0)
    old = rng.normal(size=SHAPE).astype(np.float32) - 2
    new = old + rng.normal(size=SHAPE).astype(np.float32) * 0.3
    advantages = rng.normal(size=SHAPE).astype(np.float32)
    return new, old, advantages, rng.random(SHAPE) < 0.6


def policy_loss(new, old, advantages, mask, clip_eps):
    """As PPO sums `clipped_surrogate`, with one bound for both sides."""
    loss, held = losses.clipped_surrogate(new, old, advantages, mask, clip_eps, clip_eps)
    return losses.sum_over(loss, mask), losses.sum_over(held, mask)


def test_policy_loss_equals_the_loop():
    new, old, advantages, mask = random_batch()
    total = clipped = 0.0
    for place in zip(*np.nonzero(mask)):
        ratio = np.exp(new[place] - old[place])
        bounded = min(max(ratio, 0.8), 1.2)
        plain, held = ratio * advantages[place], bounded * advantages[place]
        total -= min(plain, held)
        clipped += held < plain
    loss, fraction = policy_loss(new, old, advantages, mask, 0.2)
    np.testing.assert_allclose(loss.total, total, rtol=1e-5)
    assert loss.count == fraction.count == mask.sum()
    assert fraction.total == clipped > 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # loss = -min(A r, A clip(r)); slope = d loss / d log r = -A r, or 0 where held
        (1.5, 1.0, -1.2, 0.0),
        (1.5, -1.0, 1.5, 1.5),
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),
        (1.1, 2.0, -2.2, -2.2),
    ],
)
def test_policy_loss_by_hand(ratio, advantage, loss, slope):
    def total(new):
        old, mask = jnp.zeros((1, 1)), jnp.ones((1, 1), bool)
        return policy_loss(new, old, jnp.full((1, 1), advantage), mask, 0.2)[0].total

    got, gradient = jax.value_and_grad(total)(jnp.log(jnp.full((1, 1), ratio)))
    np.testing.assert_allclose(got, loss, rtol=1e-5)
    np.testing.assert_allclose(gradient, [[slope]], rtol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "held"),
    [
        # bounds 1 - 0.2 and 1 + 0.28: each holds on its own side, of its own sign of A
        (1.25, 1.0, -1.25, 0),
        (1.5, 1.0, -1.28, 1),
        (1.5, -1.0, 1.5, 0),
        (0.75, -1.0, 0.8, 1),
        (0.85, -1.0, 0.85, 0),
        (0.5, 1.0, -0.5, 0),
    ],
)
def test_two_bounds_by_hand(ratio, advantage, loss, held):
    new, old = jnp.log(jnp.full((1, 1), ratio)), jnp.zeros((1, 1))
    advantages, mask = jnp.full((1, 1), advantage), jnp.ones((1, 1), bool)
    got = losses.clipped_surrogate(new, old, advantages, mask, 0.2, 0.28)
    np.testing.assert_allclose(got, [[[loss]], [[held]]], rtol=1e-5)


def test_k3_by_hand():
    """pi / other of 1, 2 and 1/2: 1 / r - 1 + log r."""
    log_ratio = jnp.log(jnp.array([[1.0, 2.0, 0.5]]))
    expected = [[0.0, 0.5 - 1 + np.log(2), 2 - 1 - np.log(2)]]
    np.testing.assert_allclose(losses.k3(log_ratio), expected, atol=1e-6)


def test_at_ratio_1_the_gradient_is_that_of_policy_gradient():
    _, old, advantages, mask = random_batch()
    loss = lambda new: policy_loss(new, old, advantages, mask, 0.2)[0].total  # noqa: E731
    gradient = jax.grad(loss)(jnp.asarray(old))
    np.testing.assert_allclose(gradient, np.where(mask, -advantages, 0), rtol=1e-6)


def test_value_loss_equals_the_loop():
    values, old, returns, mask = random_batch()
    total = 0.0
    for place in zip(*np.nonzero(mask)):
        bounded = old[place] + min(max(values[place] - old[place], -0.2), 0.2)
        total += 0.5 * max(
            (values[place] - returns[place]) ** 2, (bounded - returns[place]) ** 2
        )
    loss = losses.value_loss(values, old, returns, mask, 0.2)
    np.testing.assert_allclose(loss.total, total, rtol=1e-5)
    assert loss.count == mask.sum()


def test_value_loss_by_hand():
    # V = 1, V_old = 0, R = 0.5, eps = 0.2: the clipped value is 0.2, errors are 0.25 and
    # 0.09; the greater counts. With R = 2: errors 1 and 3.24.
    one, mask = jnp.ones((1, 1)), jnp.ones((1, 1), bool)
    loss = losses.value_loss(one, 0 * one, 0.5 * one, mask, 0.2)
    np.testing.assert_allclose(loss.total, 0.125, rtol=1e-6)
    loss = losses.value_loss(one, 0 * one, 2 * one, mask, 0.2)
    np.testing.assert_allclose(loss.total, 1.62, rtol=1e-6)


def test_masked_tokens_have_exactly_zero_gradient_whatever_they_hold():
    new, old, advantages, mask = random_batch()
    wild = np.where(mask, new, 1e4).astype(np.float32)  # exp overflows out of the mask

    def total(new):
        policy, _ = policy_loss(new, old, advantages, mask, 0.2)
        return policy.total + losses.value_loss(new, old, advantages, mask, 0.2).total

    gradient = np.asarray(jax.grad(total)(jnp.asarray(wild)))
    assert np.all(gradient[~mask] == 0)
    assert np.all(np.isfinite(gradient)) and np.any(gradient[mask] != 0)
