"""A run's model, read back; `stepcoder sample RUN` shows its programs."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax

from stepcoder_jax import fgo, report, rewards, sharding, sources
from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.generated import Split
from stepcoder_jax.evaluate import whole_tasks
from stepcoder_jax.execution import PoolSettings, open_pool
from stepcoder_jax.generate import Coder, complete_greedily
from stepcoder_jax.records import Problem
from stepcoder_jax.run_folder import RunFolder
from stepcoder_jax.sft_folder import SFTFolder
from stepcoder_jax.steps import Steps


class Restored(NamedTuple):
    """A run's model, read back; a run is one of `stepcoder train` or of `stepcoder sft`."""

    config: Config
    tokenizer: Any
    steps: Steps
    actor: Any
    # None for the model that the run began with, for those of SFT and of GRPO
    critic: Any
    label: str  # what it is, for people


def restore(name: str, step: int | None, before: bool) -> Restored:
    """The model of a run's checkpoint.

    Without `step` it is the best by validation, else the newest; `before` takes the policy
    that the run began with.
    """
    folder = open_folder(name)
    config = Config.from_dict(folder.read_config())
    if isinstance(folder, SFTFolder):
        return restore_sft(folder, config, step, before)
    config.model.checkpoint = config.model.tokenizer = str(folder.reference)
    tokenizer = sources.load_tokenizer(config.model)
    mesh = sharding.make_mesh(config.mesh, jax.devices())
    steps = Steps(config, mesh, sources.eos_ids(config.model, tokenizer))
    if before:
        actor = sources.load_reference(folder.reference, steps.actor_shardings)
        return Restored(config, tokenizer, steps, steps.adapt(actor), None, "reference")
    best = step is None and folder.latest(best=True) is not None
    chosen = folder.latest(best) if step is None else step
    if chosen is None:
        raise ConfigError(f"RUN: {name} has no checkpoint yet; add --before, or wait")
    actor, critic = folder.restore_networks(chosen, steps.abstract_state, best)
    label = f"iteration {chosen}{' (best)' if best else ''}"
    return Restored(config, tokenizer, steps, actor, critic, label)


def open_folder(name: str) -> RunFolder | SFTFolder:
    """The folder of a run, by what is in it."""
    folder = SFTFolder(name)
    return folder if folder.config_file.is_file() else RunFolder(name)


def restore_sft(
    folder: SFTFolder, config: Config, step: int | None, before: bool
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
    mesh = sharding.make_mesh(config.mesh, jax.devices())
    steps = Steps(config, mesh, sources.eos_ids(config.model, tokenizer))
    actor = sources.load_reference(path, steps.actor_shardings)
    return Restored(config, tokenizer, steps, actor, None, label)


@contextlib.contextmanager
def opened(
    name: str,
    step: int | None,
    before: bool,
    coverage: Literal["none", "statement"] = "statement",
) -> Iterator[tuple[Config, Coder, Any, str]]:
    """A run's config, its coder, the actor that `restore` finds, and what that is."""
    found = restore(name, step, before)
    settings = PoolSettings(**vars(found.config.execution), coverage=coverage)
    with open_pool(settings) as pool:
        coder = Coder.make(found.config, found.steps, pool, found.tokenizer)
        yield found.config, coder, found.actor, found.label


def pick(name: str, config: Config, split: Split, count: int | None) -> list[Problem]:
    """The first `count` problems of a split (None: all), with the run's CPU limits."""
    problems = sources.load_problems(config.data, split)[:count]
    if not problems:
        raise ConfigError(
            f"data.{split}: the run has no {split} problems; name a file there"
        )
    return sources.limit_cpu(problems, config, split, open_folder(name).limits_file)


def pick_file(file: str, config: Config) -> list[Problem]:
    """The problems of a file that is not the run's own, with limits from beside it."""
    data = dataclasses.replace(config.data, path=file, test=file)
    problems = sources.load_problems(data, "test")
    return sources.limit_cpu(
        problems, dataclasses.replace(config, data=data), "test", kept=None
    )


def sample_run(name: str, split: Split, step: int | None, before: bool, count: int) -> int:
    """Show greedy programs: what ran, what did not, verdict and reward."""
    ansi = report.wants_colour(sys.stdout)
    with opened(name, step, before) as (config, coder, actor, label):
        tasks = whole_tasks(pick(name, config, split, count))
        results = complete_greedily(coder, actor, tasks, split)
    print(f"{name}, {label}, greedy")
    for program, judged in zip(results.programs, results.reports, strict=True):
        kept = fgo.byte_mask(program.source, judged, config.fgo.keep_uncompiled)
        reward = rewards.outcome_reward(judged, config.reward)
        print(f"\n{program.problem.id}: {program.problem.statement.strip()}")
        print(report.show(program, judged, kept, reward, ansi))
    return 0
