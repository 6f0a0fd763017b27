"""Problems in training order, as a grain pipeline whose place can be kept and resumed.

The order is one for all processes: epochs follow each other without end, each a fresh
permutation, the one of `cccs.draw` (default_rng([seed, epoch, 1])). Of `process_count`
processes number i takes positions i, i + process_count, ...: together they see every
problem once an epoch, also where the number of problems does not divide, and the first
positions of all of them are the first positions of one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from stepcoder_jax.feedback.cccs import ORDER_STREAM
from stepcoder_jax.records import InputError

Item = TypeVar("Item")

ENDLESS = 1 << 62  # positions: more than anybody will ask for


@functools.lru_cache(maxsize=2)  # a process that reads ahead is in two epochs at a time
def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of one epoch, i64[size]."""
    return np.random.default_rng([seed, epoch, ORDER_STREAM]).permutation(size)


class ProblemStream(Iterator[Item], Generic[Item]):
    """Endless problems of one process; `get_state` and `set_state` keep its place.

    The state is a small JSON object. It holds for any process of a run with the same
    number of problems, seed and number of processes: InputError for another.
    """

    def __init__(
        self,
        problems: Sequence[Item],
        seed: int,
        *,
        process_index: int = 0,
        process_count: int = 1,
        read_ahead: int = 64,
    ) -> None:
        import grain

        if not len(problems) or not 0 <= process_index < process_count:
            raise InputError(
                "expected at least 1 problem and a process of the run, got "
                f"{len(problems)} problems, process {process_index} of {process_count}"
            )
        self._run = {"problems": len(problems), "seed": seed, "processes": process_count}

        def find(position: int) -> Item:
            epoch, place = divmod(position, len(problems))
            return problems[int(epoch_order(len(problems), seed, epoch)[place])]

        positions = grain.MapDataset.range(ENDLESS)[process_index::process_count]
        options = grain.ReadOptions(
            num_threads=min(4, read_ahead), prefetch_buffer_size=read_ahead
        )
        self._items = iter(positions.map(find).to_iter_dataset(options))

    def __next__(self) -> Item:
        item: Item = next(self._items)
        return item

    def get_state(self) -> dict[str, Any]:
        """Where the next item stands, and what order it is a place in."""
        return {**self._run, "grain": self._items.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was asked."""
        for name, value in self._run.items():
            if state.get(name) != value:
                raise InputError(
                    f"the state is of another order: {name} is {state.get(name)!r} there "
                    f"and {value!r} here; resume with the same data, seed and processes"
                )
        self._items.set_state(state["grain"])
