"""The jitted, donated, sharded programs of a run.

Here the pure steps of `sampling` and of `learning` meet the mesh of `sharding`; every
program has in and out shardings, on one CPU device too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from stepcoder_jax.devices import finite, sharding
from stepcoder_jax.devices.sampler import SamplerPrograms
from stepcoder_jax.learning import grpo, ppo, updates
from stepcoder_jax.learning.returns import coderl
from stepcoder_jax.models import policy
from stepcoder_jax.pytrees import (
    Experience,
    Feedback,
    PromptBatch,
    RewardScale,
    Rollout,
    TrainState,
)
from stepcoder_jax.sampling import chunks, slots
from stepcoder_jax.sampling.drawing import Truncation

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from stepcoder_jax.config import Config

Params = Any
Metrics = dict[str, Any]

# by what `config.algorithm` says; a new one is a file of `learning` and an entry here
ALGORITHMS = {"ppo": ppo.PPO, "grpo": grpo.GRPO, "coderl": coderl.CODERL}


class Steps:
    """All device programs of one run, each compiled once.

    Each of `eos_ids` ends a completion. Raises `sharding.ShardingError` when the
    batch or a parameter does not divide over the mesh.
    """

    def __init__(self, config: Config, mesh: Mesh, eos_ids: tuple[int, ...]) -> None:
        sharding.check_batch(config, mesh)
        self.config, self.mesh, self.eos_ids = config, mesh, eos_ids
        self.algorithm = algorithm = ALGORITHMS[config.algorithm]
        init_state = functools.partial(updates.init_state, algorithm, config)
        key = jax.eval_shape(lambda: jax.random.key(0))
        actor = jax.eval_shape(functools.partial(policy.init_params, config.model), key)
        state = jax.eval_shape(init_state, actor)
        self.actor_shardings: Params = sharding.param_shardings(mesh, actor)
        self.state_shardings: TrainState = sharding.param_shardings(mesh, state)
        self.abstract_state: TrainState = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            state,
            self.state_shardings,
        )
        self.batch_sharding = sharding.batch_sharding(mesh, 0)
        self.replicated = sharding.replicated(mesh)
        self._samplers: dict[tuple[Truncation, int, int], slots.Sampler] = {}
        layout = sharding.layout(mesh)
        self.reference_shardings = self._reference_shardings()
        self.init_state_program = jax.jit(
            init_state,
            in_shardings=(self.actor_shardings,),
            out_shardings=self.state_shardings,
        )
        rows, whole = self.batch_sharding, self.replicated
        given = (self.state_shardings, self.reference_shardings, rows, rows)

        def from_batch(step: Callable[..., Any]) -> Callable[..., Any]:
            """A step of `updates` that takes what was sampled and judged."""

            def program(
                state: TrainState, reference: Params, rollout: Rollout, feedback: Feedback
            ) -> Any:
                given = (self.on_device(reference), rollout, feedback)
                return step(algorithm, config, state, *given, layout)

            return sharding.on_mesh(mesh, program)

        def update(state: TrainState, experience: Experience) -> Any:
            return updates.update(algorithm, config, state, experience, layout)

        def look(state: TrainState, experience: Experience, chosen: jax.Array) -> Any:
            batch = layout.place(jax.tree.map(lambda x: x[chosen], experience), 0)
            return batch, finite.look(algorithm, config, state, batch, layout)

        self.experience_program = jax.jit(
            from_batch(updates.make_experience),
            in_shardings=given,
            out_shardings=(rows, whole, whole),
        )
        self.update_program = jax.jit(
            sharding.on_mesh(mesh, update),
            in_shardings=(self.state_shardings, rows),
            out_shardings=(self.state_shardings, whole),
            donate_argnums=0,
        )
        self.look_program = jax.jit(
            sharding.on_mesh(mesh, look),
            in_shardings=(self.state_shardings, rows, whole),
            out_shardings=(rows, whole),
        )
        self.keep_scale_program = jax.jit(
            updates.keep_scale, in_shardings=whole, out_shardings=whole
        )
        self.pass_program = jax.jit(
            from_batch(updates.one_pass),
            in_shardings=given,
            out_shardings=(self.state_shardings, rows, whole, whole),
            donate_argnums=0,
        )

    def place_params(self, actor: Params) -> Params:
        """Actor parameters of the host on the devices."""
        return sharding.to_devices(actor, self.actor_shardings)

    def init_params(self, seed: int) -> Params:
        """Random actor parameters, created where they live."""
        program = jax.jit(
            functools.partial(policy.init_params, self.config.model),
            out_shardings=self.actor_shardings,
        )
        return program(jax.random.key(seed))

    def adapt(self, actor: Params) -> Params:
        """Add the run's adapters, if any, to an actor; its outputs stay the same."""
        program = jax.jit(
            functools.partial(policy.add_adapters, self.config.model),
            out_shardings=self.state_shardings.actor,
        )
        return program(actor, jax.random.key(0))

    def place_reference(self, reference: Params) -> Params:
        """The reference as `make_experience` wants it; `reference` stays usable.

        Kernels and embedding in the activations' dtype, to which each use rounds them
        anyway; in the host's memory with `ppo.offload_reference`; nothing with LoRA, where
        the actor's base is the reference.
        """
        if self.config.model.lora_rank:
            return {}
        program = jax.jit(self._round_reference, out_shardings=self.actor_shardings)
        return jax.device_put(program(reference), self.reference_shardings)

    def abstract_reference(self) -> Params:
        """The reference as `place_reference` leaves it, without its numbers."""
        if self.config.model.lora_rank:
            return {}
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            jax.eval_shape(self._round_reference, self.abstract_state.actor),
            self.reference_shardings,
        )

    def _round_reference(self, reference: Params) -> Params:
        dtype = self.config.model.dtype

        def cast(path: Any, x: jax.Array) -> jax.Array:
            return x.astype(dtype) if path[-1].key in ("kernel", "embedding") else x

        return jax.tree_util.tree_map_with_path(cast, reference)

    def _reference_shardings(self) -> Params:
        if self.config.model.lora_rank:
            return {}
        if self.config.ppo.offload_reference:
            return sharding.on_host(self.mesh, self.actor_shardings)
        return self.actor_shardings

    def on_device(self, reference: Params) -> Params:
        """Inside a program: bring the reference from the host's memory to the device's."""
        if self.config.ppo.offload_reference:
            return jax.device_put(reference, self.actor_shardings)
        return reference

    def init_state(self, actor: Params) -> TrainState:
        """The state before the first iteration; `actor` is copied and stays usable."""
        return self.init_state_program(actor)

    def learn(
        self, state: TrainState, reference: Params, rollout: Rollout, feedback: Feedback
    ) -> tuple[TrainState, Experience, Metrics, Metrics]:
        """Experience and update, in one pass where `updates.learns_in_one_pass`.

        Also returns the metrics of both; `state` is donated, `rollout` and `feedback` may
        be numpy arrays of the whole batch. Where metrics["nonfinite"] is not 0, the state
        is that before the first update that was not finite; with the iteration's first it
        is that before the iteration.
        """
        if updates.learns_in_one_pass(self.algorithm, self.config):
            rollout, feedback = self._on_devices(rollout), self._on_devices(feedback)
            return self.pass_program(state, reference, rollout, feedback)
        before = state.reward_scale
        experience, state, looked = self.make_experience(
            state, reference, rollout, feedback
        )
        state, learnt = self.update(state, experience)
        scale = self.keep_scale_program(before, state.reward_scale, learnt["nonfinite"])
        return state._replace(reward_scale=scale), experience, looked, learnt

    def look(
        self, state: TrainState, experience: Experience, rows: np.ndarray
    ) -> tuple[Experience, finite.Soundness]:
        """`finite.look` at the update by some rows; these rows' experience, and it."""
        chosen = sharding.to_devices(rows, self.replicated)
        found = self.look_program(state, self._on_devices(experience), chosen)
        return sharding.to_host(found)

    def make_experience(
        self, state: TrainState, reference: Params, rollout: Rollout, feedback: Feedback
    ) -> tuple[Experience, TrainState, Metrics]:
        """`updates.make_experience`; the new reward moments are in the state.

        `rollout` and `feedback` may be numpy arrays of the whole batch.
        """
        rollout, feedback = self._on_devices(rollout), self._on_devices(feedback)
        experience, scale, metrics = self.experience_program(
            state, reference, rollout, feedback
        )
        return experience, state._replace(reward_scale=RewardScale(*scale)), metrics

    def update(
        self, state: TrainState, experience: Experience
    ) -> tuple[TrainState, Metrics]:
        """`updates.update`; `state` is donated: its arrays are gone after it."""
        return self.update_program(state, experience)

    def sample(
        self,
        actor: Params,
        batch: PromptBatch,
        step: int,
        find_stop: slots.FindStop | None,
    ) -> Iterator[list[slots.Completion]]:
        """Completions of iteration `step`, as they end: see `slots.stream`.

        `batch` holds numpy arrays. A prompt that several rows share is read once.
        """
        sampler = self._sampler(*self.rollout_sampler())
        key = jax.random.fold_in(jax.random.key(self.config.run.seed), step)
        return slots.stream(sampler, actor, batch, key, find_stop)

    def sample_greedy(
        self, actor: Params, batch: PromptBatch, find_stop: slots.FindStop | None
    ) -> Iterator[list[slots.Completion]]:
        """Most probable completions of any number of prompts, as they end.

        Needs no randomness; the logprobs are those at temperature 1.
        """
        return self.sample_many(actor, batch, Truncation(0.0), 1, 0, find_stop)

    def sample_many(
        self,
        actor: Params,
        batch: PromptBatch,
        truncation: Truncation,
        group: int,
        seed: int,
        find_stop: slots.FindStop | None,
    ) -> Iterator[list[slots.Completion]]:
        """Completions of any number of prompts with about `group` rows each, as they end.

        evaluation.batch_size of them are decoded at a time, and what a row draws depends
        on `seed` and its index alone, not on the rows beside it.
        """
        sampler = self._sampler(truncation, self.config.evaluation.batch_size, group)
        return slots.stream(sampler, actor, batch, jax.random.key(seed), find_stop)

    def _on_devices(self, tree: Any) -> Any:
        if all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree)):
            return tree
        return sharding.to_devices(sharding.to_host(tree), self.batch_sharding)

    def _sampler(self, truncation: Truncation, num_slots: int, group: int) -> slots.Sampler:
        """A sampler with at least `num_slots` slots, for prompts of `group` rollouts."""
        key = (truncation, num_slots, group)
        if key not in self._samplers:
            self._samplers[key] = self.sampler_programs(*key).sampler()
        return self._samplers[key]

    def rollout_sampler(self) -> tuple[Truncation, int, int]:
        """Truncation, slots and group of the sampler that an iteration's rollouts take."""
        ours = self.config.sampling
        truncation = Truncation(ours.temperature, ours.top_p, ours.top_k, ours.min_p)
        return truncation, ours.slots or self.config.batch_size, ours.rollouts_per_problem

    def sampler_programs(
        self, truncation: Truncation, num_slots: int, group: int
    ) -> SamplerPrograms:
        """The programs of a sampler; slots and prompts are rounded up to the mesh."""
        sampling, shards = self.config.sampling, sharding.batch_shards(self.mesh)
        num_slots = -(-num_slots // shards) * shards
        num_prompts = -(-num_slots // (group * shards)) * shards
        settings = chunks.SamplerSettings(
            truncation, sampling.max_completion_length, sampling.chunk, self.eos_ids
        )
        actor = self.abstract_state.actor  # adapters included, where a run has them
        return SamplerPrograms(
            self.config.model,
            settings,
            self.mesh,
            actor,
            num_slots,
            num_prompts,
            layout="split" if sampling.layout == "split" else "replicated",
        )
