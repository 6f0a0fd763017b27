"""The nouns of the device: NamedTuples of arrays, importable without JAX.

Letters: B rollouts, P prompt length, T completion length, V vocabulary. Rows are packed
from the left: `tokens[b, :length[b]]` are real, completion token t of row b stands at
`prompt_length[b] + t`. Column t of a [B, T] array speaks of completion token t. Outside
`mask` every [B, T] array is exactly 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any  # jax.Array on the device, numpy.ndarray on the host


class PromptBatch(NamedTuple):
    """Prompts with their response heads, ready to be continued."""

    tokens: Array  # i32[B, P], zero right of prompt_length
    prompt_length: Array  # i32[B]
    index: (
        Array  # i32[B], global rollout index; with (seed, step) it gives the random draws
    )


class Rollout(NamedTuple):
    """What the sampler returns."""

    tokens: Array  # i32[B, P + T]
    prompt_length: Array  # i32[B]
    length: Array  # i32[B], prompt and completion, the ending token included
    mask: Array  # bool[B, T], True up to and including the token that ended the row
    logprobs: Array  # f32[B, T], the sampler's own
    kept_mass: Array  # f32[B, T], probability that the truncation (top-p ...) kept
    truncated: Array  # bool[B], ended by the length limit


class Feedback(NamedTuple):
    """What running the programs said about each token."""

    rewards: Array  # f32[B, T], outcome rewards on the last token of what they judge
    executed: Array  # bool[B, T], False on code that no test executed; subset of mask
    valid: Array  # bool[B], False where our own machinery failed
    # i32[B], tokens of the explanation that opens the answer, 0: it has none. None: no
    # answer of the run may have one
    explained: Array = None
    baseline: Array = None  # f32[B], what a row's reward is judged against; None: 0
    token_values: Array = None  # f32[B, T], what a token weighs; None: 1
    written: Array = None  # bool[B], a written program, not a sampled one; None: no row is


class Experience(NamedTuple):
    """All that an epoch needs; made once per rollout batch, before any update.

    What is None is not known yet, or never: without a critic (GRPO) there are no old_values
    and returns.
    """

    tokens: Array  # i32[B, P + T]
    prompt_length: Array  # i32[B]
    length: Array  # i32[B]
    mask: Array  # bool[B, T]: mask & valid, for values, returns, KL
    loss_mask: Array  # bool[B, T]: mask & executed & valid, for policy loss and entropy
    old_logprobs: Array = None  # f32[B, T]
    ref_logprobs: Array = None  # f32[B, T]
    old_values: Array = None  # f32[B, T]
    advantages: Array = None  # f32[B, T]
    returns: Array = None  # f32[B, T]
    explained: Array = None  # i32[B], as in Feedback
    sampler_logprobs: Array = None  # f32[B, T], of what drew the tokens; with ppo.tis_cap
    written: Array = None  # bool[B], as in Feedback
    kl_coef: Array = None  # f32[B], the same in each row; with ppo.adaptive_kl_target


class RewardScale(NamedTuple):
    """Running moments of outcome rewards (Welford), for `ppo.scale_rewards`."""

    count: Array  # f32[]
    mean: Array  # f32[]
    m2: Array  # f32[]


class TrainState(NamedTuple):
    """Everything that an update changes."""

    step: Array  # i32[], iterations done
    actor: Any  # params
    critic: Any  # params (a trunk of its own, or the value head alone when shared); or None
    actor_opt: Any
    critic_opt: Any  # None without a critic
    reward_scale: RewardScale
    kl_coef: Array = None  # f32[], where ppo.adaptive_kl_target moves it; else None


class TextBatch(NamedTuple):
    """Rows of supervised text; a row holds one example, or several behind each other."""

    tokens: Array  # i32[B, L], zero on padding
    segments: Array  # i32[B, L], 1, 2, ... for the examples of a row, 0 on padding
    scored: Array  # bool[B, L], completion tokens, which the loss counts


class TextState(NamedTuple):
    """Everything that an update of supervised fine-tuning changes."""

    step: Array  # i32[], updates done
    trained: Any  # params, with LoRA its adapters
    opt_state: Any
