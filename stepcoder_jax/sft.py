"""Supervised fine-tuning: `stepcoder sft EXPERIMENT` makes the policy that RL starts from.

It learns canonical solutions, or with sft.samples what a model wrote and the judge passed
(`raft`). The update is `sft_step`'s, its batches are `sft_rows`', its files `sft_folder`'s.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import logging as orbax_logging
from tqdm import tqdm

from stepcoder_jax import (
    checkpoint,
    raft,
    report,
    sft_rows,
    sft_step,
    sharding,
    sources,
)
from stepcoder_jax.checkpoint import Saved
from stepcoder_jax.config import Config, ConfigError, ModelConfig
from stepcoder_jax.data import tokenizer as bpe
from stepcoder_jax.data.generated import Split
from stepcoder_jax.evaluate import grade, pass_rate, scores
from stepcoder_jax.execution import PoolSettings, open_pool
from stepcoder_jax.generate import Coder
from stepcoder_jax.interrupt import Interrupt
from stepcoder_jax.logger import METRICS, Logger
from stepcoder_jax.models import lora, policy
from stepcoder_jax.pytrees import TextState
from stepcoder_jax.records import Problem
from stepcoder_jax.run_folder import versions
from stepcoder_jax.sft_folder import Model, SFTFolder
from stepcoder_jax.sft_rows import Example, Group, make_batch
from stepcoder_jax.steps import Steps
from stepcoder_jax.summary import Graded

PANELS = {
    "Loss, nats per completion token": ("loss", "validation/loss"),
    "Validation pass@1 (greedy)": ("validation/pass*",),
    "Learning rate": ("learning_rate",),
    "Tokens per second": ("tokens_per_second",),
}


class Programs(NamedTuple):
    """The jitted, sharded programs of a run."""

    step: Callable[..., Any]  # (params, opt_state, batch) -> new ones and the loss
    score: Callable[..., Any]  # (params, batch) -> summed loss
    init: Callable[..., Any]  # params -> opt_state
    params: Any  # shardings of the parameters, adapters included


def make_programs(
    config: Config, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> Programs:
    """`sft_step` with its shardings; parameters and moments are donated to `step`."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(partial(policy.init_params, config.model), key)
    params = jax.eval_shape(partial(policy.add_adapters, config.model), params, key)
    layout = sharding.param_shardings(mesh, params)
    moments = jax.eval_shape(optimizer.init, lora.split(params)[0])
    moments = sharding.param_shardings(mesh, moments)
    rows, whole = sharding.batch_sharding(mesh, 0), sharding.replicated(mesh)
    spread, on_mesh = sharding.layout(mesh), partial(sharding.on_mesh, mesh)
    return Programs(
        step=jax.jit(
            on_mesh(partial(sft_step.step, config, spread, optimizer)),
            in_shardings=(layout, moments, rows),
            out_shardings=(layout, moments, whole),
            donate_argnums=(0, 1),
        ),
        score=jax.jit(
            on_mesh(partial(sft_step.loss, config, spread)),
            in_shardings=(layout, rows),
            out_shardings=whole,
        ),
        init=jax.jit(
            lambda params: optimizer.init(lora.split(params)[0]),
            in_shardings=(layout,),
            out_shardings=moments,
        ),
        params=layout,
    )


class Judging(NamedTuple):
    """What greedy evaluation takes, beside the parameters."""

    coder: Coder
    find: Callable[[Split, int], list[Problem]]  # the first problems of a split

    def grade(self, params: Any, split: Split, count: int, label: str) -> list[Graded]:
        return grade(self.coder, params, self.find(split, count), label)


@contextlib.contextmanager
def judging(config: Config, tokenizer: Any, folder: SFTFolder) -> Iterator[Judging | None]:
    """A pool and a sampler, where the run evaluates at all."""
    if not config.evaluation.every and not config.evaluation.test_problems:
        yield None
        return

    def find(split: Split, count: int) -> list[Problem]:
        problems = sources.load_problems(config.data, split)[:count]
        return sources.limit_cpu(problems, config, split, folder.limits_file)

    if config.evaluation.every and not sources.load_problems(config.data, "validation"):
        raise ConfigError(
            "evaluation.every: the run has no validation problems; name a file with "
            "--data.validation, or set --evaluation.every 0"
        )
    mesh = sharding.make_mesh(config.mesh, jax.devices())
    steps = Steps(config, mesh, (tokenizer.eos_token_id,))
    with open_pool(PoolSettings(**vars(config.execution), coverage="none")) as pool:
        yield Judging(Coder.make(config, steps, pool, tokenizer), find)


class Run:
    """Everything of one run that the loop needs: its parts, its state, its folder."""

    def __init__(
        self,
        config: Config,
        examples: Sequence[Example],
        num_steps: int,
        tokenizer: Any,
        judging: Judging | None,
        folder: SFTFolder,
    ) -> None:
        self.config, self.examples, self.tokenizer = config, examples, tokenizer
        self.judging, self.folder = judging, folder
        seed = config.run.seed
        self.num_steps = num_steps
        self.schedule = sft_step.make_schedule(config.sft, num_steps)
        optimizer = sft_step.make_optimizer(config.sft, num_steps)
        mesh = sharding.make_mesh(config.mesh, jax.devices())
        self.programs = make_programs(config, optimizer, mesh)
        params = sources.load_actor(config.model, seed)
        params = policy.add_adapters(config.model, params, jax.random.key(seed))
        self.params = sharding.to_devices(sharding.to_host(params), self.programs.params)
        self.opt_state = self.programs.init(self.params)
        self.whole = sharding.replicated(mesh)
        self.step, self.start = 0, time.monotonic()
        self.best: tuple[float, ...] = (
            -1.0,
            -math.inf,
        )  # pass@1, and minus the validation loss
        # what must not change under a run that is resumed
        self.known = {
            "problems or samples": sft_rows.digest(examples),
            "weights of model.checkpoint": checkpoint.hash_params(self.frozen),
        }
        if config.run.resume:
            self.resume()
        self.is_over = self.find_end()

    @property
    def frozen(self) -> Any:
        """What LoRA leaves alone; nothing without it."""
        return lora.split(self.params)[1]

    def resume(self) -> None:
        """Go on where the state was kept last, if it was."""
        state = self.state()
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        saved = self.folder.restore_state(abstract)
        if saved is None:
            return
        state, arrays, record = saved
        for name, value in self.known.items():
            if record["known"][name] != value:
                raise ConfigError(
                    f"run.folder: the {name} have changed since the run in "
                    f"{self.folder.path} was stopped; put them back, or choose another "
                    "--run.folder"
                )
        self.step, self.opt_state = int(state.step), state.opt_state
        self.params = lora.graft(self.frozen, state.trained)
        self.best = tuple(arrays["best"].tolist())
        self.start -= record["seconds"]

    def state(self) -> TextState:
        """What is kept of the run; with LoRA not the base, which the config names."""
        step = jax.device_put(np.int32(self.step), self.whole)
        return TextState(step, lora.split(self.params)[0], self.opt_state)

    def save_state(self) -> None:
        record = {
            "seconds": time.monotonic() - self.start,
            "versions": versions(),
            "known": self.known,
        }
        self.folder.save_state(Saved(self.state(), {"best": np.array(self.best)}, record))

    def model(self) -> Model:
        return Model(self.config.model, self.params, self.tokenizer)

    def groups(self) -> Iterator[tuple[int, Group]]:
        """What is left to learn, with the number of its epoch."""
        index, skip = 0, self.step
        while True:
            found = sft_rows.epoch(
                self.examples, self.config.sft, self.config.run.seed, index
            )
            for group in found[skip:]:
                yield index, group
            index, skip = index + 1, max(0, skip - len(found))

    def update(self, group: Group) -> dict[str, Any]:
        """One update; its metrics, of which the loss is that before it."""
        start = time.perf_counter()
        batch = make_batch(group, self.config.sft.batch_size)
        self.params, self.opt_state, value = self.programs.step(
            self.params, self.opt_state, batch
        )
        value = float(value)
        if not math.isfinite(value):
            raise FloatingPointError(
                f"update {self.step}: the loss is {value}; lower sft.learning_rate"
            )
        seconds = time.perf_counter() - start
        metrics = {
            "loss": value,
            "learning_rate": float(self.schedule(self.step)),
            "tokens": group.tokens,
            "padding": 1 - group.tokens / batch.tokens.size,
            "tokens_per_second": group.tokens / seconds,
            "seconds/update": seconds,
        }
        self.step += 1
        self.is_over = self.find_end()
        return metrics

    def find_end(self) -> bool:
        limit = self.config.sft.minutes * 60
        is_late = 0 < limit < time.monotonic() - self.start
        return is_late or self.step >= self.num_steps

    def due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self.is_over)

    def validate(self) -> dict[str, float]:
        """Validation scores; the model of a new best is kept.

        Best by pass@1, among equals by the loss on canonical solutions.
        """
        if self.judging is None:
            return {}
        count = self.config.evaluation.validation_problems
        rows = self.judging.grade(self.params, "validation", count, "validation")
        found = scores(rows, "validation")
        examples, _ = sft_rows.canonical(
            self.judging.find("validation", count), self.tokenizer, self.config
        )
        value = self.mean_loss(examples)
        if examples:
            found |= {"validation/loss": value, "validation/perplexity": math.exp(value)}
        if (pass_rate(rows), -value) > self.best:
            self.best = (pass_rate(rows), -value)
            self.folder.save_model(self.step, self.model(), keep=1, best=True)
        return found

    def mean_loss(self, examples: Sequence[Example]) -> float:
        """Nats per completion token of examples; infinite for none."""
        if not examples:
            return math.inf
        settings = self.config.sft
        total, count = 0.0, 0
        for group in sft_rows.epoch(examples, settings, seed=0, index=0):
            batch = make_batch(group, settings.batch_size)
            total += float(self.programs.score(self.params, batch))
            count += int(batch.scored.sum())
        return total / count


def learn(run: Run, logger: Logger, interrupt: Interrupt) -> None:
    """Update until the last step or Ctrl-C, which saves what a resume needs."""
    settings = run.config
    groups = run.groups()
    with tqdm(
        total=run.num_steps, initial=run.step, unit="step", dynamic_ncols=True
    ) as bar:
        while not run.is_over and not interrupt.asked:
            epoch, group = next(groups)
            step, metrics = run.step, run.update(group)
            if run.due(settings.evaluation.every):
                metrics |= run.validate()
            logger.write(step, {"epoch": epoch, **metrics})
            if run.due(settings.run.save_every):
                run.folder.save_model(run.step, run.model(), settings.run.keep, best=False)
                run.save_state()
            bar.update()
            bar.set_postfix_str(f"epoch={epoch} loss={metrics['loss']:.4f}")
    if not run.is_over:
        run.save_state()


def close(run: Run) -> None:
    """Write the model at the end, judge it on test, draw the curves."""
    path, count = run.folder.path, run.config.evaluation.test_problems
    run.folder.finish(run.model())
    if run.judging is not None and count:
        graded = run.judging.grade(run.params, "test", count, "test")
        run.folder.write_after(graded)
        for metric, value in scores(graded, "test").items():
            print(f"{metric:28s} {100 * value:5.1f} %")
    report.curves(path / METRICS, path / "curves.png", path.name, PANELS)
    print(f"wrote {path}: give it to `stepcoder train` as --model.checkpoint {path}")


def load_examples(config: Config, tokenizer: Any) -> tuple[list[Example], int]:
    """What is learnt, and in how many updates; says so on standard error."""
    settings = config.sft
    problems = sources.load_pool(config.data, settings.split)
    if settings.samples:
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
    num_steps = sft_rows.plan(examples, settings, config.run.seed)
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
    """Refuse batches that do not divide over micro-batches and devices."""
    settings = config.sft
    shards = sharding.batch_shards(sharding.make_mesh(config.mesh, jax.devices()))
    if settings.batch_size % (settings.num_micro_batches * shards):
        raise ConfigError(
            f"sft.batch_size: {settings.batch_size} does not divide into "
            f"sft.num_micro_batches {settings.num_micro_batches} x {shards} devices "
            "(mesh.data x mesh.fsdp)"
        )


def build_tokenizer(config: Config) -> Any:
    """The tokenizer of the config, or one trained on the benchmark's train split."""
    if config.model.tokenizer or config.model.checkpoint:
        return sources.load_tokenizer(config.model)
    problems = [
        p for split in ("sft", "train") for p in sources.load_problems(config.data, split)
    ]
    texts = [f"{p.statement}\n```python\n{p.solution}```" for p in problems]
    with tempfile.TemporaryDirectory() as folder:
        bpe.train(texts, config.model.vocab_size, Path(folder))
        return sources.load_tokenizer(ModelConfig(tokenizer=folder))


def run(config: Config) -> int:
    """`stepcoder sft`; exit code 0, or 130 when Ctrl-C ended it early.

    run.folder becomes a Hugging Face folder, tokenizer included.
    """
    orbax_logging.set_verbosity(orbax_logging.ERROR)  # its warnings tear the progress bar
    if config.run.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.run.compilation_cache)
    folder, resumed = SFTFolder(config.run.folder), config.run.resume
    folder.check(resumed)
    tokenizer = folder.tokenizer() if resumed else build_tokenizer(config)
    config.model = sources.resolve_model(config.model, len(tokenizer))
    config.validate()
    check_batches(config)
    examples, num_steps = load_examples(config, tokenizer)
    with judging(config, tokenizer, folder) as judges, Interrupt() as interrupt:
        folder.open(config)
        if not resumed:
            tokenizer.save_pretrained(folder.path)
        job = Run(config, examples, num_steps, tokenizer, judges, folder)
        events = config.run.tensorboard
        with Logger(folder.path, tensorboard=events, start_step=job.step) as logger:
            learn(job, logger, interrupt)
        if not job.is_over:
            print(
                f"saved update {job.step} of {job.num_steps} in {folder.path}; go on with "
                "the same command and --run.resume",
                file=sys.stderr,
            )
            return 130
        close(job)
    return 0
