"""The folder of an SFT run; once it is over, a Hugging Face folder itself.

sft.json              the resolved config and the versions; beside it the tokenizer
checkpoints/STEP/     Hugging Face folders; checkpoints/best/STEP is the best by validation
resume/STEP/          all that a resume needs, while the run is not over
config.json, model*.safetensors     the model at the end
metrics.jsonl, events/, curves.png, after.json, limits.json     as in a run of RL
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from stepcoder_jax.config import ConfigError, ModelConfig, SamplingConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.models import lora, weights
from stepcoder_jax.pytrees import TextState
from stepcoder_jax.results.summary import Graded
from stepcoder_jax.runs.disk import checkpoint, model_folder, sources
from stepcoder_jax.runs.disk.checkpoint import Saved
from stepcoder_jax.runs.disk.run_folder import Folder, put_aside, tell
from stepcoder_jax.runs.disk.seals import DamagedError

Finish = Callable[[], None]


def _nothing() -> None:
    """What there is to write on a host that writes nothing."""


class SFTFolder(Folder):
    """The folder of one run of `stepcoder sft`."""

    config_name = "sft.json"

    def __init__(self, path: str | Path):
        super().__init__(path)
        self.best = self.checkpoints / "best"
        self.states = self.path / "resume"

    def check(self, resume: bool) -> None:
        """Refuse a folder that cannot be begun in, or gone on in, before any work."""
        if not resume:
            self.check_new()
            return
        self.read_config()
        if self.is_over:
            raise ConfigError(
                f"run.folder: the run in {self.path} is over; leave out --run.resume, and "
                "choose another --run.folder for a new one"
            )

    def save_tokenizer(self, tokenizer: Any) -> None:
        """Keep the tokenizer that the run is started with."""
        self.at_start += model_folder.save_tokenizer(self.path, tokenizer)

    def tokenizer(self) -> Any:
        """The tokenizer that the run here was started with."""
        return sources.load_tokenizer(ModelConfig(tokenizer=str(self.path)))

    def save_state(self, saved: Saved[TextState], finish: Finish = _nothing) -> None:
        """Begin to keep what a resume needs, and what was kept before it.

        `finish` is done first. `saver` writes it all, and says when it is there.
        """

        def begin() -> Callable[[], None]:
            end = checkpoint.begin(self.states, int(saved.state.step), saved, keep=2)

            def write() -> None:
                finish()
                end()

            return write

        self.saver.start(begin)

    def restore_state(
        self, abstract_state: TextState, step: int | None
    ) -> Saved[TextState] | None:
        """What `save_state` kept, bit for bit; None where it kept nothing.

        Without `step` the newest that is as it was written; what is not is named.
        """
        saved, complaints = checkpoint.restore_newest(self.states, abstract_state, step)
        tell(complaints)
        if saved is not None:
            place = int(saved.state.step)
            sharding.on_first(lambda: put_aside(self.states, place))
        return saved

    def begin_model(self, step: int, model: Model, keep: int, best: bool) -> Finish:
        """Copy the model of update `step`; what is returned makes a Hugging Face folder.

        It drops older ones: `keep` of them stay, of the best ones the newest. A folder
        appears under its name once it is whole.
        """
        checkpoint.check_finite(model.params, f"the model of update {step}")
        root = self.best if best else self.checkpoints
        path = root / str(step)
        part = path.with_suffix(".part")
        keep = 1 if best else keep
        gathered = model.gather()
        if jax.process_index():
            return _nothing
        # the run's own must not be read by two threads at once
        gathered = gathered._replace(tokenizer=copy.deepcopy(model.tokenizer))

        def write() -> None:
            for former in (part, path):
                shutil.rmtree(former, ignore_errors=True)
            gathered.save(part)
            part.rename(path)
            for old in models_in(root)[:-keep] if keep else models_in(root):
                shutil.rmtree(root / str(old))

        return write

    def save_best(self, step: int, model: Model) -> None:
        """Begin to keep the best model so far; `saver` writes it."""
        self.saver.start(lambda: self.begin_model(step, model, keep=1, best=True))

    def find_model(self, step: int | None) -> tuple[Path, str]:
        """A model's folder, and what it is: of `step`, else the best, else the last.

        Without `step` one that is damaged is named and passed over.
        """
        if step is not None:
            if step not in models_in(self.checkpoints):
                have = ", ".join(map(str, models_in(self.checkpoints))) or "none"
                raise ConfigError(
                    f"--step: {self.checkpoints} has no step {step}; found steps: {have}"
                )
            return self.checkpoints / str(step), f"update {step}"
        complaints: list[str] = []
        for path, label in self._models():
            if damage := model_folder.find_damage(path):
                complaints.append(f"model folder {path} is damaged: {damage}")
                continue
            tell(complaints)
            return path, label
        if complaints:
            raise DamagedError(f"{'; '.join(complaints)}; no other model was kept")
        raise ConfigError(f"RUN: {self.path} has no model yet; wait")

    def _models(self) -> Iterator[tuple[Path, str]]:
        """Every model's folder and what it is: the best, the end, the newest first."""
        for step in models_in(self.best)[::-1]:
            yield self.best / str(step), f"update {step} (best)"
        if self.is_over:
            yield self.path, "the end"
        for step in models_in(self.checkpoints)[::-1]:
            yield self.checkpoints / str(step), f"update {step}"

    @property
    def is_over(self) -> bool:
        """Whether the model at the end is there."""
        return (self.path / "config.json").exists() and not self.states.exists()

    def write_end(self, model: Model) -> None:
        """Write the model at the end."""
        checkpoint.check_finite(model.params, "the model at the end")
        gathered = model.gather()
        sharding.on_first(lambda: gathered.save(self.path))

    def finish(self) -> None:
        """Nothing is left to go on with."""
        sharding.on_first(lambda: shutil.rmtree(self.states, ignore_errors=True))

    def write_after(self, rows: Sequence[Graded]) -> None:
        """Keep the verdicts of the model at the end."""
        (self.path / "after.json").write_text(json.dumps(rows) + "\n")


class Model(NamedTuple):
    """A policy on its way to disk."""

    config: ModelConfig
    params: Any  # of the actor
    sampling: SamplingConfig
    eos_ids: tuple[int, ...]
    tokenizer: Any

    def gather(self) -> Model:
        """The same on this host; LoRA's adapters are added to their base."""
        config, params = self.config, self.params
        if config.lora_rank:
            params = lora.merge(config, params)
            config = dataclasses.replace(config, lora_rank=0)
        return self._replace(config=config, params=sharding.to_host(params))

    def save(self, folder: Path) -> None:
        """A Hugging Face folder in bfloat16, of what `gather` returned."""
        weights.save_checkpoint(folder, self.config, self.params, "bfloat16")
        model_folder.write_beside(folder, self.sampling, self.eos_ids, self.tokenizer)


def models_in(root: Path) -> list[int]:
    """Updates with a whole model in `root`, ascending."""
    if not root.is_dir():
        return []
    return sorted(int(path.name) for path in root.iterdir() if path.name.isdecimal())
