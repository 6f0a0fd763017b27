"""Attention by its implementations, with windows and with several texts in one row."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.config import MeshConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.models import attention, policy
from tests import kit

LENGTH = 140  # no multiple of 128
# two texts and padding; the second row has one text
SEGMENTS = jnp.stack(
    [jnp.repeat(jnp.array([1, 2, 0]), jnp.array([50, 60, 30])), jnp.ones(LENGTH, jnp.int32)]
)


@functools.cache
def arrays(rows=2, key_heads=2):
    shapes = [(rows, LENGTH, 4, 8)] + [(rows, LENGTH, key_heads, 8)] * 2
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


def model(kind, window):
    return kit.tiny_model(attention=kind, sliding_window=window, family="mistral")


@pytest.mark.parametrize(
    ("window", "segments", "key_heads"), [(0, None, 4), (50, SEGMENTS, 2), (0, SEGMENTS, 1)]
)
def test_splash_equals_xla_in_value_and_gradient(window, segments, key_heads):
    given = arrays(2, key_heads)
    weight = jax.random.normal(jax.random.key(9), given[0].shape)

    def run(kind):
        def value(*given):
            return jnp.sum(weight * attention.attend(model(kind, window), *given, segments))

        return jax.jit(jax.value_and_grad(value, (0, 1, 2)))(*given)

    got, expected = run("splash"), run("xla")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got, expected)


@pytest.mark.parametrize("length", [1, 95, 301])  # 1, 1, 3 blocks, the last one short
@pytest.mark.parametrize(("window", "apart"), [(0, False), (40, False), (100, True)])
def test_blocks_of_queries_equal_attention_over_all_scores(length, window, apart):
    """Also where a window leaves a block no key of the first ones."""
    keys = [jax.random.key(i) for i in range(4)]
    shapes = [(2, length, 4, 8)] + [(2, length, 2, 8)] * 2
    given = [jax.random.normal(k, shape) for k, shape in zip(keys, shapes)]
    weight = jax.random.normal(keys[3], shapes[0])
    segments = jnp.arange(length)[None] // jnp.array([[70], [400]]) if apart else None
    window = window if window < length else 0

    def in_blocks(*given):
        return jnp.sum(weight * attention.in_blocks(*given, segments, window))

    def over_all(*given):
        mask = None
        if apart:
            mask = (segments[:, :, None] == segments[:, None, :])[:, None]
        local = (window - 1, 0) if window else None
        return jnp.sum(
            weight
            * jax.nn.dot_product_attention(
                *given, mask=mask, is_causal=True, local_window_size=local
            )
        )

    got = jax.jit(jax.value_and_grad(in_blocks, (0, 1, 2)))(*given)
    expected = jax.jit(jax.value_and_grad(over_all, (0, 1, 2)))(*given)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got, expected)


@pytest.mark.parametrize("key_heads", [2, 1])
def test_splash_on_a_mesh_equals_splash_on_one_device(key_heads):
    """The rows over four devices, the heads over two: also where they are fewer."""
    given = arrays(4, key_heads)
    config = model("splash", 0)
    mesh = sharding.make_mesh(MeshConfig(2, 2, 2), jax.devices())
    program = jax.jit(
        sharding.on_mesh(mesh, lambda *x: attention.attend(config, *x, None)),
        in_shardings=sharding.batch_sharding(mesh, 0),
        out_shardings=sharding.batch_sharding(mesh, 0),
    )
    expected = attention.attend(model("xla", 0), *given, None)
    np.testing.assert_allclose(program(*given), expected, atol=1e-5)
    inside = str(jax.make_jaxpr(program)(*given))
    # what a device sees: its row, its heads, the length padded
    assert "f32[1,2,256,8]" in inside and "f32[4,4,256,8]" not in inside


@pytest.mark.parametrize("window", [0, 3])
def test_texts_in_one_row_are_read_as_in_rows_of_their_own(window):
    config = kit.tiny_model(family="mistral", sliding_window=window)
    trunk = kit.tiny_params()["trunk"]
    texts = jax.random.randint(jax.random.key(0), (2, 5), 2, 304)
    positions = jnp.tile(jnp.arange(5), 2)[None]
    segments = jnp.repeat(jnp.array([7, 4]), 5)[None]
    row = texts.reshape(1, 10)
    packed, _ = policy.apply_trunk(config, trunk, row, positions, segments)
    alone = policy.hidden_states(config, trunk, texts)
    np.testing.assert_allclose(packed.reshape(alone.shape), alone, atol=1e-5)
    mixed, _ = policy.apply_trunk(config, trunk, row, positions)
    assert np.abs(mixed.reshape(alone.shape) - alone)[1].max() > 1e-2


def test_the_kernel_compiles_for_tpus():
    """An update with splash attention on 2 x 2 chips of a pod: rows, heads, padding."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu, the compiler for TPUs: pip install -e '.[tpu]'")
    quiet = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.compile_for_tpu"],
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [
        "splash_mha_dkv_segmented_no_residuals",
        "splash_mha_dq_segmented_no_residuals",
        "splash_mha_fwd_segmented_residuals",
    ]
