"""Where a run's tokenizer, weights and problems come from, by the names in its config."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepcoder_jax.config import (
    Config,
    ConfigError,
    DataConfig,
    ExecutionConfig,
    ModelConfig,
)
from stepcoder_jax.config.paths import SHIPPED, has_problems, meant
from stepcoder_jax.data.generated import tiers
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.data.problems import digest, read_any
from stepcoder_jax.devices import sharding
from stepcoder_jax.execution import PoolSettings, limits, open_pool
from stepcoder_jax.feedback import prompts
from stepcoder_jax.models import hf_config, hf_folder, policy, weights
from stepcoder_jax.models.hf_config import checkpoint_folder
from stepcoder_jax.progress import CountProgress
from stepcoder_jax.records import Problem, Task, order_difficulties
from stepcoder_jax.runs.disk import model_folder
from stepcoder_jax.runs.disk.visible import leave_out_wrong
from stepcoder_jax.runs.shares import dealing
from stepcoder_jax.runs.shares.cores import pool_settings

_MOST_NAMED = 20


def load_tokenizer(config: ModelConfig) -> Any:
    """The fast tokenizer of `model.tokenizer`, or else of `model.checkpoint`."""
    name = config.tokenizer or config.checkpoint
    if not name:
        raise ConfigError(
            "model.tokenizer: expected a tokenizer folder or 'builtin', since "
            "model.checkpoint is empty; set --model.tokenizer"
        )
    folder = checkpoint_folder(name)
    model_folder.check_tokenizer(folder)
    hf_folder.require_tokenizer("model.tokenizer", folder)
    # it would ask for PyTorch, which nothing here needs
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise ConfigError(
            f"model.tokenizer: expected a fast tokenizer in {folder}, got the slow "
            f"{type(tokenizer).__name__}; convert it to a tokenizer.json"
        )
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model.tokenizer: {folder} has no eos_token; add one to it")
    return tokenizer


def eos_ids(config: ModelConfig, tokenizer: Any) -> tuple[int, ...]:
    """All ids that end a completion: the tokenizer's own, then the checkpoint's others.

    Those of generation_config.json, if the tokenizer is the checkpoint's; a chat model has
    more than one.
    """
    said: Any = None
    if config.checkpoint and config.tokenizer in ("", config.checkpoint):
        path = checkpoint_folder(config.checkpoint) / "generation_config.json"
        try:
            if path.is_file():
                said = json.loads(path.read_text()).get("eos_token_id")
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"model.checkpoint: {path} is not JSON ({error})") from error
    others = said if isinstance(said, list) else [said]
    known = [x for x in others if isinstance(x, int) and 0 <= x < len(tokenizer)]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *known]))


def resolve_model(config: ModelConfig, vocab_size: int) -> ModelConfig:
    """The model's shape: the checkpoint's where there is one, else the config's own.

    `vocab_size` is the number of the tokenizer's tokens. Random weights get a vocabulary
    that holds them, padded to a multiple of 64. Raises ConfigError for a checkpoint whose
    vocabulary does not, and for an attention that this machine cannot compute.
    """
    backend, needed = jax.default_backend(), {"cudnn": "gpu", "splash": "tpu"}
    if needed.get(config.attention, backend) != backend:
        raise ConfigError(
            f"model.attention: {config.attention} needs a "
            f"{needed[config.attention].upper()}, this process runs on {backend}; set "
            "--model.attention xla"
        )
    if not config.checkpoint:
        return dataclasses.replace(config, vocab_size=-(-vocab_size // 64) * 64)
    folder = checkpoint_folder(config.checkpoint)
    shape = hf_config.read_shape(folder)
    if shape["vocab_size"] < vocab_size:
        raise ConfigError(
            f"model.tokenizer: has {vocab_size} tokens, the model in {folder} knows only "
            f"{shape['vocab_size']}; set --model.tokenizer to the one that belongs to it"
        )
    return dataclasses.replace(config, **shape)


def load_actor(config: ModelConfig, seed: int) -> Any:
    """Actor parameters in float32: the checkpoint's, or random ones from the seed."""
    if not config.checkpoint:
        return policy.init_params(config, jax.random.key(seed))
    return load_reference(checkpoint_folder(config.checkpoint))


def save_actor(config: ModelConfig, seed: int, folder: Path) -> None:
    """Write what `load_actor` loads to `folder` in bfloat16, without holding it whole."""
    if config.checkpoint:
        source = checkpoint_folder(config.checkpoint)
        model_folder.check_all(source)
        weights.copy_checkpoint(source, folder, "bfloat16")
    else:
        weights.save_checkpoint(folder, config, load_actor(config, seed), "bfloat16")


def load_reference(folder: Path, shardings: Any = None) -> Any:
    """A model folder's weights in float32: placed as `shardings` says, else numpy.

    Raises DamagedError where they are not those that were written.
    """
    model_folder.check_weights(folder)
    return weights.load_checkpoint(folder, jnp.float32, shardings)[1]


def split_file(config: DataConfig, split: Split) -> str:
    """The problem file of a split, where `data.path` is a file; "" where it has none."""
    paths = {"validation": config.validation, "test": config.test}
    return paths.get(split, config.path)


def require_validation(config: Config) -> None:
    """Refuse a run that is to validate itself and has no problems for it."""
    is_file = config.data.path not in SHIPPED
    evaluation = config.evaluation
    if evaluation.has_validation and is_file and not split_file(config.data, "validation"):
        field = "evaluation.every" if evaluation.every else "evaluation.every_tokens"
        raise ConfigError(
            f"{field}: the run has no validation problems; name a file with "
            f"--data.validation, or set --{field} 0"
        )


def load_problems(
    config: DataConfig,
    split: Split,
    execution: ExecutionConfig | None = None,
    visible: bool = False,
) -> list[Problem]:
    """The problems of a split; complaints about bad rows go to standard error.

    The generated benchmark has all splits. Of files, `data.path` is the train split and
    `data.validation` and `data.test` are the others; a split without a file is empty.
    Canonical solutions that must tell what is expected run as `execution` says; and with
    `visible`, to find the visible tests that are wrong, which are left out.
    """
    if config.path in tiers.TIERS:
        return tiers.load(config.path, split)
    path = split_file(config, split)
    if not path:
        return []
    if not has_problems(path) and (near := meant(path)):
        raise ConfigError(f"{path} does not exist; {near}That is a tier of our benchmark")
    settings = pool_settings(execution or ExecutionConfig())
    problems, complaints = read_any(path, strict=config.strict, settings=settings)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if complaints:
        print(f"{path}: left out {len(complaints)} bad rows of it", file=sys.stderr)
    if not problems:
        raise ConfigError(f"data.{split}: {path} holds no usable problem")
    return leave_out_wrong(problems, settings) if visible else problems


def load_pool(
    config: DataConfig,
    split: Split,
    execution: ExecutionConfig | None = None,
    visible: bool = False,
) -> list[Problem]:
    """The problems to learn from: the first `data.pool_size` of a split, or all of it.

    With `data.difficulties` of those alone.
    """
    problems = load_problems(config, split, execution, visible)
    if wanted := config.difficulties:
        found = order_difficulties(problem.difficulty for problem in problems)
        problems = [problem for problem in problems if problem.difficulty in wanted]
        if missing := [name for name in wanted if name not in found]:
            raise ConfigError(
                f"data.difficulties: expected some of {', '.join(found) or 'none'}, which "
                f"{config.path} has, got {', '.join(map(repr, missing))}"
            )
    return problems[: config.pool_size] if config.pool_size else problems


def leave_out_long(
    tasks: Sequence[Task], tokenizer: Any, config: Config, flag: str
) -> list[str]:
    """The ids of the problems that no prompt is made of, for one of theirs is too long.

    They are named on standard error; ConfigError where data.strict, and where all are.
    `flag` is what sets prompt.max_prompt_length.
    """
    found = prompts.lengths_over(tasks, tokenizer, config.prompt)
    if not found:
        return []
    total, most = len({task.problem.id for task in tasks}), config.prompt.max_prompt_length
    named = [
        f"{name} ({size} tokens{f' at stage {stage}' * (stage > 0)})"
        for name, (size, stage) in found.items()
    ]
    more = f" and {len(named) - _MOST_NAMED} more" * (len(named) > _MOST_NAMED)
    said = (
        f"{len(found)} of {total} problems have prompts of more than {most} tokens "
        f"({flag}): {', '.join(named[:_MOST_NAMED])}{more}"
    )
    if config.data.strict or len(found) == total:
        raise ConfigError(f"{said}; raise {flag}")
    if jax.process_index() == 0:
        print(f"left out: {said}", file=sys.stderr)
    return list(found)


def limit_cpu(
    problems: list[Problem], config: Config, split: Split, kept: Path | None
) -> list[Problem]:
    """The problems with `cpu_seconds` set, as their reference solutions need.

    Limits are taken from the run's own file `kept`, else from beside the problem file,
    else measured, a share by each host, and stored in both. A problem whose reference
    solution fails, or that has none, keeps its own or the default. The generated problems
    bring theirs, the smallest limit: lists are so short that every solution ends within
    milliseconds.
    """
    if config.data.path in SHIPPED or not problems:
        return problems
    file = split_file(config.data, split)
    each = {problem.id: problem for problem in problems}
    seconds = np.full(len(each), np.nan)  # nan: unknown; 0: the default
    stored = _Stored(file, kept)

    def read() -> None:
        known = stored.read()
        seconds[:] = [(known[x] or 0) if x in known else np.nan for x in each]

    sharding.on_first(read)
    limits_of = dict(zip(each, sharding.from_first(seconds).tolist()))
    missing = [x for x in each.values() if x.solution and np.isnan(limits_of[x.id])]
    if missing:
        settings = pool_settings(config.execution)
        measured = dealing.deal(missing, lambda ours: _measure(ours, settings), float)
        found = dict(zip((x.id for x in missing), measured.tolist()))
        _name_failed(found, settings.cpu_seconds)
        limits_of |= found
        stored.known |= {name: limit or None for name, limit in found.items()}
    sharding.on_first(lambda: stored.write(is_new=bool(missing)))
    return [
        dataclasses.replace(problem, cpu_seconds=limit or problem.cpu_seconds)
        for problem in problems
        for limit in [np.nan_to_num(limits_of[problem.id]).item()]
    ]


class _Stored:
    """The limits of a problem file as they are kept: beside it, and in a run."""

    def __init__(self, file: str, kept: Path | None) -> None:
        self.file, self.kept, self.beside = file, kept, limits.side_file(file)
        self.own: limits.Limits | None = None
        self.known: limits.Limits = {}

    def read(self) -> limits.Limits:
        known_as = digest(self.file)
        stored = limits.read_limits(self.beside, known_as)
        if stored is None and self.beside.exists():
            print(
                f"{self.beside}: made for another version of {self.file}; not used",
                file=sys.stderr,
            )
        self.own = limits.read_limits(self.kept, known_as) if self.kept else None
        self.known = {**(stored or {}), **(self.own or {})}
        return self.known

    def write(self, is_new: bool) -> None:
        known_as = digest(self.file)
        if is_new:
            _store(self.beside, known_as, self.known)
        if self.kept and self.known != self.own:
            _store(self.kept, known_as, self.known)


def _measure(problems: Sequence[Problem], settings: PoolSettings) -> list[float]:
    """The limit of each problem by its reference solution, 0 where that fails."""
    plain = dataclasses.replace(settings, coverage="none", tests="early_exit")
    with (
        open_pool(plain) as pool,
        CountProgress(len(problems), "problem", "CPU limits") as bar,
    ):
        found = limits.measure_limits(pool, problems, bar.update)
    return [found[problem.id] or 0.0 for problem in problems]


def _name_failed(found: Mapping[str, float], default: float) -> None:
    failed = [name for name, seconds in found.items() if not seconds]
    if failed and jax.process_index() == 0:
        print(
            f"{len(failed)} reference solutions fail, so their problems have the default "
            f"CPU limit of {default:g} s: {', '.join(failed)}",
            file=sys.stderr,
        )


def _store(path: Path, digest: str, known: limits.Limits) -> None:
    try:
        limits.write_limits(path, digest, known)
    except OSError as error:
        print(f"{path}: CPU limits not kept ({error.strerror})", file=sys.stderr)
