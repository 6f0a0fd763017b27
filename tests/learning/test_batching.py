import jax.numpy as jnp
import numpy as np

from stepcoder_jax.learning import batching


def test_split_and_join_are_inverse_and_rows_of_like_length_meet():
    x = np.arange(6).reshape(6, 1)
    parts, order = batching.split_by_length(x, jnp.array([5, 1, 4, 2, 3, 0]), 3)
    np.testing.assert_array_equal(parts[:, :, 0], [[5, 1], [3, 4], [2, 0]])
    np.testing.assert_array_equal(batching.join_rows(parts, order), x)
