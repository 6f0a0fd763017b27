"""A tiny model, tiny batches and their config: one set of compiled shapes for all tests."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from stepcoder_jax import config as settings
from stepcoder_jax.models import decoding, policy
from stepcoder_jax.models.transformer import LayerCache
from stepcoder_jax.pytrees import Feedback, PromptBatch, Rollout
from stepcoder_jax.sampling import chunks as sampling
from stepcoder_jax.sampling import slots
from stepcoder_jax.sampling.drawing import Truncation

ROWS, PROMPT, COLUMNS = 16, 12, 10  # B, P, T
EOS = 1


def tiny_model(**fields) -> settings.ModelConfig:
    """Two layers of width 32 over 304 tokens: each axis divides by 8 devices."""
    shape = {
        "vocab_size": 304,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "max_positions": 64,
    }
    return settings.ModelConfig(**shape | fields)


def tiny_config() -> settings.Config:
    """4 problems x 4 rollouts, 2 minibatches, rates large enough to see an update."""
    config = settings.Config(model=tiny_model())
    config.prompt.max_prompt_length = PROMPT
    config.sampling = settings.SamplingConfig(
        4, 4, COLUMNS, temperature=0.8, top_p=0.9, chunk=4
    )
    config.ppo.num_minibatches = 2
    config.ppo.scale_rewards = False
    config.ppo.actor.learning_rate = 1e-3
    config.ppo.critic.learning_rate = 1e-3
    config.evaluation.batch_size = ROWS
    return config


@functools.cache
def tiny_params():
    """Random actor parameters of `tiny_model()`, sharpened until it has preferences."""
    params = policy.init_params(tiny_model(), jax.random.key(0))
    embed = params["trunk"]["embed_tokens"]
    embed["embedding"] = 5 * embed["embedding"]
    return params


def make_sampler(
    model: settings.ModelConfig,
    truncation: Truncation,
    num_slots: int = ROWS,
    num_prompts: int = ROWS,
    chunk: int = 4,
    num_columns: int = COLUMNS,
    eos_ids: tuple[int, ...] = (EOS,),
) -> slots.Sampler:
    """A sampler on one device, without shardings."""
    chosen = sampling.SamplerSettings(truncation, num_columns, chunk, eos_ids)
    bind = functools.partial
    return slots.Sampler(
        prepare=jax.jit(bind(decoding.prepare, model)),
        read_prompts=jax.jit(bind(sampling.read_prompts, model)),
        empty_state=bind(sampling.empty_state, model, chosen, num_slots),
        resize=bind(sampling.resize, chosen),
        fill_slots=jax.jit(sampling.fill_slots),
        advance=jax.jit(bind(sampling.advance, model, chosen)),
        to_host=jax.device_get,
        num_slots=num_slots,
        num_prompts=num_prompts,
        num_columns=num_columns,
        chunk=chunk,
    )


def complete(
    sampler: slots.Sampler, params, batch: PromptBatch, step: int = 0, find_stop=None
) -> Rollout:
    """Rollouts of one iteration of seed 0."""
    key = jax.random.fold_in(jax.random.key(0), step)
    chunks = slots.stream(sampler, params, batch, key, find_stop)
    done = (completion for chunk in chunks for completion in chunk)
    return slots.collect(batch, sampler.num_columns, done)


def read_on(config, params, batch, lengths, columns):
    """Logits of prompts' last token, and of `columns` more tokens, by the cache.

    The first 5 columns of `batch` hold the prompts, of `lengths`; what follows a prompt in
    its row is read on.
    """
    rows = len(lengths)
    weights = decoding.prepare(config, params)
    decode = jax.jit(functools.partial(decoding.decode, config))
    got, cache = decoding.prefill(config, params, batch[:, :5], lengths)
    cache = tuple(
        LayerCache(
            jnp.pad(layer.keys, ((0, 0),) * 3 + ((0, 6),)),
            jnp.pad(layer.values, ((0, 0),) * 2 + ((0, 6), (0, 0))),
        )
        for layer in cache
    )
    results = [got]
    for column in range(columns):
        position, slot = lengths + column, jnp.arange(11)[None]
        place = jnp.where(slot < 5, slot, lengths[:, None] + slot - 5)
        keep = (slot < lengths[:, None]) | ((slot >= 5) & (slot <= 5 + column))
        if config.sliding_window:
            keep &= place > position[:, None] - config.sliding_window
        token = batch[jnp.arange(rows), position]
        where = (position, jnp.int32(5 + column), keep)
        got, cache = decode(weights, cache, token, *where)
        results.append(got)
    return results


def prompt_batch(rows: int = ROWS, group: int = 4) -> PromptBatch:
    """Random prompts of 3 to PROMPT tokens, the same one for `group` rows in a row."""
    rng = np.random.default_rng(0)
    length = rng.integers(3, PROMPT + 1, rows // group).repeat(group).astype(np.int32)
    tokens = rng.integers(2, 304, (rows // group, PROMPT)).repeat(group, axis=0)
    tokens = np.where(np.arange(PROMPT)[None] < length[:, None], tokens, 0)
    return PromptBatch(tokens.astype(np.int32), length, np.arange(rows, dtype=np.int32))


def rollout_batch() -> tuple[Rollout, Feedback]:
    """Random completions of 1 to COLUMNS tokens with rewards; row 3 is invalid."""
    rng = np.random.default_rng(1)
    batch = prompt_batch()
    count = rng.integers(1, COLUMNS + 1, ROWS).astype(np.int32)
    mask = np.arange(COLUMNS)[None] < count[:, None]
    length = batch.prompt_length + count
    tokens = np.pad(batch.tokens, ((0, 0), (0, COLUMNS)))
    drawn = rng.integers(2, 304, tokens.shape).astype(np.int32)
    column = np.arange(PROMPT + COLUMNS)[None]
    inside = (column >= batch.prompt_length[:, None]) & (column < length[:, None])
    tokens = np.where(inside, drawn, tokens)
    zeros = np.zeros((ROWS, COLUMNS), np.float32)
    rollout = Rollout(
        tokens=tokens,
        prompt_length=batch.prompt_length,
        length=length,
        mask=mask,
        logprobs=zeros,
        kept_mass=mask.astype(np.float32),
        truncated=count == COLUMNS,
    )
    rewards = zeros.copy()
    rewards[np.arange(ROWS), count - 1] = rng.choice([1.0, -0.3, -0.6, -1.0], ROWS)
    valid = np.arange(ROWS) != 3
    return rollout, Feedback(rewards, mask & (rng.random(mask.shape) < 0.7), valid)


def completion_logits(model, actor, tokens, prompt_length, num_columns):
    """Logits f32[B, T, V], column t where completion token t is predicted."""
    where = (jnp.asarray(tokens), jnp.asarray(prompt_length), num_columns)
    hidden = policy.completion_hidden(model, actor["trunk"], *where)
    return policy.apply_lm_head(actor, hidden)


def log_policy(logits, temperature):
    """log pi, f32[..., V]."""
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32) / temperature, axis=-1)


def token_logprobs(log_pi, chosen):
    """log pi of the tokens that were chosen."""
    return jnp.take_along_axis(log_pi, jnp.asarray(chosen)[..., None], axis=-1)[..., 0]


def entropy(log_pi):
    """H = - sum_v pi(v) log pi(v)."""
    return -jnp.sum(jnp.exp(log_pi) * log_pi, axis=-1)


def kl_divergence(log_pi, log_ref):
    """KL(pi || ref) = sum_v pi(v) (log pi(v) - log ref(v))."""
    return jnp.sum(jnp.exp(log_pi) * (log_pi - log_ref), axis=-1)
