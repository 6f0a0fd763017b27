"""Whose a row is: rows are dealt in the order in which they end, to one host after another.

The host that has a row decodes its program, judges, masks and encodes it, and tells the
others what they need: all hosts see the same completions end in the same order, so nobody
needs to be asked. Each has as many rows as the others, or one more, and they come to it as
evenly. Dealing to whoever has fewest unjudged would need all hosts' counts at each chunk,
and has the last verdict at most 2 % sooner (experiments/benchmarks/host_shares.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from stepcoder_jax.devices import gathers

T = TypeVar("T")


def is_ours(place: int) -> bool:
    """Whether this host has what came as number `place`."""
    return place % jax.process_count() == jax.process_index()


def share_of(total: int, host: int | None = None) -> range:
    """The places that a host has, this one by default, of `total`."""
    first = jax.process_index() if host is None else host
    return range(first, total, jax.process_count())


def whole(rows: Sequence[int], total: int, columns: Any, each: Any = ()) -> tuple[Any, Any]:
    """Columns of this host's rows -> of all `total` rows, on every host; one gather.

    `columns` is a tree of arrays, entry i of each of row `rows[i]`; a host has at most one
    row more than another. `each` is a tree of arrays that each host has of its own: they
    come back as [N, ...], row i of host i.
    """
    if jax.process_count() == 1:
        return columns, jax.tree.map(lambda x: np.asarray(x)[None], each)
    most = len(share_of(total, 0))
    places = np.full(most, -1, np.int32)
    places[: len(rows)] = rows

    def pad(column: Any) -> np.ndarray:
        column = np.asarray(column)
        padded = np.zeros((most, *column.shape[1:]), column.dtype)
        padded[: len(column)] = column
        return padded

    sent = places, jax.tree.map(pad, columns), jax.tree.map(np.asarray, each)
    places, found, each = gathers.stack(sent)
    known = places >= 0

    def place(column: np.ndarray) -> np.ndarray:
        ordered = np.zeros((total, *column.shape[2:]), column.dtype)
        ordered[places[known]] = column[known]
        return ordered

    return jax.tree.map(place, found), each


def deal(items: Sequence[T], work: Callable[[Sequence[T]], Any], dtype: Any) -> np.ndarray:
    """A number of each item, on every host: `work` gives those of this host's share.

    A host without a share does not call it. One gather.
    """
    ours = share_of(len(items))
    found = work([items[place] for place in ours]) if ours else []
    column, _ = whole(ours, len(items), np.asarray(found, dtype))
    ordered: np.ndarray = column
    return ordered
