"""Who is told of a run's metrics beside metrics.jsonl: TensorBoard, or Weights & Biases.

`run.track` chooses. metrics.jsonl is always written, for a resume, the report and the
curves read it; "jsonl" is that file alone. Names and steps are the file's. What is no
number there, null included, is left out.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from stepcoder_jax.config import ConfigError

Track = Literal["tensorboard", "wandb", "jsonl"]
# What trackers leave in a run's folder.
EVENTS, WANDB = "events", "wandb"


class Tracker(Protocol):
    """Takes the rows of a run, one after the other."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Tell the metrics of one iteration."""

    def close(self) -> None:
        """Tell what is left."""


def require(track: Track) -> None:
    """Refuse a tracker that could not be opened, before any work is done."""
    if track != "wandb":
        return
    wandb = _import_wandb()
    try:
        wandb.login()  # asks on a terminal; of WANDB_MODE=offline it wants nothing
    except (wandb.errors.Error, OSError) as error:
        raise _refused(error) from error


def open_tracker(
    track: Track, folder: Path, *, start_step: int, about: Mapping[str, Any]
) -> Tracker | None:
    """The tracker of a run in `folder` whose next row is `start_step`; None for jsonl.

    `about` is told once, where the tracker has a place for it: the run's config.
    """
    if track == "tensorboard":
        return TensorBoard(folder, start_step)
    return WeightsAndBiases(folder, about) if track == "wandb" else None


class TensorBoard:
    """Scalars in `FOLDER/events`; those from `start_step` on are taken back first."""

    def __init__(self, folder: Path, start_step: int):
        from tensorboardX import SummaryWriter

        self.events = SummaryWriter(str(folder / EVENTS), purge_step=start_step)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.events.add_scalar(name, value, step)
        self.events.flush()

    def close(self) -> None:
        self.events.close()


class WeightsAndBiases:
    """A run of wandb's project `stepcoder_jax` (WANDB_PROJECT: another), kept in
    `FOLDER/wandb`.

    WANDB_MODE=offline keeps it there alone. A run that goes on has the id of its start, so
    that it is one run to the service, which keeps the row that it had of a step; after an
    end between two checkpoints these rows come again, equal. A service that fails later
    ends no run: it is said once, and no more is told.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        self.wandb = _import_wandb()
        try:
            self.run = self.wandb.init(
                project=os.environ.get("WANDB_PROJECT", "stepcoder_jax"),
                name=folder.name,
                id=_id_of(folder),
                resume="allow",
                dir=folder,
                config=dict(about),
                settings=self.wandb.Settings(console="off"),
            )
        except self.wandb.errors.Error as error:
            raise _refused(error) from error

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        if self.run is None:
            return
        try:
            self.run.log(dict(numbers), step=step)
        except (self.wandb.errors.Error, OSError) as error:
            self._give_up(error)

    def close(self) -> None:
        if self.run is None:
            return
        try:
            self.run.finish()
        except (self.wandb.errors.Error, OSError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.run = None
        said = str(error).partition("\n")[0]
        print(
            f"run.track: wandb is told no more ({said}); metrics.jsonl goes on",
            file=sys.stderr,
        )


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "run.track: wandb is not installed; pip install 'stepcoder_jax[wandb]', or "
            "give --run.track tensorboard or jsonl"
        ) from error
    return wandb


def _refused(error: Exception) -> ConfigError:
    said = str(error).partition("\n")[0]
    return ConfigError(
        f"run.track: wandb does not start ({said}); run `wandb login`, set "
        "WANDB_MODE=offline, or give --run.track tensorboard or jsonl"
    )


def _id_of(folder: Path) -> str:
    """The id that wandb knows this run by, made once and kept beside wandb's own files."""
    path = folder / WANDB / "id"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12] + "\n")
    return path.read_text().strip()
