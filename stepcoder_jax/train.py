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

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.generated.benchmark import Split
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.execution import Pool, PoolSettings, open_pool
from stepcoder_jax.feedback import cccs, rewards
from stepcoder_jax.feedback.cccs import CurriculumState
from stepcoder_jax.progress import StepProgress, describe_iteration
from stepcoder_jax.pytrees import Experience, Feedback, Rollout, TrainState
from stepcoder_jax.records import Problem, Program, Report, Task
from stepcoder_jax.results import curves, diagnosis, summary
from stepcoder_jax.results.logger import METRICS, Logger, read_metrics, to_json
from stepcoder_jax.results.summary import Graded
from stepcoder_jax.runs import generate, iteration_metrics, problem_set
from stepcoder_jax.runs.disk import checkpoint, sources
from stepcoder_jax.runs.disk.interrupt import Interrupt, Stopped
from stepcoder_jax.runs.disk.run_folder import RunFolder, versions
from stepcoder_jax.runs.generate import Coder
from stepcoder_jax.runs.greedy import grade, pass_rate, scores, unmeasured, whole_tasks
from stepcoder_jax.sampling import slots

# sysexits.h, EX_UNAVAILABLE: what the run needs, a judge that works, is not there
JUDGE_FAILS = 69
LENGTH_FLAG = "--prompt.max_prompt_length"


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
        self.steps = Steps(config, mesh, sources.eos_ids(config.model, tokenizer))
        problems = sources.load_pool(config.data, "train", config.execution)
        self.problems = self.fitting(problems, tokenizer)
        self.curriculum = cccs.initial(self.problems, config.cccs)
        self.known_problems = problem_set.describe(self.problems)
        self.coder = Coder.make(config, self.steps, pool, tokenizer)
        sharding.on_first(lambda: self.folder.open(config))
        with self.folder.starting():
            self.begin(tokenizer)

    def begin(self, tokenizer: Any) -> None:
        """What is measured, written and loaded before the first iteration."""
        config = self.config
        self.problems = self.limit_cpu(self.problems, "train")
        sharding.on_first(lambda: self.folder.save_reference(config, tokenizer))
        layout = self.steps.actor_shardings
        self.reference = sources.load_reference(self.folder.reference, layout)
        self.reference_hash = checkpoint.hash_params(self.reference)
        self.graded: dict[Split, list[Problem]] = {}  # as they were met
        self.best = -1.0
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.empty = 0  # iterations in a row without a valid row
        self.pending: dict[str, Any] | None = None  # metrics that wait for validation
        self.is_kept = config.run.resume == "yes" and self.resume()
        if not self.is_kept:
            self.state = self.steps.init_state(self.reference)
        self.reference = self.steps.place_reference(self.reference)

    def fitting(self, problems: list[Problem], tokenizer: Any) -> list[Problem]:
        """The problems whose prompts fit, at each stage that they may come to."""
        stages = cccs.initial(problems, self.config.cccs).stage
        tasks = [
            Task(problem, i, stage, cccs.head(problem, stage))
            for i, problem in enumerate(problems)
            for stage in range(int(stages[i]) + 1)
        ]
        out = sources.leave_out_long(tasks, tokenizer, self.config, LENGTH_FLAG)
        return [problem for problem in problems if problem.id not in out]

    def limit_cpu(self, problems: list[Problem], split: Split) -> list[Problem]:
        """The problems with the CPU limits that this run keeps."""
        return sources.limit_cpu(problems, self.config, split, self.folder.limits_file)

    def resume(self) -> bool:
        """Go on from a checkpoint; False where there is none yet."""
        chosen = self.config.run.step
        step = None if chosen < 0 else chosen
        restored = self.folder.restore(step, self.steps.abstract_state, best=False)
        if restored is None:
            return False
        self.state, self.curriculum, record = restored
        if record["reference"] != self.reference_hash:
            raise ConfigError(
                f"run.folder: the reference in {self.folder.reference} is not the one that "
                f"checkpoint {record['step']} was trained against; restore the folder's own"
            )
        problem_set.check(record, self.problems, len(self.curriculum.stage))
        self.best = record["best"]
        self.verdicts.update(record["verdicts"])
        self.empty = record.get("empty", 0)
        self.pending = record.get("pending")
        self.folder.set_later_aside(record["step"], chosen >= 0)
        return True

    def save(self, best: bool) -> None:
        """Write a checkpoint of the present state."""
        record = {
            "config": dataclasses.asdict(self.config),
            "versions": versions(),
            "reference": self.reference_hash,
            "best": self.best,
            "verdicts": dict(self.verdicts),
            "empty": self.empty,
            "step": int(self.state.step),  # with the seed, also the cursor in the data
            "problems": self.known_problems,  # row i of the curriculum is problem i
            "pending": self.pending,
        }
        keep = self.config.run.keep
        self.folder.save(self.state, self.curriculum, record, keep, best)
        self.is_kept = self.is_kept or not best

    def load(self, split: Split) -> list[Problem]:
        return sources.load_problems(self.config.data, split, self.config.execution)

    def grade(self, split: Split, count: int, label: str) -> list[Graded]:
        """Greedy verdicts on the first `count` problems of a split."""
        problems = self.graded_problems(split, count)
        return grade(self.coder, self.state.actor, problems, label)

    def judge_before(self) -> None:
        """Verdicts on test and validation scores of the model that the run begins with."""
        settings = self.config.evaluation
        if int(self.state.step) > 0:
            return
        if settings.test_problems:
            graded = self.grade("test", settings.test_problems, "test before")
            sharding.on_first(lambda: self.folder.write_before(graded))
        if settings.every:
            count = settings.validation_problems
            rows = self.grade("validation", count, "validation before")
            found = scores(rows, "validation") if rows else {}
            sharding.on_first(lambda: self.folder.write_start(found))

    def graded_problems(self, split: Split, count: int) -> list[Problem]:
        """The first `count` problems of a split, but for those with too long prompts."""
        if split not in self.graded:
            problems = self.load(split)[:count]
            tasks, tokenizer = whole_tasks(problems), self.coder.tokenizer
            out = sources.leave_out_long(tasks, tokenizer, self.config, LENGTH_FLAG)
            kept = [problem for problem in problems if problem.id not in out]
            self.graded[split] = self.limit_cpu(kept, split)
        return self.graded[split]

    def count_empty(self, valid_rows: int) -> dict[str, int]:
        """Take an iteration in; its metric: how many in a row had no valid row."""
        self.empty = 0 if valid_rows else self.empty + 1
        return {"batch/empty_in_a_row": self.empty}

    @property
    def is_judge_broken(self) -> bool:
        return self.empty >= self.config.run.max_empty

    def not_validated(self) -> dict[str, float]:
        """The keys that `validate` gives, for the rows of iterations without it."""
        if not self.config.evaluation.every:
            return {}
        count = self.config.evaluation.validation_problems
        return unmeasured(self.graded_problems("validation", count), "validation")

    def validate(self) -> dict[str, float]:
        """Validation scores; a new best is kept as a checkpoint of its own."""
        rows = self.grade(
            "validation", self.config.evaluation.validation_problems, "validation"
        )
        if rows and pass_rate(rows) > self.best:
            self.best = pass_rate(rows)
            self.save(best=True)
        return scores(rows, "validation") if rows else {}

    @property
    def next_row(self) -> int:
        """The first iteration that metrics.jsonl does not have."""
        return int(self.state.step) - (self.pending is not None)

    def due(self, every: int) -> bool:
        step, last = int(self.state.step), self.config.run.total_steps
        return every > 0 and (step % every == 0 or step == last)


def learn(run: Run, logger: Logger, interrupt: Interrupt) -> list[float]:
    """Iterate until the last step; returns the share at stage 0 per iteration.

    Raises Stopped where a signal ends it before: `run` is then as after its last whole
    iteration, but for a validation that was given up.
    """
    config = run.config
    first, last = int(run.state.step), config.run.total_steps
    shares: list[float] = []
    blank, watch = run.not_validated(), diagnosis.Watch(config)
    if run.pending is not None:
        conclude(run, logger, first - 1, run.pending)
    with StepProgress(last, "iteration", first=first) as progress:
        while int(run.state.step) < last:
            interrupt.check()
            start = time.perf_counter()
            run.state, run.curriculum, done = iterate(
                config, run.coder, run.problems, run.reference, run.state, run.curriculum
            )
            run.is_kept = False
            run.verdicts.update(str(judged.verdict) for judged in done.reports)
            if run.coder.pool.unsafe:
                progress.write(run.coder.pool.banner)
            metrics = done.metrics
            if metrics.pop("nonfinite"):
                raise FloatingPointError(
                    f"iteration {done.step}: a gradient is not finite; lower "
                    "ppo.actor.learning_rate, or that of ppo.critic if there is one"
                )
            metrics |= run.count_empty(metrics["batch/valid_rows"]) | blank
            if config.run.rollouts_every and done.step % config.run.rollouts_every == 0:
                logger.write_rollouts(done.step, rollout_rows(done))
            metrics["seconds/iteration"] = time.perf_counter() - start
            conclude(run, logger, done.step, metrics)
            mark, warning = watch.look({"step": done.step, **metrics})
            if warning:
                progress.write(warning)
            shares.append(metrics["cccs/stage0_share"])
            progress.update(describe_iteration(metrics, config.batch_size, mark))
            if sharding.decided(run.is_judge_broken):
                if not run.is_kept:
                    run.save(best=False)
                break
    return shares


def conclude(run: Run, logger: Logger, step: int, metrics: dict[str, Any]) -> None:
    """Validate, log and save, as far as they are due after iteration `step`."""
    if run.due(run.config.evaluation.every):
        # kept by a save, should a signal end the validation
        run.pending = {name: to_json(value) for name, value in metrics.items()}
        start = time.perf_counter()
        metrics |= run.validate()
        metrics["seconds/iteration"] += time.perf_counter() - start
        run.pending, run.is_kept = None, False
    logger.write(step, metrics)
    if run.due(run.config.run.save_every):
        run.save(best=False)


def close(run: Run, shares: Sequence[float]) -> None:
    """Judge the best checkpoint on test, draw the curves, say what happened."""
    after: list[Graded] = []
    best = run.folder.latest(best=True)
    if run.config.evaluation.test_problems:
        if best is not None:
            found = run.folder.restore(best, run.steps.abstract_state, best=True)
            run.state = found[0] if found else run.state
        after = run.grade("test", run.config.evaluation.test_problems, "test after")
        sharding.on_first(lambda: run.folder.write_after(after))
    if jax.process_index():
        return
    path, judged = run.folder.path, run.verdicts
    curves.draw(path / METRICS, path / "curves.png", path.name)
    print(
        summary.summary(
            run.folder.read_before(),
            after,
            visits=run.curriculum.visits,
            stage0_share=float(np.mean(shares[-10:])) if shares else 0.0,
            causes=diagnosis.summarise(read_metrics(run.folder.log / METRICS), run.config),
            folder=str(path),
            minutes=(time.monotonic() - run.start) / 60,
        )
    )
    shown = ", ".join(f"{count} {verdict}" for verdict, count in judged.most_common())
    print(f"{judged.total()} rollouts were judged: {shown}.")


def train(config: Config) -> int:
    """A whole run; exit code 0, `interrupt.code` when a signal ended it early, or 69
    without a judge."""
    sharding.join_hosts()
    RunFolder(config.run.folder).settle(config.run)
    orbax_logging.set_verbosity(orbax_logging.ERROR)  # its warnings tear the progress bar
    if config.run.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.run.compilation_cache)
    coverage = "none" if config.fgo.mask == "none" else config.fgo.granularity
    settings = PoolSettings(**vars(config.execution), coverage=coverage)
    alone = jax.process_count() == 1
    with open_pool(settings) as pool, Interrupt(at_once=alone) as interrupt:
        run = Run(config, pool)
        try:
            return carry_out(run, interrupt)
        except Stopped:
            if not run.is_kept:
                run.save(best=False)
            print(
                f"saved iteration {int(run.state.step)} in {run.folder.path}; go on with "
                "the same command and --run.resume",
                file=sys.stderr,
            )
            return interrupt.code


def carry_out(run: Run, interrupt: Interrupt) -> int:
    """The run, from where it stands to its end; the exit code."""
    with contextlib.ExitStack() as stack:
        with run.folder.starting():
            run.judge_before()
            events, step = run.config.run.tensorboard, run.next_row
            logger = Logger(run.folder.log, tensorboard=events, start_step=step)
            stack.enter_context(logger)
        shares = learn(run, logger, interrupt)
    if int(run.state.step) < run.config.run.total_steps:
        print(
            f"stopped: no program could be judged in {run.empty} iterations in a row "
            f"(run.max_empty); saved iteration {int(run.state.step)} in "
            f"{run.folder.path}; run `stepcoder doctor`, then resume",
            file=sys.stderr,
        )
        return JUDGE_FAILS
    close(run, shares)
    return 0
