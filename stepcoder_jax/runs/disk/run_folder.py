"""A run's folder: what it was started with, what it began from, and its checkpoints.

config.json   the resolved config and the versions        reference/  the frozen SFT policy
before.json, after.json   verdicts on test                  checkpoints/STEP, best/STEP
metrics.jsonl, rollouts/STEP.jsonl, events/, curves.png     hosts/N.log of other hosts
limits.json   measured CPU limits of the problems  rewards/    the user's own, if any
heads/        learned heads that it asks, if any
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from stepcoder_jax.config import Config, ConfigError, RunConfig, flatten
from stepcoder_jax.config.paths import meant
from stepcoder_jax.devices import sharding
from stepcoder_jax.feedback import cccs
from stepcoder_jax.feedback.cccs import CurriculumState
from stepcoder_jax.feedback.rewards import own
from stepcoder_jax.models import lora
from stepcoder_jax.pytrees import TrainState
from stepcoder_jax.records import InputError, Verdict
from stepcoder_jax.results.logger import HOSTS, START, to_json
from stepcoder_jax.results.summary import Graded
from stepcoder_jax.runs.disk import checkpoint, model_folder, preflight, sources
from stepcoder_jax.runs.disk.checkpoint import Saved
from stepcoder_jax.runs.disk.interrupt import Stopped
from stepcoder_jax.runs.disk.saver import Saver
from stepcoder_jax.runs.disk.seals import DamagedError
from stepcoder_jax.runs.hosts.channel import at_end
from stepcoder_jax.tracking.trackers import EVENTS, WANDB

BUFFER = "buffer"  # among the arrays of a checkpoint, beside those of the curriculum
PACKAGES = ("stepcoder_jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
# What a resumed run may change: it changes nothing that has been computed.
FREE = (
    *("run.total_steps", "run.total_tokens", "run.resume", "run.step"),
    *("run.folder", "run.save_every", "run.keep", "run.max_empty"),
    *("run.lost_seconds", "run.stall_minutes", "run.walltime"),
    *("run.rollouts_every", "run.track", "run.compilation_cache"),
    "run.join_minutes",
    *("execution.workers", "execution.cache_size", "execution.url"),
    *("mesh.data", "mesh.fsdp", "mesh.tensor", "ppo.kl_warning"),
    "evaluation.beside",
)


def _curriculum_of(arrays: Mapping[str, Any]) -> CurriculumState:
    """The curriculum among a checkpoint's arrays."""
    found = {name: np.asarray(x) for name, x in arrays.items() if name != BUFFER}
    return cccs.from_arrays(found)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def tell(complaints: Sequence[str]) -> None:
    """Name the damaged checkpoints that are passed over, once for all hosts."""
    if jax.process_index() == 0:
        for complaint in complaints:
            print(f"{complaint}; the one before is used", file=sys.stderr)


def put_aside(root: Path, step: int) -> None:
    """Rename the checkpoints in `root` that are later than `step`, and say so."""
    for path in checkpoint.set_aside(root, step):
        print(f"set aside: {path}", file=sys.stderr)


@contextlib.contextmanager
def room(folder: str | Path) -> Iterator[None]:
    """Let a run write in its folder; InputError in one line where the disk is full.

    Metrics, rollouts, verdicts, pictures: a checkpoint says so itself.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in checkpoint.FULL:
            raise
        raise InputError(
            f"{error.filename or folder}: no room ({os.strerror(error.errno)}); the "
            "checkpoints are left as they are; make room, then go on with --run.resume auto"
        ) from None


def _missing(path: Path) -> list[Path]:
    """The folders that are to be made for `path`, itself the first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


class Folder:
    """A folder and the config that was started in it.

    Raises ConfigError rather than overwrite anything.
    """

    config_name: ClassVar[str]

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.config_file = self.path / self.config_name
        self.limits_file = self.path / "limits.json"
        self.saver = Saver()
        self.made: list[Path] | None = None  # folders, by a start of a run; the last first
        self.at_start = [
            "limits.json",
            START,
            "metrics.jsonl",
            EVENTS,
            WANDB,
            HOSTS,
            "config.part",
        ]

    def open(self, config: Config) -> None:
        """Start a run here, or make sure that this config may go on with the one here."""
        if config.run.resume == "yes":
            self.check_config(config)
            return
        self.check_new()
        self.made = _missing(self.path)
        self.start(config)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """What a new run does before its loop: if it fails, nothing of it stays behind."""
        try:
            with at_end(self._undo_start):
                yield
        except Stopped:
            raise
        except BaseException:
            self._undo_start()
            raise

    def _undo_start(self) -> None:
        if self.made is not None:
            self._take_away(self.made)

    def check_config(self, config: Config) -> None:
        """Refuse a config that would not go on with the run here."""
        known = flatten(self.read_config().to_dict())
        # rates that decay do so over run.total_steps
        free = set(FREE) - ({"run.total_steps"} if config.ppo.decays else set())
        for name, value in flatten(config.to_dict()).items():
            if name not in free and known[name] != value:
                raise ConfigError(
                    f"{name}: the run in {self.path} was started with {known[name]!r}, not "
                    f"{value!r}; give the same value, or start another run.folder"
                )

    def settle(self, run: RunConfig) -> None:
        """Make `resume: auto` a yes where a run was begun here, else a no."""
        if run.resume == "auto":
            found = sharding.decided(self.config_file.is_file())
            run.resume = "yes" if found else "no"
        if run.resume == "no" and run.step >= 0:
            raise ConfigError(
                f"run.step: {run.step} is a checkpoint to go on from, and the run is a new "
                "one; add --run.resume, or leave --run.step out"
            )

    def check_new(self) -> None:
        """Refuse a folder that holds anything, or that cannot be made; makes nothing."""
        begun = self.path / "config.part"
        if begun.is_file() and len(list(self.path.iterdir())) == 1:
            begun.unlink()  # all that a start leaves which was killed
        preflight.require_new_folder("run.folder", self.path, preflight.NEW_RUN)

    def start(self, config: Config) -> None:
        """Make the folder, and write what a run is started with."""
        record = {"config": config.to_dict(), "versions": versions()}
        part = self.path / "config.part"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(record, indent=1) + "\n")
            part.rename(self.config_file)
        except OSError as error:
            raise ConfigError(
                f"run.folder: cannot write to {self.path} ({error.strerror}); choose "
                "another --run.folder"
            ) from error

    def _take_away(self, made: list[Path]) -> None:
        """Remove what this start wrote, and the folders that it made for it."""
        for name in (self.config_name, *self.at_start):
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for folder in made:
            with contextlib.suppress(OSError):  # not empty: something else came into it
                folder.rmdir()

    def write_start(self, metrics: dict[str, float]) -> None:
        """Keep the validation metrics before the first update, for the picture."""
        row = {name: to_json(value) for name, value in metrics.items()}
        (self.path / START).write_text(json.dumps(row) + "\n")

    def read_config(self) -> Config:
        """The config that the run here was started with, whatever version started it."""
        try:
            record = json.loads(self.config_file.read_text())
            tree, writers = dict(record["config"]), dict(record.get("versions", {}))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.path} holds no run (no readable {self.config_name}); "
                f"{meant(str(self.path))}check the path; `train` and `sft` start a new run "
                "there without --run.resume"
            ) from error
        by = f"stepcoder_jax {writers.get('stepcoder_jax', 'of an unknown version')}"
        return Config.from_dict(tree, f"{self.config_file} (written by {by})")


class RunFolder(Folder):
    """The folder of one run of `stepcoder train`."""

    config_name = "config.json"

    def __init__(self, path: str | Path):
        super().__init__(path)
        self.at_start += ["reference", "reference.part", "before.json", "rewards", "heads"]
        self.reference = self.path / "reference"
        self.rewards = self.path / "rewards"
        self.heads = self.path / "heads"  # copies of those that the config names
        self.before_file = self.path / "before.json"

    def save_reference(self, config: Config, tokenizer: Any) -> None:
        """Keep the policy that the run begins with, once, as a Hugging Face folder."""
        if self.reference.is_dir():
            return
        part = self.reference.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        sources.save_actor(config.model, config.run.seed, part)
        eos_ids = sources.eos_ids(config.model, tokenizer)
        model_folder.write_beside(part, config.sampling, eos_ids, tokenizer)
        part.rename(self.reference)

    def keep_rewards(self, terms: Sequence[str]) -> None:
        """Copy the files of the user's own rewards; of a run that goes on, compare them."""
        if self.made is None:
            own.check_kept(terms, self.rewards)
        else:
            own.keep(terms, self.rewards)

    def save(
        self,
        state: TrainState,
        curriculum: CurriculumState,
        record: dict[str, Any],
        keep: int,
        best: bool,
        buffer: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin the checkpoint of iteration state.step; beside the latest if `best`.

        `saver` writes it, and says when it is there. With LoRA it has the adapters alone:
        their base is the reference of this folder. `buffer` are the arrays of
        `posing.buffer`, where a run has one.
        """
        state = state._replace(actor=lora.split(state.actor)[0])
        arrays: dict[str, Any] = curriculum._asdict()
        if buffer is not None:
            arrays[BUFFER] = buffer
        place = (self.checkpoints, int(state.step), Saved(state, arrays, record))
        if best:
            self.saver.start(lambda: checkpoint.begin_best(*place))
        else:
            self.saver.start(lambda: checkpoint.begin(*place, keep))

    def restore(
        self, step: int | None, abstract_state: TrainState, best: bool
    ) -> tuple[TrainState, CurriculumState, dict[str, Any]] | None:
        """Read a checkpoint back, bit for bit; None where there is none at all.

        Without `step` the newest that is as it was written; what is not is named.
        """
        folder = self.checkpoints / "best" if best else self.checkpoints
        trained, frozen = lora.split(abstract_state.actor)
        wanted = abstract_state._replace(actor=trained)
        saved, complaints = checkpoint.restore_newest(folder, wanted, step)
        tell(complaints)
        if saved is None:
            return None
        state = saved.state._replace(actor=self._with_base(saved.state.actor, frozen))
        return state, _curriculum_of(saved.arrays), saved.record

    def read_curriculum(self, step: int) -> CurriculumState:
        """The curriculum of a checkpoint, if that is as it was written."""
        checkpoint.check(self.checkpoints, step)
        return _curriculum_of(checkpoint.restore_arrays(self.checkpoints, step))

    def read_buffer(self, step: int) -> dict[str, Any] | None:
        """The arrays of the buffer of a checkpoint; None where it has none."""
        buffer: dict[str, Any] | None
        buffer = checkpoint.restore_arrays(self.checkpoints, step).get(BUFFER)
        return buffer

    def restore_networks(
        self, step: int, abstract_state: TrainState, best: bool
    ) -> tuple[Any, Any]:
        """Only the actor and the critic of a checkpoint, if it is as it was written."""
        folder = self.checkpoints / "best" if best else self.checkpoints
        checkpoint.check(folder, step)
        trained, frozen = lora.split(abstract_state.actor)
        wanted = abstract_state._replace(actor=trained)
        actor, critic = checkpoint.restore_networks(folder, step, wanted)
        return self._with_base(actor, frozen), critic

    def newest_networks(
        self, abstract_state: TrainState
    ) -> tuple[Any, Any, int, bool] | None:
        """Actor and critic of the best checkpoint, else the newest; its step; is it best.

        One that is damaged is named and passed over; DamagedError where no other is left,
        None where there is none at all.
        """
        complaints: list[str] = []
        for best, folder in ((True, self.checkpoints / "best"), (False, self.checkpoints)):
            for step in checkpoint.numbered(folder)[::-1]:
                try:
                    networks = self.restore_networks(step, abstract_state, best)
                except DamagedError as error:
                    complaints.append(str(error))
                    continue
                tell(complaints)
                return *networks, step, best
        if complaints:
            raise DamagedError(
                f"{'; '.join(complaints)}; no other checkpoint was kept: --before takes "
                "the policy that the run began with"
            )
        return None

    def _with_base(self, trained: Any, frozen: Any) -> Any:
        """What a checkpoint holds of the actor, and the base that it was trained on."""
        if not frozen:
            return trained
        places = jax.tree.map(lambda x: x.sharding, frozen)
        return lora.graft(sources.load_reference(self.reference, places), trained)

    def set_later_aside(self, step: int, best: bool) -> None:
        """Let checkpoints after `step`, from which the run goes on, be none any more.

        Those of `best` too where somebody chose the step; else they come again, equal.
        """
        sharding.on_first(lambda: put_aside(self.checkpoints, step))
        if best:
            sharding.on_first(lambda: put_aside(self.checkpoints / "best", step))

    def latest(self, best: bool) -> int | None:
        """Iteration of the newest (or the best) checkpoint, None where there is none."""
        folder = self.checkpoints / "best" if best else self.checkpoints
        return checkpoint.latest_step(folder)

    def write_before(self, rows: Sequence[Graded]) -> None:
        """Keep the verdicts before the first iteration, for the closing summary."""
        self.before_file.write_text(json.dumps(rows) + "\n")

    def write_after(self, rows: Sequence[Graded]) -> None:
        """Keep the verdicts of the run's best model."""
        (self.path / "after.json").write_text(json.dumps(rows) + "\n")

    def read_before(self) -> list[Graded]:
        """The verdicts that `write_before` kept; empty where it kept none."""
        if not self.before_file.exists():
            return []
        rows = json.loads(self.before_file.read_text())
        return [Graded(name, level, Verdict(verdict)) for name, level, verdict in rows]
