"""An update that was not finite: where, and all that is needed to run it again.

RUN/nonfinite/STEP is a run folder of its own, with the state before the update as its only
checkpoint. Beside it stand found.json (`Found`), rows.npz (the experience of all rows of
the update) and rows.jsonl (the text of those that made it not finite).
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.finite import Soundness, describe, name_unsound
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.learning import batching
from stepcoder_jax.pytrees import Experience, TrainState
from stepcoder_jax.records import InputError
from stepcoder_jax.results.logger import encode_row, write_lines
from stepcoder_jax.runs.disk.run_folder import RunFolder

FOLDER = "nonfinite"
FOUND, ROWS, TEXTS = "found.json", "rows.npz", "rows.jsonl"
NUMBERS = "batch_rows"  # in ROWS: which rows of the batch they are


class LeftOut(Exception):
    """An update was not finite and has left itself out, and those behind it.

    `state` is that before it, `update` its place in the iteration.
    """

    def __init__(self, state: TrainState, experience: Experience, update: int) -> None:
        super().__init__(update)
        self.state, self.experience, self.update = state, experience, update


class NotFiniteError(InputError):
    """An update that was not finite ends the run; the message says where it is kept."""


class Found(NamedTuple):
    """Where an update is not finite."""

    step: int  # the iteration
    update: int  # the update of the iteration, from 0
    updates: int  # of an iteration
    names: list[str]  # parameters whose gradient is not finite
    loss: bool  # whether the loss is finite
    rows: list[int]  # of the batch: those of the micro-batches that are not finite
    inputs: list[str]  # of these rows: fields of their experience that are not finite

    def __str__(self) -> str:
        place = f"iteration {self.step}, update {self.update + 1} of {self.updates}"
        if not self.names and self.loss:
            return f"{place}: computed again, gradient and loss are finite"
        what = describe(self.names)
        rows = ", ".join(map(str, self.rows))
        given = f", whose {' and '.join(self.inputs)} are not" if self.inputs else ""
        return f"{place}: {what}, by rows {rows} of the batch{given}"


def choose_rows(config: Config, step: int, update: int) -> np.ndarray:
    """Which rows of the batch an update of iteration `step` has."""
    if config.ppo.num_epochs * config.ppo.num_minibatches == 1:
        return np.arange(config.learnt_rows)
    order = batching.shuffle_order(config, jnp.int32(step), config.learnt_rows)
    return np.asarray(order[update])


def find(
    config: Config, place: tuple[int, int], rows: np.ndarray, batch: Any, sound: Soundness
) -> Found:
    """What the update `place` (iteration, update) of some rows of the batch says."""
    networks = ("actor", "critic")
    parts, total = (dict(zip(networks, x)) for x in (sound.gradients, sound.total))
    names = name_unsound(jax.tree.map(lambda x, whole: x & whole, parts, total))
    bad = ~np.logical_and.reduce([sound.losses, *jax.tree.leaves(parts)])
    # no micro-batch by itself, but their sum
    bad = bad if bad.any() or not names else np.ones_like(bad)
    chosen = np.sort(np.asarray(sound.rows)[bad].ravel())
    inputs = [
        name
        for name, array in batch._asdict().items()
        if array is not None and not np.isfinite(np.asarray(array)[chosen]).all()
    ]
    step, update = place
    number = config.ppo.num_epochs * config.ppo.num_minibatches
    numbers = sorted(rows[chosen].tolist())
    return Found(step, update, number, names, bool(sound.losses.all()), numbers, inputs)


def look(steps: Steps, left: LeftOut) -> tuple[Found, np.ndarray, Experience]:
    """Compute the update again that was left out: what is found, its rows and those'
    experience, on every host."""
    step = int(left.state.step)
    rows = choose_rows(steps.config, step, left.update)
    batch, sound = steps.look(left.state, left.experience, rows)
    return find(steps.config, (step, left.update), rows, batch, sound), rows, batch


class Dump:
    """RUN/nonfinite/STEP; one of that name stays, and the new one is STEP.1, STEP.2 ..."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.folder = RunFolder(path)

    @classmethod
    def new(cls, run: Path, step: int) -> Dump:
        root = run / FOLDER
        names = (f"{step}{f'.{i}' if i else ''}" for i in itertools.count())
        number = next(i for i, name in enumerate(names) if not (root / name).exists())
        number = int(sharding.from_first(np.asarray(number)))
        return cls(root / f"{step}{f'.{number}' if number else ''}")

    def write(
        self, config: Config, found: Found, rows: np.ndarray, batch: Experience, decode: Any
    ) -> None:
        """Write all but the state; `decode` turns tokens into text."""
        self.folder.start(config)
        os.symlink(os.path.join("..", "..", "reference"), self.folder.reference)
        (self.path / FOUND).write_text(json.dumps(found._asdict(), indent=1) + "\n")
        arrays: dict[str, Any] = {NUMBERS: rows, **batch._asdict()}
        np.savez(self.path / ROWS, **{k: x for k, x in arrays.items() if x is not None})
        places = np.flatnonzero(np.isin(rows, found.rows)).tolist()
        texts = (_text(rows, batch, i, decode) for i in places)
        write_lines(self.path / TEXTS, map(encode_row, texts))

    def read(self) -> tuple[Found, np.ndarray, Experience]:
        """What was found, the rows' numbers in the batch, and their experience."""
        try:
            found = Found(**json.loads((self.path / FOUND).read_text()))
            with np.load(self.path / ROWS) as file:
                arrays = dict(file)
            rows = arrays.pop(NUMBERS)
            return found, rows, Experience(**arrays)
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"FOLDER: {self.path} holds no update that was left out ({said}); expected "
                f"RUN/{FOLDER}/STEP"
            ) from error


def _text(rows: np.ndarray, batch: Experience, i: int, decode: Any) -> dict[str, Any]:
    split, end = int(batch.prompt_length[i]), int(batch.length[i])
    tokens = np.asarray(batch.tokens[i])
    return {
        "row": int(rows[i]),
        "prompt": decode(tokens[:split].tolist()),
        "completion": decode(tokens[split:end].tolist()),
        "learnt": int(np.sum(batch.loss_mask[i])),
    }


def replay(path: str) -> tuple[Found, Found]:
    """Run an update that was left out again: what was found in the run, and what now."""
    dump = Dump(path)
    found, rows, batch = dump.read()
    config = dump.folder.read_config()
    steps = Steps(config, sharding.make_mesh(config.mesh, jax.devices()), ())
    restored = dump.folder.restore(found.step, steps.abstract_state, best=False)
    if restored is None:
        raise ConfigError(f"FOLDER: {path} has no state of before the update")
    _, sound = steps.look(restored[0], batch, np.arange(len(rows)))
    return found, find(config, (found.step, found.update), rows, batch, sound)
