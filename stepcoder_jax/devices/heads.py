"""Programs that read learned heads at the hidden states of a run's reference.

A few rows at a time, as many as an update has in memory, so that none of it is larger than
what is there anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.learning.scoring import choose_reference
from stepcoder_jax.models import heads, policy
from stepcoder_jax.models.heads import Pool

Params = Any
Read = Callable[..., jax.Array]  # of hidden states, a head and arrays, all by rows


class HeadReader:
    """A run's reference, to read heads at; each program is compiled once.

    `reference` is as `Steps.place_reference` leaves it; with LoRA the base of the actor
    that each call brings is read in its place.
    """

    def __init__(self, steps: Steps, reference: Params) -> None:
        self.steps, self.reference = steps, reference
        ppo = steps.config.ppo
        parts = ppo.num_minibatches * ppo.num_micro_batches
        self.rows = steps.config.batch_size // parts
        self.programs: dict[Any, Any] = {}

    def token_values(
        self,
        actor: Params,
        head: Params,
        rows: tuple[np.ndarray, np.ndarray, np.ndarray],
        columns: int,
    ) -> np.ndarray:
        """`heads.token_values` f32[N, T] of completion tokens: each has read itself.

        `rows` are tokens i32[N, L] packed from the left, prompt_length and outcome i32[N].
        """

        def read(hidden: jax.Array, head: Params, prompt: Any, outcome: Any) -> jax.Array:
            values = heads.token_values(head, hidden, outcome)
            place = prompt[:, None] + jnp.arange(columns)[None]
            place = jnp.minimum(place, values.shape[1] - 1)
            return jnp.take_along_axis(values, place, axis=1)

        return self._read(("token_values", columns), read, actor, head, rows)

    def class_chances(
        self, actor: Params, head: Params, rows: tuple[np.ndarray, np.ndarray], pool: Pool
    ) -> np.ndarray:
        """Chances f32[N, 4] of the outcomes of programs: tokens i32[N, L], whose program
        the mask bool[N, L] tells."""

        def read(hidden: jax.Array, head: Params, mask: jax.Array) -> jax.Array:
            logits = heads.outcome_logits(head, hidden, mask, pool)
            return jax.nn.softmax(logits, axis=-1)

        return self._read(("class_chances", pool), read, actor, head, rows)

    def scores(
        self, actor: Params, head: Params, rows: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        """`heads.program_scores` f32[N]; `rows` as in `class_chances`."""

        def read(hidden: jax.Array, head: Params, mask: jax.Array) -> jax.Array:
            return heads.program_scores(head, hidden, mask)

        return self._read(("scores",), read, actor, head, rows)

    def _read(
        self,
        name: tuple[Any, ...],
        read: Read,
        actor: Params,
        head: Params,
        rows: tuple[np.ndarray, ...],
    ) -> np.ndarray:
        """What `read` gives of each row; the last part is filled up with its last row."""
        number, size = len(rows[0]), self.rows
        name = (*name, rows[0].shape[1])
        if name not in self.programs:
            self.programs[name] = self._compile(read, len(rows))
        found = []
        for start in range(0, number, size):
            chosen = np.minimum(np.arange(start, start + size), number - 1)
            part = sharding.to_devices(
                tuple(np.asarray(x)[chosen] for x in rows), self.steps.batch_sharding
            )
            values = self.programs[name](actor, self.reference, head, *part)
            found.append(np.asarray(sharding.to_host(values)))
        return np.concatenate(found)[:number]

    def _compile(self, read: Read, arrays: int) -> Any:
        steps, config = self.steps, self.steps.config
        rows, whole = steps.batch_sharding, steps.replicated

        def program(actor: Params, reference: Params, head: Params, *rows: Any) -> Any:
            tokens, *others = rows
            reference = choose_reference(config, actor, steps.on_device(reference))
            hidden = policy.hidden_states(config.model, reference["trunk"], tokens)
            return read(hidden, head, *others)

        networks = (steps.state_shardings.actor, steps.reference_shardings, whole)
        return jax.jit(
            sharding.on_mesh(steps.mesh, program),
            in_shardings=(*networks, *[rows] * arrays),
            out_shardings=rows,
        )
