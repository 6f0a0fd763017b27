"""The folder of `stepcoder refine`: two files of rows, and how far they are.

refine.json    what was asked for; a resume must ask for the same
wrong.jsonl    the wrong programs, as rows of results (`--wrong` takes it), with feedback
records.jsonl  the records
state.json     how many items of each stage are done, and where their rows end

Rows are on disk before the state says so, and the state is replaced whole; what a kill
leaves behind it is cut off by the resume.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcoder_jax.config import ConfigError
from stepcoder_jax.data.formats.rows import require_object, stream_lines
from stepcoder_jax.data.refinements import Wrong, read_feedback
from stepcoder_jax.devices import sharding
from stepcoder_jax.records import Attempt
from stepcoder_jax.runs.disk import preflight
from stepcoder_jax.runs.disk.run_folder import versions
from stepcoder_jax.strategies.mending import Fate

_RESUME = "add --resume to go on with what was begun in it, or give another folder"


@dataclasses.dataclass
class Stage:
    """How far a stage is."""

    name: str  # of its file
    done: int = 0  # items
    total: int = -1  # of them; -1: not begun
    size: int = 0  # bytes of the file that are whole
    model: str = ""  # who wrote
    fates: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    infra: list[str] = dataclasses.field(
        default_factory=list
    )  # names of what had no verdict

    @property
    def is_whole(self) -> bool:
        return self.done == self.total

    def tell(self, what: str) -> str:
        """How far it is, and what became of its items, in words."""
        parts = [f"{self.fates[fate]} {fate}" for fate in Fate if self.fates[fate]]
        return f"{self.fates.total()} {what}: {', '.join(parts) or 'none'}"

    def count(self, fate: Fate, name: str) -> None:
        self.fates[fate] += 1
        if fate is Fate.INFRA:
            self.infra.append(name)


class Folder:
    """Where records go."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.asked_file = self.path / "refine.json"
        self.state_file = self.path / "state.json"
        self.drawn, self.answered = Stage("wrong.jsonl"), Stage("records.jsonl")

    @property
    def stages(self) -> tuple[Stage, Stage]:
        return self.drawn, self.answered

    def file(self, stage: Stage) -> Path:
        return self.path / stage.name

    def take_up(self, asked: Mapping[str, Any], resume: bool) -> None:
        """Go on where the folder was left, or find that one can begin in it.

        Makes nothing. ConfigError for a folder that holds anything else, and for one that
        was begun with other flags.
        """
        if resume and sharding.decided(self.asked_file.is_file()):
            self._require_same(asked)
            self._read_state()
            return
        begun = self.path / "refine.part"
        if begun.is_file() and len(list(self.path.iterdir())) == 1:
            begun.unlink()  # all that a start leaves which was killed
        preflight.require_new_folder("--out", self.path, _RESUME)

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Make the folder, unless it was taken up."""
        sharding.on_first(lambda: self._make(asked))

    def _make(self, asked: Mapping[str, Any]) -> None:
        if self.asked_file.is_file():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _replace(self.asked_file, {"asked": dict(asked), "versions": versions()})
        except OSError as error:
            raise ConfigError(
                f"--out: {self.path}: cannot be written ({error.strerror})"
            ) from error

    def keep(self, stage: Stage, rows: Sequence[Mapping[str, Any]], done: int) -> None:
        """Append the rows of a window, after which so many items are done."""
        stage.done = done
        sharding.on_first(lambda: self._write(stage, rows))

    def _write(self, stage: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        with self.file(stage).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
            stage.size = file.tell()
        _replace(self.state_file, {x.name: vars(x) for x in self.stages})

    def require_model(self, stage: Stage, label: str, flag: str) -> None:
        """Refuse to go on with another model than the one that wrote the first rows."""
        if stage.model and stage.model != label:
            raise ConfigError(
                f"{flag}: {self.file(stage)} was begun by {stage.model!r}, now it is "
                f"{label!r}; give the former with --step, or another --out"
            )
        stage.model = label

    def wrong(self) -> Iterator[tuple[Wrong, Attempt, str]]:
        """Each wrong program, what its model reads of it, and who wrote it."""
        for row in stream_lines(str(self.file(self.drawn)), "wrong programs"):
            fields = require_object(row)
            attempt = read_feedback(fields["feedback"], fields["solution"])
            wrong = Wrong(fields["wrong_id"], fields["task_id"], fields["solution"])
            yield wrong, attempt, fields["source"]

    def _require_same(self, asked: Mapping[str, Any]) -> None:
        try:
            known = json.loads(self.asked_file.read_text(encoding="utf-8"))["asked"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--out: {self.asked_file} cannot be read ({error}); give another folder"
            ) from error
        for name, value in json.loads(json.dumps(asked)).items():
            if known.get(name) != value:
                raise ConfigError(
                    f"--{name}: what is in {self.path} was begun with "
                    f"{known.get(name)!r}, not {value!r}; give the same, or another --out "
                    f"(--wrong {self.file(self.drawn)} takes what was drawn)"
                )

    def _read_state(self) -> None:
        """Take up what is done, and cut off what a kill left behind it."""
        if self.state_file.is_file():
            tree = json.loads(self.state_file.read_text(encoding="utf-8"))
            for stage in self.stages:
                for name, value in tree[stage.name].items():
                    setattr(stage, name, value)
                stage.fates = collections.Counter(stage.fates)
        sharding.on_first(self._cut)

    def _cut(self) -> None:
        for stage in self.stages:
            file = self.file(stage)
            size = file.stat().st_size if file.is_file() else 0
            if size < stage.size:
                raise ConfigError(
                    f"--out: {file} has {size} bytes, and {self.state_file.name} says "
                    f"{stage.size}: somebody cut it; give another folder"
                )
            if size:
                os.truncate(file, stage.size)


def _replace(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a file that is there whole or as it was."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(tree, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
