"""The update of supervised fine-tuning: its loss by hand, its gradient, its schedule."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.config import Config, SFTConfig
from stepcoder_jax.feedback.sft_rows import Example, Group, make_batch, pack
from stepcoder_jax.learning import sft
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.models import policy
from tests import kit


def make_examples(sizes, seed=1):
    rng = np.random.default_rng(seed)
    return [Example(rng.integers(2, 304, n).tolist(), max(1, n // 3)) for n in sizes]


def test_the_loss_is_the_mean_over_completion_tokens():
    """Against a loop over tokens; what stands in prompt and padding does not count."""
    config, params = Config(model=kit.tiny_model()), kit.tiny_params()
    examples = make_examples([9, 17, 30])
    batch = make_batch(Group([[example] for example in examples], 64), 4)
    logits = policy.all_logits(config.model, params, batch.tokens)
    logprobs = np.asarray(jax.nn.log_softmax(logits))
    terms = [
        -logprobs[i, t - 1, example.ids[t]]
        for i, example in enumerate(examples)
        for t in range(example.prompt_length, len(example.ids))
    ]
    value = sft.loss(config, ONE_DEVICE, params, batch)
    np.testing.assert_allclose(value, np.sum(terms), rtol=1e-5)
    filled = batch._replace(tokens=batch.tokens.copy())
    filled.tokens[:, 40:] = 7
    same = sft.loss(config, ONE_DEVICE, params, filled)
    np.testing.assert_allclose(same, value, rtol=1e-6)
    whole = jax.jit(partial(sft.gradient, config, ONE_DEVICE))(params, {}, batch)
    np.testing.assert_allclose(whole[0], np.mean(terms), rtol=1e-5)
    config.sft.num_micro_batches = 4  # one of them has no token at all
    split = jax.jit(partial(sft.gradient, config, ONE_DEVICE))(params, {}, batch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), split, whole)


def test_the_schedule_warms_up_and_decays_and_is_never_0():
    """On a gradient of 1, AdamW moves by the rate: the peak at update 1 of 10, 1/9 last."""
    settings = SFTConfig(learning_rate=1.0, warmup_fraction=0.2, weight_decay=0.0)
    optimizer = sft.make_optimizer(settings, 10)
    params = jnp.zeros(1)
    state, moves = optimizer.init(params), []
    for _ in range(11):
        update, state = optimizer.update(jnp.ones(1), state, params)
        moves.append(-float(update[0]))
    expected = [0.5, *(i / 9 for i in range(9, -1, -1))]
    np.testing.assert_allclose(moves, expected, atol=1e-4)
    schedule = sft.make_schedule(settings, 10)
    np.testing.assert_allclose([schedule(i) for i in range(11)], expected, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 17])
def test_every_update_of_a_run_has_a_rate_and_one_of_them_the_peak(num_steps, fraction):
    settings = SFTConfig(learning_rate=0.5, warmup_fraction=fraction)
    schedule = sft.make_schedule(settings, num_steps)
    rates = [float(schedule(i)) for i in range(num_steps)]
    assert min(rates) >= 0.5 / num_steps - 1e-6 and max(rates) == 0.5


def test_weight_decay_leaves_norms_biases_and_the_embedding_alone():
    config = Config(model=kit.tiny_model(family="starcoder2", tie_embeddings=False))
    params = policy.init_params(config.model, jax.random.key(1))
    params = jax.tree.map(lambda x: x + 1.0, params)
    optimizer = sft.make_optimizer(SFTConfig(learning_rate=1.0, weight_decay=0.1), 1)
    changes, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    moved = set()
    for path, change in jax.tree_util.tree_leaves_with_path(changes):
        if np.any(change):
            moved.add(path[-1].key)
    assert moved == {"kernel"}
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(changes)}
    assert names == {"kernel", "bias", "scale", "embedding"}
    head = changes["lm_head"]["kernel"]
    np.testing.assert_allclose(head, -0.1 * params["lm_head"]["kernel"], rtol=1e-6)


FAMILIES = {
    "llama": {},
    "mistral": {"family": "mistral", "sliding_window": 6},
}


def packed_config(family):
    config = Config(model=kit.tiny_model(**FAMILIES[family]))
    config.sft.packing = 48
    return config


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_give_the_loss_and_gradient_of_rows_of_their_own(family):
    examples = make_examples([20, 9, 17, 14, 30, 11, 5])
    rows = pack(examples, range(len(examples)), 48)
    assert [len(row) for row in rows] == [2, 3, 2]
    packed = packed_config(family)
    alone = dataclasses.replace(packed, sft=SFTConfig())
    params = policy.init_params(packed.model, jax.random.key(1))
    found = [
        jax.jit(partial(sft.gradient, config, ONE_DEVICE))(params, {}, batch)
        for config, batch in (
            (packed, make_batch(Group(rows, 64), 4)),  # rows of padding, and its end
            (alone, make_batch(Group([[example] for example in examples], 64), 8)),
        )
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), *found)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(found[0][1])) > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_of_a_row_do_not_see_each_other(family):
    config = packed_config(family)
    params = policy.init_params(config.model, jax.random.key(1))
    params["trunk"]["embed_tokens"]["embedding"] *= 5
    row = make_examples([12, 15, 13])
    batch = make_batch(Group([row], 48), 1)

    @jax.jit
    def logits(tokens):
        where = (sft.restart(batch.segments), batch.segments)
        hidden, _ = policy.apply_trunk(config.model, params["trunk"], tokens, *where)
        return policy.apply_lm_head(params, hidden)

    first = logits(batch.tokens)
    for number in (1, 2, 3):
        tokens = batch.tokens.copy()
        start = int(np.argmax(batch.segments[0] == number))
        tokens[0, start] = (tokens[0, start] + 1) % 304
        moved = np.abs(np.asarray(logits(tokens) - first)).max(axis=-1)
        inside = batch.segments == number
        assert moved[~inside].max() == 0 and moved[inside].max() > 1e-2


def test_positions_begin_anew_in_each_segment():
    segments = jnp.asarray([[1, 1, 1, 2, 3, 3, 0, 0], [1] * 8, [0] * 8])
    assert sft.restart(segments).tolist() == [
        [0, 1, 2, 0, 0, 1, 0, 1],
        [*range(8)],
        [*range(8)],
    ]
