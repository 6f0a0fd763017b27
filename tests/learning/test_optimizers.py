"""The optimizers: their rate, their state, and that they find a minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh

from stepcoder_jax.config import OptimizerConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.learning import optimizers
from tests import kit


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "adafactor"])
def test_the_rate_warms_up_linearly(name):
    config = kit.tiny_config().ppo.actor
    config.name = name
    config.learning_rate, config.warmup_steps, config.eps = 1.0, 4, 1e-12
    optimizer = optimizers.make_optimizer(config)
    params = {"x": jnp.zeros(1)}
    state, sizes = optimizer.init(params), []
    for _ in range(6):
        change, state = optimizer.update({"x": jnp.ones(1)}, state, params)
        sizes.append(-float(change["x"][0]))  # Adam's step on a constant gradient is 1
    np.testing.assert_allclose(sizes, [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "adafactor"])
def test_decay_leaves_norms_biases_and_the_embedding_alone(name):
    """Where the gradient is 0, decay alone moves: by rate * decay * x."""
    config = OptimizerConfig(name, learning_rate=0.5, weight_decay=0.1)
    optimizer = optimizers.make_optimizer(config)
    layer = {"kernel": jnp.full((2, 64, 64), 3.0), "bias": jnp.full((2, 64), 3.0)}
    adapters = {"lora_a": jnp.full((2, 64, 4), 3.0), "lora_b": jnp.full((2, 4, 64), 3.0)}
    params = {
        "embed_tokens": {"embedding": jnp.full((96, 64), 3.0)},
        "layers": {"up_proj": layer | adapters, "norm": {"scale": jnp.full((2, 64), 3.0)}},
        "value_head": {"kernel": jnp.full((64, 1), 3.0), "bias": jnp.full(1, 3.0)},
    }
    gradient = jax.tree.map(jnp.zeros_like, params)
    changes, _ = optimizer.update(gradient, optimizer.init(params), params)
    for path, change in jax.tree_util.tree_leaves_with_path(changes):
        decays = path[-1].key in ("kernel", "lora_a", "lora_b")
        np.testing.assert_allclose(change, -0.15 if decays else 0.0, rtol=1e-5)


def regression():
    """Least squares, inputs of very different sizes: 64 x 128 weights, no exact fit."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (256, 64)) * jnp.logspace(-1.5, 0.5, 64)[None]
    targets = inputs @ jax.random.normal(keys[1], (64, 128))
    targets += 0.1 * jax.random.normal(keys[2], targets.shape)
    return lambda params: jnp.mean((inputs @ params["kernel"] - targets) ** 2)


def descend(name, steps=300):
    settings = OptimizerConfig(name, learning_rate=0.02, b2=0.99, max_grad_norm=1e9)
    optimizer, loss = optimizers.make_optimizer(settings), regression()
    params = {"kernel": jnp.zeros((64, 128))}

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params)
            changes, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, changes), state), value

        start = (params, optimizer.init(params))
        return jax.lax.scan(step, start, None, length=steps)

    (_, state), values = run(params)
    return state, np.asarray(values)


def test_quantised_and_factored_moments_learn_as_adamw_does():
    _, full = descend("adamw")
    assert full[-1] < 0.02 * full[0]
    for name in ("adamw8bit", "adafactor"):
        state, values = descend(name)
        assert np.all(np.isfinite(values))
        assert np.all(values[::50] < 1.15 * full[::50] + 0.02 * full[0]), name
        assert values[-1] < 1.2 * full[-1], name
        stored = sum(x.nbytes for x in jax.tree.leaves(state))
        assert stored < (2.2 if name == "adamw8bit" else 4.1) * 64 * 128


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "adafactor"])
def test_every_state_has_its_place_on_the_mesh(name):
    mesh = AbstractMesh((2, 2, 2), sharding.AXES)
    shapes = {"q_proj": (2, 256, 384), "o_proj": (2, 512, 160), "up_proj": (2, 64, 34)}
    layers = {
        module: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}
        for module, shape in shapes.items()
    }
    params = {"trunk": {"layers": layers}}
    optimizer = optimizers.make_optimizer(OptimizerConfig(name))
    state = jax.eval_shape(optimizer.init, params)
    found = sharding.param_shardings(mesh, state)
    whole = sum(np.prod(x.shape) for x in jax.tree.leaves(state))
    local = sum(
        np.prod(s.shard_shape(x.shape))
        for x, s in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True)
    )
    assert local < (0.27 if name != "adafactor" else 1.01) * whole
