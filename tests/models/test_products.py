"""Gradients of weights are sums in float32, over positions and over 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stepcoder_jax.models import policy, products
from tests import kit


def over_eight(x):
    """Rows over 8 devices."""
    mesh = Mesh(np.asarray(jax.devices()[:8]), ("data",))
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))


@pytest.mark.parametrize(("size", "out"), [(5, 9), (9, 5), (4, 4)])
def test_a_projection_has_the_gradient_of_a_matrix_product(size, out):
    """Whether it is x or the output's gradient that is turned round."""
    x, kernel, weight = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(2, 3, size), (size, out), (2, 3, out)])
    )

    def value(project):
        return lambda x, kernel: jnp.sum(weight * project(x, kernel) ** 2)

    expected = jax.grad(value(jnp.matmul), (0, 1))(x, kernel)
    got = jax.grad(value(products.project), (0, 1))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), got, expected)
    turned = str(jax.make_jaxpr(jax.grad(value(products.project), 1))(x, kernel))
    assert ("transpose[permutation=(1, 0)]" in turned) == (size > out)


def uneven(*shape):
    """Rows of bfloat16 whose first is 256 and the others 1: 263 is no bfloat16, nor any
    sum on the way to it but the first."""
    rows = jnp.ones((8, *shape), jnp.bfloat16)
    return over_eight(rows.at[0].set(256))


USES = {
    "project": (products.project, (4, 4), jnp.ones((8, 2, 4), jnp.bfloat16), (2, 4)),
    "turned": (products.project, (4, 3), jnp.ones((8, 2, 4), jnp.bfloat16), (2, 3)),
    "shift": (products.shift, (4,), jnp.ones((8, 2, 4), jnp.bfloat16), (2, 4)),
}


@pytest.mark.parametrize("name", USES)
def test_a_gradient_is_summed_over_devices_without_rounding(name):
    use, shape, x, out = USES[name]

    def loss(weight, x, slope):
        return jnp.sum((use(x, weight) * slope).astype(jnp.float32))

    given = jnp.zeros(shape), over_eight(x), uneven(*out)
    found = jax.jit(jax.grad(loss))(*given)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, 2.0 * 263)  # two positions of a row


def test_a_token_that_stands_often_is_counted_as_often():
    def loss(table, tokens, slope):
        rows = products.embed(table, tokens, jnp.bfloat16)
        return jnp.sum((rows * slope).astype(jnp.float32))

    tokens = over_eight(jnp.zeros((8, 2), jnp.int32))
    found = jax.jit(jax.grad(loss))(jnp.zeros((5, 4)), tokens, uneven(2, 4))
    np.testing.assert_array_equal(found[0], 2.0 * 263)
    np.testing.assert_array_equal(found[1:], 0.0)


def test_gradients_of_a_model_in_bfloat16_do_not_depend_on_the_number_of_devices():
    """Products are those of bfloat16 on both; but for rare last bits of activations the
    order of float32 sums is all that differs. Sums in bfloat16 differ 40 times as much."""
    config = kit.tiny_model(dtype="bfloat16", family="qwen2", num_layers=1)
    params = policy.init_params(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (64, 12), 0, 304)
    slope = jax.random.normal(jax.random.key(2), (64, 12, 32))

    @jax.jit
    @jax.grad
    def gradient(trunk, tokens, slope):
        return jnp.sum(policy.hidden_states(config, trunk, tokens) * slope)

    one = gradient(params["trunk"], tokens, slope)
    eight = gradient(params["trunk"], over_eight(tokens), over_eight(slope))
    for path, a in jax.tree_util.tree_leaves_with_path(one):
        (b,) = [
            y for other, y in jax.tree_util.tree_leaves_with_path(eight) if other == path
        ]
        apart = np.linalg.norm(a - b) / np.linalg.norm(a)
        print(jax.tree_util.keystr(path), apart)
        assert apart < 1e-4, (path, apart)
