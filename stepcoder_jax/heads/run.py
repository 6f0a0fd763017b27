"""`stepcoder head RUN --kind outcome`: learn a head from the programs that a run judged.

The head reads the model that the run began with, its reference, which stays as it is; so it
serves every run that begins with the same model.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.devices import digests
from stepcoder_jax.feedback.sft_rows import encoder
from stepcoder_jax.heads import folder, measures, samples
from stepcoder_jax.heads.samples import Sample
from stepcoder_jax.heads.training import Learning, Learnt, learn
from stepcoder_jax.models.heads import Kind
from stepcoder_jax.runs.disk import preflight, sources
from stepcoder_jax.runs.disk.run_folder import RunFolder

_LEAST = 2  # samples that are learnt, and that are held out


def learn_head(name: str, to: str, asked: Learning) -> int:
    """Write the head and print what it is worth on problems that were held out."""
    if asked.epochs < 1:
        raise ConfigError(f"--epochs: expected at least 1, got {asked.epochs}")
    if not 0 < asked.learning_rate < float("inf"):
        raise ConfigError(
            f"--learning-rate: expected more than 0, got {asked.learning_rate}"
        )
    out = Path(to)
    preflight.require_new_folder("--out", out)
    run = RunFolder(name)
    config = run.read_config()
    config.model = dataclasses.replace(
        config.model, checkpoint=str(run.reference), tokenizer=str(run.reference)
    )
    learnt, held_out = _load_samples(run, config, asked.kind)
    reference = sources.load_reference(run.reference)
    trunk = jax.device_put(reference["trunk"])
    found = learn(config.model, trunk, learnt, held_out, asked)
    measured = _measure(found, held_out)
    digest = digests.digest(reference)
    _write(out, folder.Head(asked.kind, asked.pool, found.head, digest, measured))
    print(f"learnt from {len(learnt)} samples; on {len(held_out)} of other problems:")
    for key, value in measured.items():
        print(f"  {key:<18} {value:.4g}")
    print(f"wrote {out}")
    return 0


def _load_samples(
    run: RunFolder, config: Config, kind: Kind
) -> tuple[list[Sample], list[Sample]]:
    """What is learnt and what is held out; ConfigError where there is too little."""
    tokenizer = sources.load_tokenizer(config.model)
    shown = config.prompt.show_visible
    problems = sources.load_pool(config.data, "train", config.execution, shown)
    by_id = {problem.id: problem for problem in problems}
    rows = _read_rollouts(run.path)
    encode = encoder(tokenizer, config)
    found, left_out = samples.read_samples(rows, by_id, encode, kind)
    if left_out:
        print(f"left out: {left_out} programs (invalid, too long, or nothing to compare)")
    learnt, held_out = samples.split(found)
    if min(len(learnt), len(held_out)) < _LEAST:
        raise ConfigError(
            f"RUN: expected {_LEAST} judged programs or more to learn from and of problems "
            f"that are held out, got {len(learnt)} and {len(held_out)} in "
            f"{run.path / 'rollouts'}; let the run go on, or set --run.rollouts_every 1"
        )
    return learnt, held_out


def _read_rollouts(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of all rollouts, in the order of the iterations."""
    files = [file for file in (path / "rollouts").glob("*.jsonl") if file.stem.isdecimal()]
    for file in sorted(files, key=lambda file: int(file.stem)):
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
            if line:
                yield _read_row(line, f"{file}, line {number}")


def _read_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        wanted: dict[str, type] = {"stage": int, "valid": bool}
        wanted |= dict.fromkeys(("problem", "head", "completion", "verdict"), str)
        for key, kind in wanted.items():
            if not isinstance(row[key], kind):
                raise TypeError(key)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"RUN: {where} is no row of rollouts ({type(error).__name__}: {error}); put "
            "the file back, or take it away"
        ) from None
    return row  # type: ignore[no-any-return]


def _measure(found: Learnt, held_out: Sequence[Sample]) -> dict[str, float]:
    labels = [sample.label for sample in held_out]
    groups = [sample.group for sample in held_out]
    return measures.measure(found.chances, labels, groups) | {"loss": min(found.losses)}


def _write(out: Path, head: folder.Head) -> None:
    """The folder appears under its name once it is whole."""
    part = out.with_name(out.name + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        folder.save(part, head)
        part.replace(out)
    except OSError as error:
        raise ConfigError(f"--out: cannot write to {part} ({error.strerror})") from error
