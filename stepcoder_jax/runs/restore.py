"""A model read back, from a run or from a folder of its own, with what it needs to write.

A run knows how its model is prompted and sampled. A Hugging Face folder does not: below a
run (RUN/reference, RUN/checkpoints/STEP of SFT) it is as in that run; else the prompt is
the tokenizer's own chat template where it has one, the statement alone where not, and
prompt and completion share the positions that the model has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from stepcoder_jax.config import Config, ConfigError, ModelConfig
from stepcoder_jax.config.paths import SHIPPED
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.execution import open_pool
from stepcoder_jax.models.hf_config import checkpoint_folder
from stepcoder_jax.records import Problem
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.run_folder import RunFolder
from stepcoder_jax.runs.disk.sft_folder import SFTFolder
from stepcoder_jax.runs.generate import Coder
from stepcoder_jax.runs.greedy import whole_tasks
from stepcoder_jax.runs.shares.cores import pool_settings

_ABOVE = 3  # RUN/checkpoints/best/STEP is so far below its run
PROMPT_FLAG = "--max-prompt-length"


class Asked(NamedTuple):
    """What flags change of a run's config; None leaves it."""

    max_prompt_length: int | None = None
    max_completion_length: int | None = None
    template: Literal["deepseek", "plain", "chat"] | None = None
    strict: bool = False

    def apply(self, config: Config) -> None:
        """Change the config; ConfigError for lengths that the model does not hold.

        What was not given makes room for what was.
        """
        prompt, sampling = config.prompt, config.sampling
        most = config.model.max_positions
        for flag in ("max_prompt_length", "max_completion_length"):
            value = getattr(self, flag)
            if value is not None and not 0 < value < most:
                raise ConfigError(
                    f"--{flag.replace('_', '-')}: expected 1 to {most - 1} tokens (the "
                    f"model has {most} positions for both), got {value}"
                )
        ours, theirs = self.max_prompt_length, self.max_completion_length
        if ours is not None and theirs is not None and ours + theirs > most:
            raise ConfigError(
                f"{PROMPT_FLAG}: {ours} and --max-completion-length {theirs} are more than "
                f"the {most} positions of the model; lower one"
            )
        completion = sampling.max_completion_length
        if theirs is not None:
            completion = theirs
        elif ours is not None:
            completion = min(completion, most - ours)
        sampling.max_completion_length = completion
        prompt.max_prompt_length = ours or min(prompt.max_prompt_length, most - completion)
        prompt.template = self.template or prompt.template
        config.data.strict = config.data.strict or self.strict


class Restored(NamedTuple):
    """A model, read back."""

    config: Config
    tokenizer: Any
    steps: Steps
    actor: Any
    # None for a model folder, the model that a run began with, those of SFT and of GRPO
    critic: Any
    label: str  # what it is, for people


def restore(
    name: str,
    step: int | None,
    before: bool,
    asked: Asked = Asked(),  # noqa: B008
) -> Restored:
    """The model of a run's checkpoint, or of a model folder.

    Without `step` it is the best by validation, else the newest, of those that are as they
    were written; `before` takes the policy that the run began with.
    """
    if is_model(name):
        return restore_model(name, step, before, asked)
    folder = open_folder(name)
    config = folder.read_config()
    if isinstance(folder, SFTFolder):
        return restore_sft(folder, config, step, before, asked)
    asked.apply(config)
    config.model.checkpoint = config.model.tokenizer = str(folder.reference)
    tokenizer = sources.load_tokenizer(config.model)
    mesh = sharding.make_mesh(config.mesh, jax.devices())
    steps = Steps(config, mesh, sources.eos_ids(config.model, tokenizer))
    if before:
        actor = sources.load_reference(folder.reference, steps.actor_shardings)
        return Restored(config, tokenizer, steps, steps.adapt(actor), None, "reference")
    if step is not None:
        found = (*folder.restore_networks(step, steps.abstract_state, False), step, False)
    else:
        newest = folder.newest_networks(steps.abstract_state)
        if newest is None:
            raise ConfigError(f"RUN: {name} has no checkpoint yet; add --before, or wait")
        found = newest
    actor, critic, chosen, best = found
    label = f"iteration {chosen}{' (best)' if best else ''}"
    return Restored(config, tokenizer, steps, actor, critic, label)


def open_folder(name: str) -> RunFolder | SFTFolder:
    """The folder of a run, by what is in it."""
    folder = SFTFolder(name)
    return folder if folder.config_file.is_file() else RunFolder(name)


def is_model(name: str) -> bool:
    """Whether this is a Hugging Face folder, and no run; so is the built-in model."""
    folder = Path(name)
    if not folder.exists():
        return name in SHIPPED
    if SFTFolder(name).config_file.is_file():
        return False
    try:
        tree = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # whoever opens it as a run says what is missing
    return isinstance(tree, dict) and "config" not in tree


def read_config(name: str) -> Config:
    """The config of a run, or the one that a model folder is used with."""
    if not is_model(name):
        return open_folder(name).read_config()
    return config_above(name) or Config(algorithm="grpo")  # which has no critic


def config_above(name: str) -> Config | None:
    """The config of the run that a model folder lies in; None for any other."""
    for folder in checkpoint_folder(name).absolute().parents[:_ABOVE]:
        with contextlib.suppress(ConfigError):
            return open_folder(str(folder)).read_config()
    return None


def restore_model(name: str, step: int | None, before: bool, asked: Asked) -> Restored:
    """As `restore`, of a model folder."""
    if step is not None or before:
        flag = "--before" if before else "--step"
        raise ConfigError(f"{flag}: {name} is a model folder, not a run; leave it out")
    config = read_config(name)
    config.model = ModelConfig(checkpoint=name, dtype=config.model.dtype)
    tokenizer = sources.load_tokenizer(config.model)
    config.model = sources.resolve_model(config.model, len(tokenizer))
    if config_above(name) is None:
        config.prompt.template = "chat" if tokenizer.chat_template else "plain"
        half = config.model.max_positions // 2
        sampling = config.sampling
        sampling.max_completion_length = min(half, sampling.max_completion_length)
    asked.apply(config)
    return _read(config, tokenizer, checkpoint_folder(name), "model folder")


def _read(config: Config, tokenizer: Any, folder: Path, label: str) -> Restored:
    mesh = sharding.make_mesh(config.mesh, jax.devices())
    steps = Steps(config, mesh, sources.eos_ids(config.model, tokenizer))
    actor = sources.load_reference(folder, steps.actor_shardings)
    return Restored(config, tokenizer, steps, actor, None, label)


def restore_sft(
    folder: SFTFolder, config: Config, step: int | None, before: bool, asked: Asked
) -> Restored:
    """As `restore`, of an SFT run, whose models are Hugging Face folders."""
    if before:
        raise ConfigError(
            f"--before: {folder.path} is an SFT run, which keeps no model that it began "
            "with; leave the flag out"
        )
    path, label = folder.find_model(step)
    tokenizer = folder.tokenizer()
    same = str(path)
    model = dataclasses.replace(config.model, checkpoint=same, tokenizer=same, lora_rank=0)
    config.model = sources.resolve_model(model, len(tokenizer))
    asked.apply(config)
    return _read(config, tokenizer, path, label)


@contextlib.contextmanager
def opened(
    name: str,
    step: int | None,
    before: bool,
    coverage: Literal["none", "statement"] = "statement",
    asked: Asked = Asked(),  # noqa: B008
) -> Iterator[tuple[Config, Coder, Any, str]]:
    """A model's config, its coder, the actor that `restore` finds, and what that is."""
    found = restore(name, step, before, asked)
    settings = pool_settings(found.config.execution, coverage=coverage)
    with open_pool(settings) as pool:
        coder = Coder.make(found.config, found.steps, pool, found.tokenizer)
        yield found.config, coder, found.actor, found.label


class Picked(NamedTuple):
    """Problems that a model is asked."""

    problems: list[Problem]
    left_out: list[str]  # ids of those whose prompts are too long
    source: str  # where they are from, for people


def check_problems(name: str, file: str) -> None:
    """Refuse a model without problems, before anything is loaded."""
    if file.isdecimal() and not Path(file).exists():
        raise ConfigError(
            f"--problems: expected a problem file, got {file}; how many are shown is "
            "--count of `stepcoder sample`"
        )
    if not file and is_model(name):
        raise ConfigError(
            f"--problems: {name} is a model folder, which has no problems of its own; give "
            f"a problem file, or a tier of the generated benchmark: {', '.join(SHIPPED)}"
        )


def load_file(config: Config, file: str, split: Split, strict: bool) -> list[Problem]:
    """All problems of a file, or of a split of a tier, with CPU limits.

    Visible tests that are wrong are left out. `strict` refuses bad rows.
    """
    config = _over(config, file)
    config.data.strict = config.data.strict or strict
    problems = sources.load_problems(config.data, split, config.execution, visible=True)
    return sources.limit_cpu(problems, config, split, None)


def _over(config: Config, file: str) -> Config:
    """The config with a file as each of its splits."""
    data = dataclasses.replace(config.data, path=file, validation=file, test=file)
    return dataclasses.replace(config, data=data)


def pick(
    name: str,
    config: Config,
    file: str,
    split: Split,
    count: int | None,
    tokenizer: Any,
    visible: bool = False,
) -> Picked:
    """The first `count` problems (None: all) of a file, or else of the run's split.

    CPU limits are those of the run, or from beside the file. Those whose prompts are too
    long are left out and named, or with data.strict refused. `visible` says that visible
    tests are used: those that are wrong are left out.
    """
    if file:
        config = _over(config, file)
    shown = visible or config.prompt.show_visible
    found = sources.load_problems(config.data, split, config.execution, shown)
    problems = found[:count]
    if not problems:
        raise ConfigError(
            f"data.{split}: the run has no {split} problems; name a file with --problems"
        )
    tasks = whole_tasks(problems)
    left_out = sources.leave_out_long(tasks, tokenizer, config, PROMPT_FLAG)
    problems = [problem for problem in problems if problem.id not in left_out]
    kept = None if file else open_folder(name).limits_file
    limited = sources.limit_cpu(problems, config, split, kept)
    return Picked(limited, left_out, file or split)
