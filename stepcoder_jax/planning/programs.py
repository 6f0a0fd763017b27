"""The programs of an iteration with abstract arguments, and what lies beside each.

Nothing is allocated: arguments are jax.ShapeDtypeStruct with the shardings of `Steps`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from stepcoder_jax.learning import updates
from stepcoder_jax.pytrees import Experience, Feedback, Rollout
from stepcoder_jax.sampling import slots

if TYPE_CHECKING:
    from stepcoder_jax.config import Config
    from stepcoder_jax.devices.sampler import SamplerPrograms
    from stepcoder_jax.devices.steps import Steps


class Program(NamedTuple):
    """A jitted program, what it takes, and what else the devices hold meanwhile."""

    name: str
    jitted: Any
    args: tuple[Any, ...]  # abstract arrays, and static values
    beside: tuple[Any, ...]  # trees of abstract arrays
    runs: int  # in an iteration, at full length; 0: once in a run


class Widths(NamedTuple):
    """Columns of prompts and of the cache, as `slots` comes to have them."""

    prompt: int  # P
    start: int  # of a cache that prompts have just been read into
    before: int  # the last but one
    full: int


def widths_of(config: Config) -> Widths:
    """Of an iteration's rollouts with the longest prompts and completions."""
    ours, prompt = config.sampling, config.prompt.max_prompt_length
    limit = prompt + ours.max_completion_length + ours.chunk
    read = slots.width_for(prompt, prompt)
    full = slots.width_for(limit, limit)
    before = max(slots.width_for(1, limit), full - slots.width_for(1, limit))
    start = min(full, slots.width_for(read + ours.chunk, limit))
    return Widths(read, start, max(start, before), full)


def rollout_arrays(steps: Steps) -> tuple[Rollout, Feedback]:
    """What was sampled and judged, of a whole batch, abstract."""
    config, rows = steps.config, steps.config.learnt_rows
    columns = config.sampling.max_completion_length
    length = config.prompt.max_prompt_length + columns

    def array(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=steps.batch_sharding)

    number, flag = array(jnp.int32), array(bool, columns)
    scores = array(jnp.float32, columns)
    tokens = array(jnp.int32, length)
    explains = bool(config.data.contexts) and config.prompt.variant == "explain"
    is_coderl, ours = config.takes_returns, config.coderl
    return (
        Rollout(tokens, number, number, flag, scores, scores, array(bool)),
        Feedback(
            scores,
            flag,
            array(bool),
            explained=number if explains else None,
            baseline=array(jnp.float32) if is_coderl and ours.baseline != "none" else None,
            token_values=scores if is_coderl and ours.critic else None,
            written=array(bool) if rows > config.batch_size else None,
        ),
    )


def with_shardings(jitted: Any, *args: Any) -> Any:
    """What a program returns, abstract, each array with its sharding."""
    return jitted.eval_shape(*args)


def programs(steps: Steps) -> list[Program]:
    """All of an iteration, in their order, and `init`, which comes before the first."""
    state, reference = steps.abstract_state, steps.abstract_reference()
    actor = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        _base(state.actor, steps.actor_shardings),
        steps.actor_shardings,
    )
    init = Program("init", steps.init_state_program, (actor,), (), 0)
    made = steps.sampler_programs(*steps.rollout_sampler())
    return [init, *_sampling(steps, made, reference), *_learning(steps, reference)]


def _base(actor: Any, like: Any) -> Any:
    """The arrays of `actor` that `like` has: without adapters."""
    if isinstance(like, dict):
        return {name: _base(actor[name], part) for name, part in like.items()}
    return actor


def _sampling(steps: Steps, made: SamplerPrograms, reference: Any) -> list[Program]:
    state, widths = steps.abstract_state, widths_of(steps.config)
    config, ours = steps.config, steps.config.sampling
    rest = (state.critic, state.actor_opt, state.critic_opt, reference)
    weights = with_shardings(made.prepare, state.actor)
    empty, wide = (
        made.empty_state.eval_shape(width) for width in (widths.start, widths.full)
    )
    prompts = with_shardings(
        made.read_prompts, state.actor, *made.prompt_arrays(widths.prompt)
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=steps.replicated)
    enough = jax.ShapeDtypeStruct((), jnp.int32, sharding=steps.replicated)
    before = made.empty_state.eval_shape(widths.before)
    waves = -(-config.batch_size // made.num_slots)
    chunks = -(-ours.max_completion_length // ours.chunk)
    reads = -(-ours.problems_per_step // made.num_prompts)
    sampling = (
        ("prepare", made.prepare, (state.actor,), rest, 1),
        ("empty", made.empty_state, (widths.start,), (state, reference, weights), 1),
        (
            "read",
            made.read_prompts,
            (state.actor, *made.prompt_arrays(widths.prompt)),
            (*rest, weights, empty if waves == 1 else wide),
            reads,
        ),
        (
            "fill",
            made.fill_slots,
            (wide, prompts, *made.slot_arrays(), key),
            (state, reference, weights),
            max(waves, reads),
        ),
        (
            "resize",
            made.resize,
            (before, widths.full),
            (state, reference, weights, prompts),
            int(widths.start < widths.full),
        ),
        (
            "advance",
            made.advance,
            (weights, wide, made.closed_array(), enough),
            (state, reference, prompts),
            waves * chunks,
        ),
    )
    return [Program(*each) for each in sampling]


def _learning(steps: Steps, reference: Any) -> list[Program]:
    state, given = steps.abstract_state, rollout_arrays(steps)
    everything = (state, reference, *given)
    seen: Experience
    if updates.learns_in_one_pass(steps.algorithm, steps.config):
        seen = steps.pass_program.eval_shape(*everything)[1]
        learn = [Program("learn", steps.pass_program, everything, (), 1)]
    else:
        seen = steps.experience_program.eval_shape(*everything)[0]
        learn = [
            Program("experience", steps.experience_program, everything, (), 1),
            Program("update", steps.update_program, (state, seen), (reference,), 1),
        ]
    # what `sharding.to_host` does on several hosts
    gather = jax.jit(lambda tree: tree, out_shardings=steps.replicated)
    return [*learn, Program("gather", gather, (seen,), (state, reference), 1)]
