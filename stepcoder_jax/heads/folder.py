"""A head's folder: head.safetensors, and head.json with what it is and of which model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from stepcoder_jax.config import ConfigError
from stepcoder_jax.models.heads import OUTPUTS, WIDTH, Kind, Pool

Params = Any


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
    save_file(arrays, folder / "head.safetensors")
    record = head._asdict() | {"params": None}
    (folder / "head.json").write_text(json.dumps(record, indent=1) + "\n")


def load(folder: Path, model: str, hidden_size: int, field: str) -> Head:
    """The head in a folder, for the model with this digest.

    Raises ConfigError, one line that names the field, for what is none, and for a head
    that reads another model.
    """
    try:
        record = json.loads((folder / "head.json").read_text())
        arrays = load_file(folder / "head.safetensors")
        head = Head(**record)
        shapes = {
            **{"inner.kernel": (hidden_size, WIDTH), "inner.bias": (WIDTH,)},
            **{"outer.kernel": (WIDTH, OUTPUTS[head.kind])},
            **{"outer.bias": (OUTPUTS[head.kind],)},
        }
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"{field}: {folder} holds no head (no readable head.json and head.safetensors: "
            f"{' '.join(str(error).split())}); `stepcoder head` makes one"
        ) from error
    if head.model != model:
        raise ConfigError(
            f"{field}: the head in {folder} reads the model {head.model[:12]}, this one is "
            f"{model[:12]}; learn one for it with `stepcoder head`"
        )
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise ConfigError(
            f"{field}: {folder}/head.safetensors has other shapes than a head"
        )
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, part = name.partition(".")
        params.setdefault(layer, {})[part] = array
    return head._replace(params=params)
