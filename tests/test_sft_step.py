"""The update of supervised fine-tuning: its loss by hand, its gradient, its schedule."""

from functools import partial

import jax
import jax.numpy as jnp
import kit
import numpy as np

from stepcoder_jax import sft_step
from stepcoder_jax.batching import ONE_DEVICE
from stepcoder_jax.config import Config, SFTConfig
from stepcoder_jax.models import policy
from stepcoder_jax.sft_rows import Example, Group, make_batch


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
    value = sft_step.loss(config, ONE_DEVICE, params, batch)
    np.testing.assert_allclose(value, np.sum(terms), rtol=1e-5)
    filled = batch._replace(tokens=batch.tokens.copy())
    filled.tokens[:, 40:] = 7
    same = sft_step.loss(config, ONE_DEVICE, params, filled)
    np.testing.assert_allclose(same, value, rtol=1e-6)
    whole = jax.jit(partial(sft_step.gradient, config, ONE_DEVICE))(params, {}, batch)
    np.testing.assert_allclose(whole[0], np.mean(terms), rtol=1e-5)
    config.sft.num_micro_batches = 4  # one of them has no token at all
    split = jax.jit(partial(sft_step.gradient, config, ONE_DEVICE))(params, {}, batch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), split, whole)


def test_the_schedule_warms_up_and_decays_to_zero():
    """On a gradient of 1, AdamW moves by the rate: 0 first, the peak at 2 of 10, 0 last."""
    settings = SFTConfig(learning_rate=1.0, warmup_fraction=0.2, weight_decay=0.0)
    optimizer = sft_step.make_optimizer(settings, 10)
    params = jnp.zeros(1)
    state, moves = optimizer.init(params), []
    for _ in range(11):
        update, state = optimizer.update(jnp.ones(1), state, params)
        moves.append(-float(update[0]))
    expected = [0.0, 0.5, 1.0, *(1 - i / 8 for i in range(1, 9))]
    np.testing.assert_allclose(moves, expected, atol=1e-4)
    schedule = sft_step.make_schedule(settings, 10)
    np.testing.assert_allclose([schedule(i) for i in range(11)], expected, atol=1e-6)
