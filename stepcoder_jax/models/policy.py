"""The policy and its critic as functions of plain parameter trees.

Actor: {"trunk": ..., "lm_head": {"kernel": [H, V]}}, without "lm_head" when embeddings are
tied. Critic: {"trunk": ..., "value_head": {"kernel": [H, 1], "bias": [1]}}, without "trunk"
when it is shared with the actor; `models.lora` says what adapters change. Heads run in
float32 whatever the activations' dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from stepcoder_jax.models import lora
from stepcoder_jax.models.transformer import Trunk

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig

Params = Any


class Head(NamedTuple):
    """The matrix from hidden states to logits."""

    kernel: Any  # [H, V], or [V, H] where tied
    tied: bool  # it is the embedding


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random actor parameters in float32; `key` is a jax.random key."""
    trunk_key, head_key = jax.random.split(key)
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = {"trunk": Trunk(config).init(trunk_key, tokens, tokens)["params"]}
    if not config.tie_embeddings:
        shape = (config.hidden_size, config.vocab_size)
        kernel = 0.02 * jax.random.normal(head_key, shape, jnp.float32)
        params["lm_head"] = {"kernel": kernel}
    return params


def add_adapters(config: ModelConfig, actor: Params, key: jax.Array) -> Params:
    """The actor with fresh adapters, which change nothing yet; without LoRA, itself."""
    if not config.lora_rank:
        return actor
    return lora.graft(actor, {"trunk": lora.init_adapters(config, actor["trunk"], key)})


def init_critic(config: ModelConfig, actor: Params, key: jax.Array) -> Params:
    """A critic that begins as the actor with a value head of zeros.

    The paper starts the critic from the SFT policy (arXiv:2402.01391, section 4.2); a zero
    head makes all values 0 at first. The trunk is a copy, so donation cannot alias it; with
    LoRA it is adapters alone, for the actor's base.
    """
    kernel = jnp.zeros((config.hidden_size, 1), jnp.float32)
    critic: Params = {"value_head": {"kernel": kernel, "bias": jnp.zeros(1, jnp.float32)}}
    if not config.shared_trunk:
        if config.lora_rank:
            critic["trunk"] = lora.init_adapters(config, actor["trunk"], key)
        else:
            critic["trunk"] = jax.tree.map(jnp.copy, actor["trunk"])
    return critic


def critic_trunk(config: ModelConfig, actor: Params, critic: Params) -> Params:
    """The whole trunk of a critic that has its own: with LoRA its base is the actor's."""
    if config.lora_rank:
        return lora.graft(lora.strip(actor["trunk"]), critic["trunk"])
    return critic["trunk"]


def apply_trunk(
    config: ModelConfig,
    trunk: Params,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Hidden states [B, L, H] and the (keys, values), [N, B, L, K, D] each.

    Of several texts in one row, segments i32[B, L] numbers them: no position sees another
    text's, and `positions` should begin anew in each.
    """
    hidden, new = Trunk(config).apply({"params": trunk}, tokens, positions, segments)
    return hidden, new  # type: ignore[return-value]  # Flax types apply() as Any | str


def hidden_states(config: ModelConfig, trunk: Params, tokens: jax.Array) -> jax.Array:
    """Final hidden states dtype[B, L, H] of tokens i32[B, L] packed from the left."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    return apply_trunk(config, trunk, tokens, positions)[0]


def lm_head(actor: Params) -> Head:
    """The matrix that makes logits; a tied head is the embedding."""
    if "lm_head" in actor:
        return Head(actor["lm_head"]["kernel"], tied=False)
    return Head(actor["trunk"]["embed_tokens"]["embedding"], tied=True)


def apply_lm_head(actor: Params, hidden: jax.Array) -> jax.Array:
    """Logits f32[..., V] of hidden states [..., H]: of few positions, as they are large."""
    head = lm_head(actor)
    kernel = (head.kernel.T if head.tied else head.kernel).astype(hidden.dtype)
    return jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)


def apply_value_head(critic: Params, hidden: jax.Array) -> jax.Array:
    """Values f32[...] of hidden states [..., H]."""
    head = critic["value_head"]
    values = jnp.matmul(hidden.astype(jnp.float32), head["kernel"])[..., 0]
    return values + head["bias"][0]


def gather_columns(
    hidden: jax.Array, prompt_length: jax.Array, num_columns: int
) -> jax.Array:
    """Hidden states [B, T, H] that predict completion tokens 0..T-1.

    Column t is read at position prompt_length + t - 1: token 0 is predicted by the last
    prompt token, so prompt_length must be at least 1.
    """
    column = jnp.arange(num_columns)[None]
    index = jnp.minimum(prompt_length[:, None] + column - 1, hidden.shape[1] - 1)
    return jnp.take_along_axis(hidden, index[:, :, None], axis=1)


def completion_hidden(
    config: ModelConfig,
    trunk: Params,
    tokens: jax.Array,
    prompt_length: jax.Array,
    num_columns: int,
) -> jax.Array:
    """Hidden states dtype[B, T, H]: column t is where completion token t is predicted.

    tokens i32[B, P + T] packed from the left, prompt_length i32[B] >= 1, num_columns = T.
    """
    hidden = hidden_states(config, trunk, tokens)
    return gather_columns(hidden, prompt_length, num_columns)


def hidden_and_values(
    config: ModelConfig,
    actor: Params,
    critic: Params,
    tokens: jax.Array,
    prompt_length: jax.Array,
    num_columns: int,
) -> tuple[jax.Array, jax.Array]:
    """The actor's `completion_hidden` and values f32[B, T], read at the same positions.

    With `config.shared_trunk` one pass gives both, otherwise the critic has its own trunk.
    """
    where = (tokens, prompt_length, num_columns)
    hidden = completion_hidden(config, actor["trunk"], *where)
    seen = hidden
    if not config.shared_trunk:
        seen = completion_hidden(config, critic_trunk(config, actor, critic), *where)
    return hidden, apply_value_head(critic, seen)


def all_logits(config: ModelConfig, actor: Params, tokens: jax.Array) -> jax.Array:
    """Logits f32[B, L, V] at every position of tokens i32[B, L]: to compare models.

    Training never holds them: see `vocabulary`.
    """
    return apply_lm_head(actor, hidden_states(config, actor["trunk"], tokens))
