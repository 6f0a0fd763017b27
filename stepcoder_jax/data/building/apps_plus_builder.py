"""The TFDS builder `apps_plus`: problem files of any format as an ArrayRecord data set.

From Python `AppsPlus(files={"train": "train.json", ...}, data_dir=...)`, which
`build.build_set` does; from the shell, with `train`, `validation` and `test` files in a
folder (any of them, any format that `read_any` knows, ending in .json, .jsonl or .jsonl.gz;
or folders of APPS problems):

  tfds build stepcoder_jax/data/building/apps_plus_builder.py \\
      --manual_dir FOLDER --data_dir OUT

What a row is says built_set.py, which reads it again. The rows of a split stay in their
file's order; the metadata has the digests of the files, of the rows and of the shards.
Nothing here needs TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from stepcoder_jax.data.formats import own
from stepcoder_jax.data.formats.built_set import TEXTS, to_example
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.problems import digest, read_any
from stepcoder_jax.execution.limits import digest_file
from stepcoder_jax.records import Problem

SPLITS = ("train", "validation", "test")
FORMAT = "array_record"
_SUFFIXES = (".json", ".jsonl", ".jsonl.gz", "")


class AppsPlus(tfds.core.GeneratorBasedBuilder):
    """Programming problems with canonical solutions and unit tests."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put train, validation and test files (any of them; .json, .jsonl or .jsonl.gz, in "
        "any format that `stepcoder data stats` reads) into one folder and give it as "
        "--manual_dir."
    )

    def __init__(
        self,
        *,
        files: Mapping[str, str] | None = None,
        leave_out: Mapping[str, Collection[str]] | None = None,
        strict: bool = False,
        file_format: str | None = None,
        **options: Any,
    ) -> None:
        """`files` by split; without them those of the manual folder.

        `leave_out` has ids by split that are not to be stored. Bad rows are counted in
        the metadata, or with `strict` stop the build.
        """
        self._files = files
        self._leave_out = leave_out or {}
        self._strict = strict
        super().__init__(file_format=file_format or FORMAT, **options)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features: dict[str, Any] = dict.fromkeys(TEXTS, text)
        features |= {"entry_point": text, "mode": text, "cpu_seconds": np.float64}
        features |= {"metadata": text, "visible_tests": text}
        features["tests"] = tfds.features.Sequence({"inputs": text, "expected": text})
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            homepage="https://arxiv.org/abs/2402.01391",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        files = self._files or find_files(Path(dl_manager.manual_dir))
        read = {split: self._read(split, path) for split, path in files.items()}
        return {split: self._generate_examples(rows) for split, rows in read.items()}

    def _read(self, split: str, path: str) -> list[Problem]:
        problems, complaints = read_any(path, strict=self._strict)
        out = set(self._leave_out.get(split, ()))
        kept = [problem for problem in problems if problem.id not in out]
        if not kept:
            raise DataError(f"{split}: {path} has no problem to store")
        self.info.metadata.setdefault("sources", {})[split] = {
            "name": Path(path).name,
            "sha256": digest(path),
            "rows_sha256": digest_rows(kept),
            "bad_rows": [line.removeprefix(f"{path}: ") for line in complaints],
            "left_out": len(problems) - len(kept),
        }
        return kept

    def _generate_examples(self, problems: list[Problem]) -> Iterator[Any]:
        for number, problem in enumerate(problems):
            yield number, to_example(problem)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        shards = sorted(Path(self.data_dir).glob(f"{self.name}-*"))
        self.info.metadata["sha256"] = {shard.name: digest_file(shard) for shard in shards}


def digest_rows(problems: Sequence[Problem]) -> str:
    """SHA-256 of the problems as lines of our own: the same for every build of them.

    The shards' own digests are for finding damage: protobuf orders the fields of a row
    differently from one process to the next.
    """
    total = hashlib.sha256()
    for problem in problems:
        total.update(json.dumps(own.to_row(problem)).encode() + b"\n")
    return total.hexdigest()


def find_files(folder: Path) -> dict[str, str]:
    """The problem files of a folder, by split; DataError for none, or two of one split."""
    found: dict[str, str] = {}
    for split in SPLITS:
        paths = [folder / f"{split}{suffix}" for suffix in _SUFFIXES]
        there = [path for path in paths if path.exists()]
        if len(there) > 1:
            names = " and ".join(path.name for path in there)
            raise DataError(f"{folder}: {names} are both {split}; leave one")
        if there:
            found[split] = str(there[0])
    if not found:
        raise DataError(
            f"{folder}: expected train, validation or test with .json, .jsonl or .jsonl.gz "
            "behind it, found none of them"
        )
    return found
