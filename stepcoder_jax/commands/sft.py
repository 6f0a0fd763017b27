"""Supervised fine-tuning: `stepcoder sft EXPERIMENT` makes the policy that RL starts from.

It learns canonical solutions, or with sft.samples what a model wrote and the judge passed
(`raft`), and with sft.records how programs that failed are mended (`lessons`). The update
is that of `learning.sft`; `sft_rows` makes the batches, `sft_run` holds the state,
`sft_folder` the files.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging as orbax_logging

from stepcoder_jax.config import Config, ConfigError, ModelConfig
from stepcoder_jax.data import tokenizer as bpe
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.devices import joining, sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.execution import open_pool
from stepcoder_jax.feedback import sft_rows, turns
from stepcoder_jax.feedback.sft_rows import Example
from stepcoder_jax.planning import dividing
from stepcoder_jax.progress import StepProgress, describe_update
from stepcoder_jax.records import Problem
from stepcoder_jax.results.drawing import curves
from stepcoder_jax.results.logger import METRICS, HostLog, Logger, open_log, to_json
from stepcoder_jax.runs import raft
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.common import require_same_level
from stepcoder_jax.runs.disk.interrupt import Interrupt, Stopped
from stepcoder_jax.runs.disk.run_folder import room
from stepcoder_jax.runs.disk.sft_folder import SFTFolder
from stepcoder_jax.runs.generate import Coder
from stepcoder_jax.runs.greedy import scores, whole_tasks
from stepcoder_jax.runs.refining import lessons
from stepcoder_jax.runs.sft_run import Judging, Run
from stepcoder_jax.runs.shares.cores import pool_settings
from stepcoder_jax.tracking import trackers


@contextlib.contextmanager
def judging(config: Config, tokenizer: Any, folder: SFTFolder) -> Iterator[Judging | None]:
    """A pool and a sampler, where the run evaluates at all."""
    if not config.evaluation.every and not config.evaluation.test_problems:
        yield None
        return

    @functools.cache
    def find(split: Split, count: int) -> list[Problem]:
        shown = config.prompt.show_visible
        found = sources.load_problems(config.data, split, config.execution, shown)
        problems = found[:count]
        flag = "--prompt.max_prompt_length"
        out = sources.leave_out_long(whole_tasks(problems), tokenizer, config, flag)
        problems = [problem for problem in problems if problem.id not in out]
        return sources.limit_cpu(problems, config, split, folder.limits_file)

    sources.require_validation(config)
    mesh = sharding.make_mesh(config.mesh, jax.devices())
    with dividing.told(config, mesh.size):
        steps = Steps(config, mesh, sources.eos_ids(config.model, tokenizer))
    with open_pool(pool_settings(config.execution, coverage="none")) as pool:
        require_same_level(pool)
        yield Judging(Coder.make(config, steps, pool, tokenizer), find)


def learn(run: Run, logger: Logger | HostLog, interrupt: Interrupt) -> None:
    """Update until the last step; raises Stopped where a signal ends it before."""
    groups = run.groups()
    with StepProgress(run.num_steps, "update", first=run.next_row) as progress:
        if run.pending is not None:
            progress.update(describe_update(conclude(run, logger, run.pending)))
        while not run.is_over:
            interrupt.check()
            epoch, group = next(groups)
            metrics = run.update(group)
            row = conclude(run, logger, {"epoch": epoch, **metrics})
            progress.update(describe_update(row))


def conclude(run: Run, logger: Logger | HostLog, row: dict[str, Any]) -> dict[str, Any]:
    """Validate, log and save, as far as they are due after an update; its whole row."""
    settings = run.config
    if run.due(settings.evaluation.every):
        # kept by a save, should a signal end the validation
        run.pending = {name: to_json(value) for name, value in row.items()}
        row = row | run.validate()
    else:
        row = row | run.not_validated()
    row = row | run.folder.saver.seconds()
    run.pending, run.is_kept = None, False
    logger.write(run.step - 1, row)
    if run.due(settings.run.save_every):
        run.save()
    return row


def close(run: Run) -> None:
    """Write the model at the end, judge it on test, draw the curves."""
    path, count = run.folder.path, run.config.evaluation.test_problems
    run.folder.saver.wait()
    run.folder.write_end(run.model())
    if run.judging is not None and count:
        graded = run.judging.grade(run.params, "test", count, "test")
        sharding.on_first(lambda: run.folder.write_after(graded))
        for metric, value in scores(graded, "test").items():
            print(f"{metric:28s} {100 * value:5.1f} %")
    run.folder.finish()
    if jax.process_index():
        return
    picture = path / "curves.png"
    curves.draw(path / METRICS, picture, path.name, curves.SFT_PANELS, "update")
    print(f"wrote {path}: give it to `stepcoder train` as --model.checkpoint {path}")


def load_examples(config: Config, tokenizer: Any) -> tuple[list[Example], int]:
    """What is learnt, and in how many updates; says so on standard error."""
    settings = config.sft
    shown = config.prompt.show_visible
    problems = sources.load_pool(config.data, settings.split, config.execution, shown)
    mixed: list[Example] = []
    if settings.records:
        examples, mixed, told = lessons.select(problems, tokenizer, config)
    elif settings.samples:
        examples, told = raft.select(problems, tokenizer, config)
    else:
        examples, dropped = sft_rows.canonical(problems, tokenizer, config)
        told = (
            f"{len(examples)} examples, {dropped} problems left out: longer than the "
            "limits, or without a solution"
        )
        if not examples:
            raise ConfigError(
                f"data.path: no canonical solution to learn from: {told}; raise "
                "prompt.max_prompt_length or sampling.max_completion_length, or give "
                "another file"
            )
    # a control has the updates of what it is the control of
    num_steps = sft_rows.plan(mixed or examples, settings, config.run.seed)
    print(told, file=sys.stderr)
    print(describe_batches(examples, config), file=sys.stderr)
    return examples, num_steps


def describe_batches(examples: Sequence[Example], config: Config) -> str:
    """How full the first epoch's batches are."""
    groups = sft_rows.epoch(examples, config.sft, config.run.seed, 0)
    places = sum(config.sft.batch_size * group.width for group in groups)
    tokens = sum(group.tokens for group in groups)
    return (
        f"{len(groups)} updates an epoch, {len(examples) / len(groups):.1f} examples and "
        f"{tokens / len(groups):.0f} tokens each, {100 * (1 - tokens / places):.1f} % "
        "of the places are padding"
    )


def check_batches(config: Config) -> None:
    """Refuse a batch or parameters that do not divide over all devices."""
    devices = jax.device_count()
    _, check = dividing.examples(config, devices)
    with dividing.told(config, devices, dividing.examples):
        check(config)


def require_no_tokens(config: Config) -> None:
    """Refuse ends and validations that are counted in generated tokens: SFT has none."""
    if config.evaluation.every_tokens:
        raise ConfigError(
            "evaluation.every_tokens: SFT generates no tokens to count; set "
            "--evaluation.every_tokens 0, and --evaluation.every to some updates"
        )
    if config.run.total_tokens:
        raise ConfigError(
            "run.total_tokens: SFT generates no tokens to count; set --run.total_tokens 0, "
            "and --sft.epochs or --sft.minutes"
        )


def texts_of(problem: Problem) -> list[str]:
    """What a tokenizer is trained on: a problem, and a message on a failed visible test."""
    texts = [f"{problem.statement}\n```python\n{problem.solution}```"]
    if told := turns.example_of(problem):
        texts.append("\n".join([told, *turns.REQUESTS.values(), ""]))
    return texts


def build_tokenizer(config: Config) -> Any:
    """The tokenizer of the config, or one trained on the benchmark's train split."""
    if config.model.tokenizer or config.model.checkpoint:
        return sources.load_tokenizer(config.model)
    problems = [
        p for split in ("sft", "train") for p in sources.load_problems(config.data, split)
    ]
    texts = [text for problem in problems for text in texts_of(problem)]
    with tempfile.TemporaryDirectory() as folder:
        bpe.train(texts, config.model.vocab_size, Path(folder))
        return sources.load_tokenizer(ModelConfig(tokenizer=folder))


def run(config: Config) -> int:
    """`stepcoder sft`; exit code 0, or `interrupt.code` when a signal ended it early.

    run.folder becomes a Hugging Face folder, tokenizer included.
    """
    joining.join_hosts(config.run.join_minutes)
    trackers.require(config.run.track)
    orbax_logging.set_verbosity(orbax_logging.ERROR)  # its warnings tear the progress bar
    if config.run.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.run.compilation_cache)
    require_no_tokens(config)
    folder = SFTFolder(config.run.folder)
    if config.run.resume == "auto" and sharding.decided(folder.is_over):
        print(f"the run in {folder.path} is over", file=sys.stderr)
        return 0
    folder.settle(config.run)
    resumed = config.run.resume == "yes"
    sharding.on_first(lambda: folder.check(resumed))
    tokenizer = folder.tokenizer() if resumed else build_tokenizer(config)
    config.model = sources.resolve_model(config.model, len(tokenizer))
    config.validate()
    check_batches(config)
    examples, num_steps = load_examples(config, tokenizer)
    with (
        judging(config, tokenizer, folder) as judges,
        Interrupt(config.run.walltime) as interrupt,
        room(config.run.folder),
        contextlib.ExitStack() as stack,
    ):
        stack.push(folder.saver.leave)
        with folder.starting():
            sharding.on_first(lambda: folder.open(config))
            if not resumed:
                sharding.on_first(lambda: folder.save_tokenizer(tokenizer))
            job = Run(config, examples, num_steps, tokenizer, judges, folder)
            if config.evaluation.every and job.step == 0:
                job.measure_start()
            logger = open_log(
                folder.path,
                jax.process_index(),
                track=config.run.track,
                start_step=job.next_row,
                about=config.to_dict(),
            )
            stack.enter_context(logger)
        try:
            learn(job, logger, interrupt)
            close(job)
        except Stopped:
            if not job.is_kept:
                job.save_state()
            job.folder.saver.wait()
            if jax.process_index() == 0:
                print(
                    f"saved update {job.step} of {job.num_steps} in {folder.path}; go on "
                    "with the same command and --run.resume",
                    file=sys.stderr,
                )
            return interrupt.code
    return 0
