"""8-bit moments: their error, their mean, their reproducibility."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepcoder_jax.learning import quantized_adam as q

BOUND = np.exp(q.STEP) - 1


def wide(shape=(8, 2, 96), decades=5.0):
    """Magnitudes over several decades within each block, of both signs."""
    rng = np.random.default_rng(0)
    x = 10 ** rng.uniform(-decades, 0, (64, *shape)) * rng.choice([-1, 1], (64, *shape))
    return jnp.asarray(x.reshape(-1, shape[-1]), jnp.float32)


@partial(jax.jit, static_argnums=1)
def there_and_back(x, levels, count):
    return q.dequantize(q.quantize(x, levels, count, salt=3))


@pytest.mark.parametrize(("levels", "decades"), [(q.SIGNED, 5.9), (q.UNSIGNED, 11.9)])
def test_the_error_is_within_the_stated_bound(levels, decades):
    x = wide(decades=decades)
    x = x if levels == q.SIGNED else jnp.abs(x)
    back = np.asarray(there_and_back(x, levels, 1))
    assert np.abs(back / x - 1).max() < BOUND + 1e-4
    assert np.abs(back / x - 1).max() > 0.9 * BOUND  # the bound is not idle
    blocks = np.abs(np.asarray(x)).reshape(-1, 96)
    largest = np.take_along_axis(back, blocks.argmax(1)[:, None], 1)[:, 0]
    exact = np.take_along_axis(np.asarray(x), blocks.argmax(1)[:, None], 1)[:, 0]
    np.testing.assert_allclose(largest, exact, rtol=1e-6)


def test_rounding_is_right_on_average_and_reproducible():
    x = wide()
    back = [np.asarray(there_and_back(x, q.SIGNED, count)) for count in range(200)]
    bias = np.mean(back, axis=0) / x - 1
    assert np.abs(bias.mean()) < 0.005 and np.abs(bias).max() < 0.03
    np.testing.assert_array_equal(back[7], there_and_back(x, q.SIGNED, 7))
    assert np.mean(back[7] != back[8]) > 0.3


def test_a_small_second_moment_is_never_lost():
    x = jnp.full((64, 128), 1e-20).at[:, 0].set(1.0)
    back = np.asarray(there_and_back(x, q.UNSIGNED, 1))
    np.testing.assert_allclose(back[:, 1:], 8.03e-13, rtol=0.01)  # rounded up
    small = np.asarray(there_and_back(x * jnp.sign(x), q.SIGNED, 1))
    assert np.all(small[:, 1:] <= 1.001e-6) and np.any(small[:, 1:] == 0)
    assert not np.any(there_and_back(x * 0, q.UNSIGNED, 1))
    assert not np.any(there_and_back(x * 0, q.SIGNED, 1))


def test_moments_decay_although_a_decay_is_less_than_a_level():
    """0.98 per step is a fifth of a level: rounding to the nearest would stand still."""
    x = jnp.abs(wide())
    first = np.asarray(x[:, 1:])

    def decay(x, count):
        x = jnp.concatenate([jnp.ones((len(x), 1)), 0.98 * x[:, 1:]], axis=1)
        return q.dequantize(q.quantize(x, q.UNSIGNED, count, 0)), None

    last = np.asarray(jax.lax.scan(decay, x, jnp.arange(100))[0])[:, 1:]
    assert np.exp(np.mean(np.log(last / first))) == pytest.approx(0.98**100, rel=0.05)


def test_one_step_is_that_of_adam_and_the_next_ones_are_near():
    rng = np.random.default_rng(1)
    params = {"w": jnp.zeros((64, 128)), "b": jnp.zeros(7)}
    ours, plain = (
        q.scale_by_quantized_adam(0.9, 0.95, 1e-6),
        optax.scale_by_adam(0.9, 0.95, 1e-6),
    )
    states = [ours.init(params), plain.init(params)]
    assert (
        isinstance(states[0].mu["w"], q.Blocks) and states[0].mu["w"].codes.dtype == "int8"
    )
    assert states[0].nu["b"].shape == (7,)  # small: in float32
    size = 10 ** rng.uniform(-4, 0, (64, 128))
    for i in range(4):
        gradient = {"w": jnp.asarray(size * rng.normal(1, 0.5, size.shape), jnp.float32)}
        gradient["b"] = jnp.asarray(rng.normal(size=7), jnp.float32)
        moves = []
        for j, optimizer in enumerate((ours, plain)):
            move, states[j] = optimizer.update(gradient, states[j])
            moves.append(move)
        np.testing.assert_allclose(moves[0]["b"], moves[1]["b"], rtol=1e-5)
        error = np.abs(moves[0]["w"] - moves[1]["w"])
        assert error.max() < (1e-5 if i == 0 else 0.25) and error.mean() < 0.06


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2048, 32256), 128),
        ((64, 32016), 116),
        ((4, 2, 96), 0),
        ((96, 101), 101),
        ((4096,), 128),
        ((96, 1009), 0),
        ((5000, 1), 0),
        ((), 0),
    ],
)
def test_blocks_divide_the_last_axis(shape, size):
    assert q.block_size(shape) == size


def test_every_step_and_every_array_rounds_by_a_draw_of_its_own():
    """Beside a steady element the others decay by 0.95, half a level, each step.

    With one draw for all steps an element would fall each time, or never.
    """
    optimizer = q.scale_by_quantized_adam(0.9, 0.95, 1e-6)
    steady = jnp.zeros((64, 128)).at[:, 0].set(1.0)

    def decay(state, _):
        return optimizer.update({"v": steady, "w": steady}, state)[1], None

    @jax.jit
    def run(gradient):
        first = optimizer.update(gradient, optimizer.init(gradient))[1]
        return first, jax.lax.scan(decay, first, None, length=60)[0]

    first, last = run({"v": steady + 0.9, "w": steady + 0.9})
    for before, after, steps in (
        (first.nu, last.nu, 60 * np.log(0.95)),
        (first.mu, last.mu, 60 * np.log(0.9)),
    ):
        one, two = (np.asarray(q.dequantize(x["w"]))[:, 1:] for x in (before, after))
        np.testing.assert_allclose(np.log(two / one), steps, atol=2.5)
        assert np.any(after["v"].codes != after["w"].codes)
