"""The jitted, sharded programs that completions are made by, and the sampler around them.

`SamplerPrograms` are the programs as they are compiled, which a plan can compile for chips
that are not there; `SamplerPrograms.sampler` feeds them with the arrays of the host.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from stepcoder_jax.devices import gathers, sharding
from stepcoder_jax.models import decoding
from stepcoder_jax.sampling import chunks, slots

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from stepcoder_jax.config import ModelConfig

Params = Any


class SamplerPrograms:
    """The programs for `num_slots` slots and `num_prompts` prompts read at a time.

    `actor` is a tree of jax.ShapeDtypeStruct, each with its sharding. Both numbers are
    multiples of the parts that a batch is split into. `layout` is that of the weights while
    decoding, "replicated" or "split".
    """

    def __init__(
        self,
        model: ModelConfig,
        settings: chunks.SamplerSettings,
        mesh: Mesh,
        actor: Params,
        num_slots: int,
        num_prompts: int,
        layout: str,
    ) -> None:
        self.model, self.settings = model, settings
        self.num_slots, self.num_prompts = num_slots, num_prompts
        self.rows = rows = sharding.batch_sharding(mesh, 0)
        whole = sharding.replicated(mesh)
        cache = sharding.cache_sharding(mesh, model.num_kv_heads)
        # trees of shardings: what stands in place of an array, or of a whole subtree
        prompts: Any = chunks.Prompts._make((cache, rows, rows))
        state: Any = chunks.DecodeState._make((cache, *(rows,) * 5))
        places = jax.tree.map(lambda leaf: leaf.sharding, actor)
        prepare = functools.partial(decoding.prepare, model)
        weights = sharding.decode_shardings(mesh, jax.eval_shape(prepare, actor), layout)
        self.prepare = jax.jit(prepare, in_shardings=(places,), out_shardings=weights)
        self.read_prompts = jax.jit(
            sharding.on_mesh(mesh, functools.partial(chunks.read_prompts, model)),
            in_shardings=(places, rows, rows),
            out_shardings=prompts,
        )
        self.empty_state = jax.jit(
            functools.partial(chunks.empty_state, model, settings, num_slots),
            static_argnums=0,
            out_shardings=state,
        )
        self.resize = jax.jit(
            functools.partial(chunks.resize, settings),
            static_argnums=1,
            in_shardings=(state,),
            out_shardings=state,
        )
        self.fill_slots = jax.jit(
            chunks.fill_slots,
            in_shardings=(state, prompts, rows, rows, whole),
            out_shardings=state,
            donate_argnums=0,
        )
        self.advance = jax.jit(
            functools.partial(
                chunks.advance, model, settings, places=sharding.places(mesh, layout)
            ),
            in_shardings=(weights, state, rows, whole),
            out_shardings=(state, rows),
            donate_argnums=1,
        )

    def prompt_arrays(self, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Tokens and lengths that `read_prompts` takes, abstract."""
        count = self.num_prompts
        return self._ints(count, width), self._ints(count)

    def slot_arrays(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Source and index that `fill_slots` takes, abstract."""
        return self._ints(self.num_slots), self._ints(self.num_slots)

    def closed_array(self) -> jax.ShapeDtypeStruct:
        """The slots that `advance` is told have ended, abstract."""
        return jax.ShapeDtypeStruct((self.num_slots,), bool, sharding=self.rows)

    def _ints(self, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self.rows)

    def sampler(self) -> slots.Sampler:
        """The programs with arrays of the host as their inputs: see `slots.stream`."""

        def split(*arrays: Any) -> list[jax.Array]:
            """Arrays of the host over the rows: jit does not do it on several hosts."""
            return [sharding.to_devices(array, self.rows) for array in arrays]

        finder = gathers.finders(self.rows, (self.num_slots,))
        return slots.Sampler(
            prepare=self.prepare,
            read_prompts=lambda params, tokens, length: self.read_prompts(
                params, *split(tokens, length)
            ),
            empty_state=self.empty_state,
            resize=self.resize,
            fill_slots=lambda now, read, source, index, key: self.fill_slots(
                now, read, *split(source, index), key
            ),
            advance=lambda decoded, now, closed, enough: self.advance(
                decoded, now, *split(closed), enough
            ),
            to_host=gathers.own_rows,
            num_slots=self.num_slots,
            num_prompts=self.num_prompts,
            num_columns=self.settings.num_columns,
            chunk=self.settings.chunk,
            looks=finder == jax.process_index(),
            share=lambda *found: gathers.share_rows(finder, found),
        )
