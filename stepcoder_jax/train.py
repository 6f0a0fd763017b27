"""The loop: RL on the model's own programs, with CCCS and FGO. `stepcoder train`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging as orbax_logging

from stepcoder_jax import (
    cccs,
    checkpoint,
    generate,
    iteration_metrics,
    prompts,
    report,
    rewards,
    sharding,
    slots,
    sources,
    summary,
)
from stepcoder_jax.cccs import CurriculumState
from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.generated import Split
from stepcoder_jax.evaluate import grade, pass_rate, scores
from stepcoder_jax.execution import Pool, PoolSettings, open_pool
from stepcoder_jax.generate import Coder
from stepcoder_jax.interrupt import Interrupt
from stepcoder_jax.logger import Logger
from stepcoder_jax.progress import StepProgress, describe_iteration
from stepcoder_jax.pytrees import Experience, Feedback, Rollout, TrainState
from stepcoder_jax.records import Problem, Program, Report, Task
from stepcoder_jax.run_folder import RunFolder, versions
from stepcoder_jax.steps import Steps
from stepcoder_jax.summary import Graded


class Iteration(NamedTuple):
    """What one iteration leaves for the log."""

    step: int
    tasks: list[Task]
    programs: list[Program]
    reports: list[Report]
    rollout: Rollout
    feedback: Feedback
    experience: Experience
    metrics: dict[str, Any]


class Stopwatch:
    """Seconds of each part of an iteration."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[f"seconds/{name}"] = time.perf_counter() - start


def iterate(
    config: Config,
    coder: Coder,
    problems: Sequence[Problem],
    reference: Any,
    state: TrainState,
    curriculum: CurriculumState,
) -> tuple[TrainState, CurriculumState, Iteration]:
    """One iteration: choose, sample, run, score, learn, move on."""
    watch, step, seed = Stopwatch(), int(state.step), config.run.seed
    tasks = cccs.choose_tasks(
        problems,
        curriculum,
        step=step,
        seed=seed,
        sampling=config.sampling,
        config=config.cccs,
    )
    batch = coder.encode(tasks, first=step * len(tasks))
    coder.pool.reset_metrics()
    stream = coder.steps.sample(state.actor, batch, step, coder.find_stop)
    judged = generate.judge_stream(coder, tasks, stream, label="")
    programs, reports = judged.programs, judged.reports
    columns = config.sampling.max_completion_length
    rollout = slots.collect(batch, columns, judged.completions)
    with watch.part("feedback"):
        feedback, labelling = rewards.feedback(
            programs,
            reports,
            rollout.mask,
            reward=config.reward,
            fgo=config.fgo,
            seed=seed,
            step=step,
        )
        # clocks differ: a program may time out, and leave less coverage, on one host alone
        feedback = Feedback(*sharding.from_first(feedback))
    with watch.part("update"):
        state, experience, looked, learnt = coder.steps.learn(
            state, reference, rollout, feedback
        )
        looked, kept, learnt = sharding.to_host((looked, experience, learnt))
    metrics = {
        **iteration_metrics.of_judge(coder.pool),
        **rewards.metrics(reports, rollout.mask, feedback),
        **labelling,
        **cccs.metrics(curriculum, tasks),
        **(
            iteration_metrics.of_critic(looked.pop("rows"), reports)
            if "rows" in looked
            else {}
        ),
        **looked,
        **learnt,
        **watch.seconds,
        "seconds/sample": judged.seconds_sampled,
        "seconds/judge": judged.seconds_waited,  # what decoding did not hide
    }
    curriculum = cccs.advance(curriculum, tasks, reports, config.cccs)
    done = Iteration(step, tasks, programs, reports, rollout, feedback, kept, metrics)
    return state, curriculum, done


def rollout_rows(done: Iteration) -> Iterator[dict[str, Any]]:
    """The rows of rollouts/STEP.jsonl; token arrays end with the row's completion."""
    for i, (task, program, judged) in enumerate(
        zip(done.tasks, done.programs, done.reports, strict=True)
    ):
        count = int(done.rollout.mask[i].sum())
        source = program.source.encode()
        row = {
            "problem": task.problem.id,
            "stage": task.stage,
            "head": task.head,
            "completion": source[program.generated_from :].decode(),
            "verdict": judged.verdict,
            "tests": [test.verdict for test in judged.tests],
            "message": judged.message,
            "reward": float(done.feedback.rewards[i].sum()),
            "valid": bool(done.feedback.valid[i]),
            "truncated": bool(done.rollout.truncated[i]),
            "spans": program.token_spans,
            "executed": done.feedback.executed[i, :count].astype(int).tolist(),
            "advantages": done.experience.advantages[i, :count].tolist(),
        }
        if done.experience.old_values is not None:
            row["values"] = done.experience.old_values[i, :count].tolist()
        yield row


class Run:
    """Everything of one run that the loop needs: its parts, its state, its folder."""

    def __init__(self, config: Config, pool: Pool) -> None:
        self.start = time.monotonic()
        self.folder = RunFolder(config.run.folder)
        tokenizer = sources.load_tokenizer(config.model)
        config.model = sources.resolve_model(config.model, len(tokenizer))
        config.validate()
        mesh = sharding.make_mesh(config.mesh, jax.devices())
        self.config = config
        self.steps = Steps(config, mesh, (tokenizer.eos_token_id,))
        self.problems = sources.load_pool(config.data, "train", config.execution)
        self.curriculum = cccs.initial(self.problems, config.cccs)
        self.check_prompts(tokenizer)
        self.coder = Coder.make(config, self.steps, pool, tokenizer)
        sharding.on_first(lambda: self.folder.open(config))
        self.problems = self.limit_cpu(self.problems, "train")
        sharding.on_first(lambda: self.folder.save_reference(config, tokenizer))
        layout = self.steps.actor_shardings
        self.reference = sources.load_reference(self.folder.reference, layout)
        self.reference_hash = checkpoint.hash_params(self.reference)
        self.best = -1.0
        self.verdicts: collections.Counter[str] = collections.Counter()
        step = self.folder.latest(best=False) if config.run.resume else None
        if step is None:
            self.state = self.steps.init_state(self.reference)
        else:
            self.resume(step)
        self.reference = self.steps.place_reference(self.reference)

    def check_prompts(self, tokenizer: Any) -> None:
        """Refuse a prompt that is too long now, not in iteration 500."""
        tasks = [
            Task(problem, i, stage, cccs.head(problem, stage))
            for i, problem in enumerate(self.problems)
            for stage in range(int(self.curriculum.stage[i]) + 1)
        ]
        prompts.encode(tasks, tokenizer, self.config.prompt, np.arange(len(tasks)))

    def limit_cpu(self, problems: list[Problem], split: Split) -> list[Problem]:
        """The problems with the CPU limits that this run keeps."""
        return sources.limit_cpu(problems, self.config, split, self.folder.limits_file)

    def resume(self, step: int) -> None:
        """Go on where the checkpoint of iteration `step` was written."""
        restored = self.folder.restore(step, self.steps.abstract_state, best=False)
        self.state, self.curriculum, record = restored
        if record["reference"] != self.reference_hash:
            raise ConfigError(
                f"run.folder: the reference in {self.folder.reference} is not the one that "
                f"checkpoint {step} was trained against; restore the folder's own"
            )
        self.best = record["best"]
        self.verdicts.update(record["verdicts"])

    def save(self, best: bool) -> None:
        """Write a checkpoint of the present state."""
        record = {
            "config": dataclasses.asdict(self.config),
            "versions": versions(),
            "reference": self.reference_hash,
            "best": self.best,
            "verdicts": dict(self.verdicts),
            "step": int(self.state.step),  # with the seed, also the cursor in the data
        }
        keep = self.config.run.keep
        self.folder.save(self.state, self.curriculum, record, keep, best)

    def grade(self, split: Split, count: int, label: str) -> list[Graded]:
        """Greedy verdicts on the first `count` problems of a split."""
        config = self.config
        problems = sources.load_problems(config.data, split, config.execution)[:count]
        problems = self.limit_cpu(problems, split)
        return grade(self.coder, self.state.actor, problems, label)

    def validate(self) -> dict[str, float]:
        """Validation scores; a new best is kept as a checkpoint of its own."""
        rows = self.grade(
            "validation", self.config.evaluation.validation_problems, "validation"
        )
        if rows and pass_rate(rows) > self.best:
            self.best = pass_rate(rows)
            self.save(best=True)
        return scores(rows, "validation") if rows else {}

    def due(self, every: int) -> bool:
        step, last = int(self.state.step), self.config.run.total_steps
        return every > 0 and (step % every == 0 or step == last)


def learn(run: Run, logger: Logger, interrupt: Interrupt) -> list[float]:
    """Iterate until the last step or Ctrl-C; returns the share at stage 0 per iteration."""
    config = run.config
    first, last = int(run.state.step), config.run.total_steps
    shares: list[float] = []
    stopped = sharding.decided(interrupt.asked)
    if stopped:
        run.save(best=False)
    with StepProgress(last, "iteration", first=first) as progress:
        while int(run.state.step) < last and not stopped:
            start = time.perf_counter()
            run.state, run.curriculum, done = iterate(
                config, run.coder, run.problems, run.reference, run.state, run.curriculum
            )
            run.verdicts.update(str(judged.verdict) for judged in done.reports)
            if run.coder.pool.unsafe:
                progress.write(run.coder.pool.banner)
            metrics = done.metrics
            if metrics.pop("nonfinite"):
                raise FloatingPointError(
                    f"iteration {done.step}: a gradient is not finite; lower "
                    "ppo.actor.learning_rate, or that of ppo.critic if there is one"
                )
            if run.due(config.evaluation.every):
                metrics |= run.validate()
            metrics["seconds/iteration"] = time.perf_counter() - start
            logger.write(done.step, metrics)
            if config.run.rollouts_every and done.step % config.run.rollouts_every == 0:
                logger.write_rollouts(done.step, rollout_rows(done))
            # read once: a Ctrl-C during the save stops the next iteration
            stopped = sharding.decided(interrupt.asked)
            if run.due(config.run.save_every) or stopped:
                run.save(best=False)
            shares.append(metrics["cccs/stage0_share"])
            progress.update(describe_iteration(metrics, config.batch_size))
    return shares


def close(run: Run, shares: Sequence[float]) -> None:
    """Judge the best checkpoint on test, draw the curves, say what happened."""
    after: list[Graded] = []
    best = run.folder.latest(best=True)
    if run.config.evaluation.test_problems:
        if best is not None:
            run.state, _, _ = run.folder.restore(best, run.steps.abstract_state, best=True)
        after = run.grade("test", run.config.evaluation.test_problems, "test after")
        sharding.on_first(lambda: run.folder.write_after(after))
    if jax.process_index():
        return
    path, judged = run.folder.path, run.verdicts
    report.curves(path / "metrics.jsonl", path / "curves.png", f"{path.name}")
    print(
        summary.summary(
            run.folder.read_before(),
            after,
            visits=run.curriculum.visits,
            stage0_share=float(np.mean(shares[-10:])) if shares else 0.0,
            folder=str(path),
            minutes=(time.monotonic() - run.start) / 60,
        )
    )
    shown = ", ".join(f"{count} {verdict}" for verdict, count in judged.most_common())
    print(f"{judged.total()} rollouts were judged: {shown}.")


def train(config: Config) -> int:
    """A whole run; exit code 0, or 130 when Ctrl-C ended it early."""
    sharding.join_hosts()
    orbax_logging.set_verbosity(orbax_logging.ERROR)  # its warnings tear the progress bar
    if config.run.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.run.compilation_cache)
    coverage = "none" if config.fgo.mask == "none" else config.fgo.granularity
    settings = PoolSettings(**vars(config.execution), coverage=coverage)
    with open_pool(settings) as pool, Interrupt() as interrupt:
        run = Run(config, pool)
        count, step = config.evaluation.test_problems, int(run.state.step)
        if count and step == 0:
            graded = run.grade("test", count, "test before")
            sharding.on_first(lambda: run.folder.write_before(graded))
        events = config.run.tensorboard
        with Logger(run.folder.log, tensorboard=events, start_step=step) as logger:
            shares = learn(run, logger, interrupt)
        if int(run.state.step) < config.run.total_steps:
            print(
                f"saved iteration {int(run.state.step)} in {run.folder.path}; go on with "
                "the same command and --run.resume",
                file=sys.stderr,
            )
            return 130
        close(run, shares)
    return 0
