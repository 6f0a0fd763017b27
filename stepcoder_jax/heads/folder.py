"""A head's folder: head.safetensors, and head.json with what it is and of which model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from stepcoder_jax.config import ConfigError
from stepcoder_jax.devices import sharding
from stepcoder_jax.models.heads import OUTPUTS, WIDTH, Kind, Pool

Params = Any
RECORD, ARRAYS = FILES = "head.json", "head.safetensors"
POOLS = get_args(Pool)


class Head(NamedTuple):
    """A head as it was learnt."""

    kind: Kind
    pool: Pool
    params: Params
    model: str  # digest of the weights whose hidden states it reads
    measured: dict[str, float]  # on problems that were held out


def save(folder: Path, head: Head) -> None:
    """Write a head into a folder that is there."""
    arrays = {
        f"{layer}.{name}": np.asarray(array)
        for layer, parts in head.params.items()
        for name, array in parts.items()
    }
    save_file(arrays, folder / ARRAYS)
    record = head._asdict() | {"params": None}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")


class Wanted(NamedTuple):
    """What a head must be for whoever asks it."""

    kind: Kind
    model: str  # digest of the weights that it is to read
    hidden_size: int
    field: str  # of the config, or a flag: where it was asked for


def keep(source: Path, kept: Path, wanted: Wanted) -> Head:
    """The head of a run: its own copy, which is made of `source` where there is none.

    So a run that goes on has the head that it began with, whatever became of `source`.
    """
    if not kept.is_dir():
        load(source, wanted)  # each host refuses what is none

        def copy() -> None:
            part = kept.with_name(kept.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for name in FILES:
                shutil.copyfile(source / name, part / name)
            part.replace(kept)

        sharding.on_first(copy)
    return load(kept, wanted)


def load(folder: Path, wanted: Wanted) -> Head:
    """The head in a folder.

    Raises ConfigError, one line that names the field, for what is none, for one of another
    kind, and for a head that reads another model.
    """
    field = wanted.field
    try:
        record = json.loads((folder / RECORD).read_text())
        arrays = load_file(folder / ARRAYS)
        head = Head(**record)
        shapes = {
            **{"inner.kernel": (wanted.hidden_size, WIDTH), "inner.bias": (WIDTH,)},
            **{"outer.kernel": (WIDTH, OUTPUTS[head.kind])},
            **{"outer.bias": (OUTPUTS[head.kind],)},
        }
        if head.pool not in POOLS:
            raise ValueError(f"pool {head.pool!r}")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"{field}: {folder} holds no head (no readable {RECORD} and {ARRAYS}: "
            f"{' '.join(str(error).split())}); `stepcoder head` makes one"
        ) from error
    if head.kind != wanted.kind:
        raise ConfigError(
            f"{field}: expected a head of kind {wanted.kind}, {folder} has one of kind "
            f"{head.kind}; learn one with `stepcoder head RUN --kind {wanted.kind}`"
        )
    if head.model != wanted.model:
        raise ConfigError(
            f"{field}: the head in {folder} reads the model {str(head.model)[:12]}, this "
            f"one is {wanted.model[:12]}; learn one for it with `stepcoder head`"
        )
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise ConfigError(f"{field}: {folder}/{ARRAYS} has other shapes than a head")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ConfigError(f"{field}: {folder}/{ARRAYS} has numbers that are not finite")
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, part = name.partition(".")
        params.setdefault(layer, {})[part] = array
    return head._replace(params=params)
