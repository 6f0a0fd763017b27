"""All that a resume needs, on disk: one Orbax folder per iteration, the best one beside.

<folder>/<step>/  state (TrainState; of SFT TextState), arrays (any tree of numpy arrays,
such as the curriculum), record (a JSON-able dict: config, versions, the reference's hash).
<folder>/best/<step>/ has the same, for the best validation score so far. A folder appears
under its name only once it is whole.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from stepcoder_jax import sharding
from stepcoder_jax.pytrees import TextState, TrainState
from stepcoder_jax.records import InputError

PARTS = ("state", "arrays", "record")


class CheckpointError(InputError):
    """A folder that holds no checkpoint, or one that does not fit this run."""


State = TypeVar("State", TrainState, TextState)


class Saved(NamedTuple, Generic[State]):
    """What one checkpoint holds."""

    state: State
    arrays: Any  # a tree of numpy arrays; NamedTuples come back as dicts
    record: dict[str, Any]


def save(folder: str | Path, step: int, saved: Saved, keep: int) -> None:
    """Write the checkpoint of iteration `step` and drop all but the newest `keep`.

    An existing checkpoint of this step is replaced. Returns when all is on disk.
    """
    preserve = ocp.training.preservation_policies.LatestN(keep)
    root = Path(folder).absolute()
    with ocp.training.Checkpointer(root, preservation_policy=preserve) as checkpointer:
        checkpointer.save_checkpointables(
            step,
            {
                "state": saved.state,
                "arrays": saved.arrays,
                # as one string: a tree would lose empty lists and turn tuples into dicts
                "record": {"json": json.dumps(saved.record)},
            },
            force=True,
            overwrite=True,
        )


def save_best(folder: str | Path, step: int, saved: Saved) -> None:
    """Write `saved` as the best checkpoint, in place of the former one."""
    save(Path(folder) / "best", step, saved, keep=1)


def steps_in(folder: str | Path) -> list[int]:
    """Iterations with a whole checkpoint in `folder`, ascending; none for no folder."""
    root = Path(folder)
    if not root.is_dir():
        return []
    numbered = (path for path in root.iterdir() if path.name.isdecimal())
    return sorted(int(path.name) for path in numbered if _is_whole(path))


def latest_step(folder: str | Path) -> int | None:
    """The newest iteration with a whole checkpoint, or None."""
    steps = steps_in(folder)
    return steps[-1] if steps else None


def restore(folder: str | Path, step: int, abstract_state: State) -> Saved[State]:
    """Read the checkpoint of iteration `step`, bit for bit.

    `abstract_state` is a state of jax.ShapeDtypeStruct whose shardings say where the
    arrays go (`Steps.abstract_state`). Raises CheckpointError when the step is not there,
    when the folder was not written by this package, or when shapes differ.
    """
    path = _find(folder, step)
    _check_shapes(path, abstract_state, whole=True)
    loaded = ocp.load_checkpointables(path, {"state": abstract_state, "arrays": None})
    arrays = jax.tree.map(np.asarray, loaded["arrays"])
    state = type(abstract_state)(*loaded["state"])
    return Saved(state, arrays, restore_record(folder, step))


def restore_networks(
    folder: str | Path, step: int, abstract_state: TrainState
) -> tuple[Any, Any]:
    """Actor and critic of the checkpoint of iteration `step`, without optimizer states.

    Fields of `abstract_state` other than these two are not looked at; errors as `restore`.
    """
    path = _find(folder, step)
    wanted = {"actor": abstract_state.actor, "critic": abstract_state.critic}
    _check_shapes(path, wanted, whole=False)
    loading = ocp.options.PyTreeOptions.Loading(partial_load=True)
    with ocp.Context(pytree_options=ocp.options.PyTreeOptions(loading=loading)):
        state = ocp.load_checkpointables(path, {"state": wanted})["state"]
    return state["actor"], state["critic"]


def restore_record(folder: str | Path, step: int) -> dict[str, Any]:
    """Only the JSON-able part: enough to compare configs before anything is built."""
    loaded = ocp.load_checkpointables(_find(folder, step), {"record": None})
    return json.loads(loaded["record"]["json"])


def _is_whole(path: Path) -> bool:
    # Orbax writes this file last; its own test takes an empty folder for a checkpoint
    return (path / "_CHECKPOINT_METADATA").is_file()


def _find(folder: str | Path, step: int) -> Path:
    path = Path(folder).absolute() / str(step)
    if not path.is_dir():
        have = ", ".join(map(str, steps_in(folder))) or "none"
        raise CheckpointError(f"{path}: no checkpoint of step {step}; found steps: {have}")
    if not _is_whole(path):
        raise CheckpointError(f"{path}: not a checkpoint folder, or one that is not whole")
    parts = ocp.checkpointables_metadata(path).metadata
    missing = [part for part in PARTS if part not in parts]
    if missing:
        raise CheckpointError(
            f"{path}: expected {', '.join(PARTS)}, {missing[0]!r} is missing; this "
            f"checkpoint was written by another program"
        )
    return path


def _check_shapes(path: Path, abstract_state: Any, whole: bool) -> None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(key, simple=True, separator="/"): tuple(leaf.shape)
            for key, leaf in leaves
        }

    found = shapes(ocp.checkpointables_metadata(path).metadata["state"])
    expected = shapes(abstract_state)
    for name in sorted(found.keys() | expected.keys() if whole else expected):
        if found.get(name) != expected.get(name):
            raise CheckpointError(
                f"{path}: {name} has shape {found.get(name)}, the config asks for "
                f"{expected.get(name)}; resume with the config the run began with"
            )


def hash_params(params: Any) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of a tree of global or host arrays.

    One array at a time is whole on the host; every process must call it.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if isinstance(leaf, jax.Array):
            leaf = sharding.to_host(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
