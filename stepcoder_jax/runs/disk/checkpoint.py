"""All that a resume needs, on disk: one Orbax folder per iteration, the best one beside.

<folder>/<step>/  state (TrainState; of SFT TextState), arrays (any tree of numpy arrays,
such as the curriculum), record (a JSON-able dict: config, versions, the reference's hash),
and the seal of `seals`. <folder>/best/<step>/ has the same, for the best validation score
so far. A folder appears under its name only once it is whole and sealed; the one that it
replaces is <step>.former until then. Those made before there were seals open as well.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from stepcoder_jax.devices import sharding
from stepcoder_jax.pytrees import TextState, TrainState
from stepcoder_jax.records import InputError
from stepcoder_jax.runs.disk import loops, seals
from stepcoder_jax.runs.disk.seals import DamagedError

PARTS = ("state", "arrays", "record")
FORMAT = "sealed"  # told in the record of a checkpoint that has a seal
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class CheckpointError(InputError):
    """A folder that holds no checkpoint, or one that does not fit this run."""


State = TypeVar("State", TrainState, TextState)


class Saved(NamedTuple, Generic[State]):
    """What one checkpoint holds."""

    state: State
    arrays: Any  # a tree of numpy arrays; NamedTuples come back as dicts
    record: dict[str, Any]


def save(folder: str | Path, step: int, saved: Saved, keep: int) -> None:
    """`begin`, and what it returns: when this returns, all is on disk."""
    begin(folder, step, saved, keep)()
    sharding.on_first(lambda: None)  # nobody goes on before it is in place


def begin(
    folder: str | Path, step: int, saved: Saved, keep: int, is_best: bool = False
) -> Callable[[], None]:
    """Begin the checkpoint of iteration `step`; what is returned ends it, on any thread.

    When this returns the state is copied, and may be donated. An existing checkpoint of
    this step is replaced, all but the newest `keep` are dropped, and with `is_best` later
    ones too: they are of a run that was taken up again before them. Each host writes its
    own part of the arrays. Either raises CheckpointError, and leaves those before as they
    are: for a state with a number that is not finite, and where nothing can be written.
    """
    check_finite(saved.state, f"the checkpoint of step {step}")
    root = Path(folder).absolute()
    part = root / f"{step}.part"

    def clear() -> None:
        root.mkdir(parents=True, exist_ok=True)
        for left in (*root.glob("*.part"), *root.glob("*.part.orbax-checkpoint-tmp*")):
            shutil.rmtree(left)

    with _writing(root):
        sharding.on_first(clear)
        response = ocp.save_checkpointables_async(
            part,
            {
                "state": _as_stored(saved.state),
                "arrays": jax.tree.map(np.array, saved.arrays),
                # as one string: a tree would lose empty lists and turn tuples into dicts
                "record": {"json": json.dumps(saved.record), "format": FORMAT},
            },
        )

    def finish() -> None:
        with _writing(root):
            response.result()
            if jax.process_index():
                return
            seals.seal(part)
            _put_in_place(part)
            numbers = [number for number in numbered(root) if is_best or number <= step]
            kept = [step] if is_best else numbers[-keep:]
            for old in set(numbers) - set(kept):
                shutil.rmtree(root / str(old))

    return finish


def save_best(folder: str | Path, step: int, saved: Saved) -> None:
    """Write `saved` as the best checkpoint, in place of all former ones."""
    begin_best(folder, step, saved)()
    sharding.on_first(lambda: None)


def begin_best(folder: str | Path, step: int, saved: Saved) -> Callable[[], None]:
    """As `begin`, of the best checkpoint."""
    return begin(Path(folder) / "best", step, saved, keep=1, is_best=True)


def check_finite(tree: Any, what: str) -> None:
    """Raise CheckpointError naming the first array with a number that is not finite."""
    leaves = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    finite = _are_finite([leaf for _, leaf in leaves])
    for (path, _), is_finite in zip(leaves, finite, strict=True):
        if not is_finite:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise CheckpointError(
                f"{what} is not written: {name} holds a number that is not finite; those "
                "before are left as they are; begin again with a lower learning rate"
            )


@jax.jit
def _are_finite(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jnp.isfinite(leaf).all() for leaf in leaves]


def _as_stored(state: TrainState | TextState) -> dict[str, Any]:
    """A state by names, without a `kl_coef` that nothing moves.

    So a run without one is on disk as it was before there were any, and opens as well.
    """
    fields = state._asdict()
    if fields.get("kl_coef", 0) is None:
        del fields["kl_coef"]
    return fields


def _put_in_place(part: Path) -> None:
    """Give a sealed folder its name; the one of that name goes once it has."""
    path, former = part.with_suffix(""), part.with_suffix(".former")
    shutil.rmtree(former, ignore_errors=True)
    if path.exists():
        path.rename(former)
    part.rename(path)
    shutil.rmtree(former, ignore_errors=True)


def _take_back(root: Path) -> None:
    """Where a process ended while it put a folder in place, the former one stays."""
    for former in root.glob("*.former"):
        if not former.with_suffix("").exists():
            former.rename(former.with_suffix(""))


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Something writes in `root`; CheckpointError in one line where it cannot."""
    # each of Orbax's threads logs what is raised here, and some after it
    loggers = [
        logging.getLogger(name) for name in ("absl", "asyncio", "concurrent.futures")
    ]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
        for logger in loggers:
            logger.disabled = False
    except (OSError, ValueError) as error:  # TensorStore's are ValueErrors
        code = getattr(error, "errno", None)
        said = re.search(r"os_error_code='(\d+)'", str(error))
        code = int(said[1]) if said else code
        if code not in (*FULL, *FORBIDDEN):
            raise
        for left in root.glob("*.part*"):
            shutil.rmtree(left, ignore_errors=True)
        what = "no room for a checkpoint" if code in FULL else "a checkpoint is not written"
        mend = "make room" if code in FULL else "make the folder writable"
        raise CheckpointError(
            f"{root}: {what} ({os.strerror(code)}); those before are left as they are; "
            f"{mend}, then go on with --run.resume"
        ) from None


def numbered(folder: str | Path) -> list[int]:
    """Iterations with a folder in `folder`, whole or not, ascending."""
    root = Path(folder)
    if not root.is_dir():
        return []
    return sorted(int(path.name) for path in root.iterdir() if path.name.isdecimal())


def steps_in(folder: str | Path) -> list[int]:
    """Iterations with a whole checkpoint in `folder`, ascending; none for no folder."""
    return [step for step in numbered(folder) if _is_whole(Path(folder) / str(step))]


def latest_step(folder: str | Path) -> int | None:
    """The newest iteration with a whole checkpoint, or None."""
    steps = steps_in(folder)
    return steps[-1] if steps else None


def restore_newest(
    folder: str | Path, abstract_state: State, step: int | None
) -> tuple[Saved[State] | None, list[str]]:
    """The checkpoint of `step` (None: the newest that is as it was written).

    Also one complaint for each newer one that is damaged. None where there is no
    checkpoint at all; DamagedError where none that was asked for is left, else as
    `restore`.
    """
    sharding.on_first(lambda: _take_back(Path(folder)))
    complaints: list[str] = []
    for candidate in numbered(folder)[::-1] if step is None else [step]:
        try:
            check(folder, candidate)
            return restore(folder, candidate, abstract_state), complaints
        except DamagedError as error:
            complaints.append(str(error))
    if complaints:
        raise DamagedError(
            f"{'; '.join(complaints)}; no other checkpoint was kept, so there is nothing "
            "to go on from: start another --run.folder"
            if step is None
            else f"{complaints[0]}; choose another with --run.step, or leave it out"
        )
    return None, []


def check(folder: str | Path, step: int) -> None:
    """Raise DamagedError for a checkpoint that is not as it was written.

    Process 0 looks, for all. Of a checkpoint without a seal only its record is read.
    """
    path = _find(folder, step, whole=False)
    damage = "its files are not those that were written"
    if jax.process_index() == 0:
        damage = _find_damage(path)
    if sharding.decided(bool(damage)):
        raise DamagedError(f"checkpoint {path} is damaged: {damage}")


def _find_damage(path: Path) -> str:
    if seals.is_sealed(path):
        return seals.find_damage(path)
    if not _is_whole(path):
        return "it is not whole"
    try:
        record = _load(path, {"record": None})["record"]
    except DamagedError as error:
        return str(error)
    return f"{seals.SEAL} is missing" if "format" in record else ""


def set_aside(folder: str | Path, step: int) -> list[Path]:
    """Rename what is later than `step`, so that it is no checkpoint any more.

    For a run that goes on from `step`: theirs is another future. Returns the new names.
    """
    root, moved = Path(folder), []
    for later in numbered(folder):
        if later > step:
            names = (root / f"{later}.aside{i or ''}" for i in itertools.count())
            moved.append(next(name for name in names if not name.exists()))
            (root / str(later)).rename(moved[-1])
    return moved


def restore(folder: str | Path, step: int, abstract_state: State) -> Saved[State]:
    """Read the checkpoint of iteration `step`, bit for bit.

    `abstract_state` is a state of jax.ShapeDtypeStruct whose shardings say where the
    arrays go (`Steps.abstract_state`). Raises CheckpointError when the step is not there,
    when the folder was not written by this package, or when shapes differ.
    """
    path = _find(folder, step)
    _check_shapes(path, abstract_state, whole=True)
    loaded = _load(path, {"state": _as_stored(abstract_state), "arrays": None})
    arrays = jax.tree.map(np.asarray, loaded["arrays"])
    state = type(abstract_state)(**loaded["state"])
    return Saved(state, arrays, _read_record(path))


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
        state = _load(path, {"state": wanted})["state"]
    return state["actor"], state["critic"]


def restore_arrays(folder: str | Path, step: int) -> Any:
    """Only the tree of numpy arrays of the checkpoint of iteration `step`."""
    arrays = _load(_find(folder, step), {"arrays": None})["arrays"]
    return jax.tree.map(np.asarray, arrays)


def restore_record(folder: str | Path, step: int) -> dict[str, Any]:
    """Only the JSON-able part: enough to compare configs before anything is built."""
    return _read_record(_find(folder, step))


def _read_record(path: Path) -> dict[str, Any]:
    return json.loads(_load(path, {"record": None})["record"]["json"])


def _load(path: Path, parts: dict[str, Any]) -> Any:
    """Parts of a checkpoint; DamagedError for files that cannot be read."""
    try:
        with loops.ending():
            return ocp.load_checkpointables(path, parts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise DamagedError(f"checkpoint {path} cannot be read: {said}") from error


def _is_whole(path: Path) -> bool:
    # Orbax writes this file last; its own test takes an empty folder for a checkpoint
    return (path / "_CHECKPOINT_METADATA").is_file()


def _find(folder: str | Path, step: int, whole: bool = True) -> Path:
    path = Path(folder).absolute() / str(step)
    if not path.is_dir():
        have = ", ".join(map(str, steps_in(folder))) or "none"
        raise CheckpointError(f"{path}: no checkpoint of step {step}; found steps: {have}")
    if not whole:
        return path
    if not _is_whole(path):
        raise CheckpointError(f"{path}: not a checkpoint folder, or one that is not whole")
    parts = _metadata(path)
    missing = [part for part in PARTS if part not in parts]
    if missing:
        raise CheckpointError(
            f"{path}: expected {', '.join(PARTS)}, {missing[0]!r} is missing; this "
            f"checkpoint was written by another program"
        )
    unread = [part for part in PARTS if parts[part] is None]
    if unread:
        raise DamagedError(f"checkpoint {path} cannot be read: {unread[0]}")
    return path


def _metadata(path: Path) -> Any:
    try:
        with loops.ending():
            return ocp.checkpointables_metadata(path).metadata
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise DamagedError(f"checkpoint {path} cannot be read: {said}") from error


def _check_shapes(path: Path, abstract_state: Any, whole: bool) -> None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(key, simple=True, separator="/"): tuple(leaf.shape)
            for key, leaf in leaves
        }

    found = shapes(_metadata(path)["state"])
    expected = shapes(abstract_state)
    for name in sorted(found.keys() | expected.keys() if whole else expected):
        if found.get(name) != expected.get(name):
            raise CheckpointError(
                f"{path}: {name} has shape {found.get(name)}, the config asks for "
                f"{expected.get(name)}; resume with the config the run began with"
            )
