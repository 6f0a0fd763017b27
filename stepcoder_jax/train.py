"""The loop: RL on the model's own programs, with CCCS and FGO. `stepcoder train`.

The walk of a rollout, which `iterate` follows; B rollouts, T completion tokens:

1. feedback   `cccs.choose_tasks`: a problem, and how much of its solution is given; or
              with data.contexts a wrong program that is to be mended
2. runs       `generate.roll_out`: the prompt in tokens, sampled (sampling), cut into a
              program while others decode, and run in the sandbox (execution)
              -> Rollout [B, T], programs, reports
3. feedback   `rewards.batch.feedback`: verdicts to rewards, executed code to tokens
              -> Feedback [B, T]; in contexts `Contexts.judge` has the rewards
4. learning   `Steps.learn`: logprobs, values, advantages, then the updates
              -> TrainState, Experience [B, T]
5. feedback   `cccs.advance`: the curriculum of the next iteration

With sampling.extra_problems 1 to 3 come again for other problems, in the place of those
whose rollouts are all rewarded alike (runs/posing/dynamic.py). With sampling.buffer 4
learns from rollouts of the last iterations (runs/posing/buffer.py).

`learn` repeats this to the last step; `conclude` validates, logs and saves what is due.
The run's state and folder are in runs/rl_run.py, the end of it in runs/closing.py.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging as orbax_logging

from stepcoder_jax.config import Config
from stepcoder_jax.devices import joining, sharding
from stepcoder_jax.execution import open_pool
from stepcoder_jax.feedback import cccs
from stepcoder_jax.feedback.cccs import CurriculumState
from stepcoder_jax.feedback.contexts import Contexts, part_metrics
from stepcoder_jax.feedback.rewards import batch
from stepcoder_jax.feedback.rewards.terms import OwnRewardError
from stepcoder_jax.progress import StepProgress, describe_iteration, describe_tokens
from stepcoder_jax.pytrees import TrainState
from stepcoder_jax.records import Problem, Task
from stepcoder_jax.results import diagnosis
from stepcoder_jax.results.logger import (
    DROPPED,
    HostLog,
    Logger,
    encode_row,
    open_log,
    to_json,
)
from stepcoder_jax.runs import generate, iteration_metrics, schedule
from stepcoder_jax.runs.closing import close
from stepcoder_jax.runs.disk.common import require_same_level
from stepcoder_jax.runs.disk.interrupt import Interrupt, Stopped
from stepcoder_jax.runs.disk.run_folder import RunFolder, room
from stepcoder_jax.runs.generate import Coder
from stepcoder_jax.runs.guards.not_finite import LeftOut
from stepcoder_jax.runs.guards.stopping import stop
from stepcoder_jax.runs.guards.watch import Watch
from stepcoder_jax.runs.hosts.channel import OthersError, part, together
from stepcoder_jax.runs.iteration import Iteration, Stopwatch, rollout_rows
from stepcoder_jax.runs.posing import buffer, dynamic
from stepcoder_jax.runs.posing.buffer import Buffer
from stepcoder_jax.runs.posing.dynamic import Batch, Own
from stepcoder_jax.runs.rl_run import Run
from stepcoder_jax.runs.shares import cores, known, telling
from stepcoder_jax.runs.worth.appraising import Appraiser, Scheme
from stepcoder_jax.runs.worth.teaching import add_written
from stepcoder_jax.tracking import trackers

# sysexits.h, EX_UNAVAILABLE: what the run needs, a judge that works, is not there
JUDGE_FAILS = 69


class JudgeFailsError(Exception):
    """No program could be judged in run.max_empty iterations in a row."""


class Roller:
    """Tasks of an iteration to judged rollouts, as often as it wants some."""

    def __init__(
        self,
        config: Config,
        coder: Coder,
        actor: Any,
        contexts: Contexts | None,
        scheme: Scheme,
        step: int,
    ) -> None:
        self.config, self.coder, self.actor = config, coder, actor
        self.contexts, self.step = contexts, step
        self.worth = Appraiser(config, coder, actor, scheme)
        self.greedy_tokens = 0  # of programs that rewards are judged against
        self.watch = Stopwatch()
        self.own: dict[str, float] = {}  # what this host's pool has counted so far
        self.counts: dict[str, float] = {}  # and those of all hosts

    def __call__(self, tasks: list[Task], first: int) -> Batch:
        """Judged rollouts of tasks, before which `first` were drawn in the iteration."""
        config, index = self.config, self.step * self.config.batch_size + first
        with part("sample", self.step):  # and then "judge"
            rollout, judged = generate.roll_out(
                self.coder, self.actor, tasks, self.step, index
            )
        baseline, terms = None, self.worth.bind(tasks, judged.completions)
        if self.worth.has_baseline:
            with part("sample", self.step):
                baseline = self.worth.find_baseline(tasks)
            self.greedy_tokens += baseline.tokens
        rows, mask = judged.rows, rollout.mask
        # a user's own may fail on the rows of one host alone
        fails = (OwnRewardError,) if any(term.file for term in terms) else ()
        with self.watch.part("feedback"), together(f"rewards from {index}", *fails):
            feedback, columns = batch.feedback(
                judged.programs,
                judged.reports,
                mask[rows],
                reward=config.reward,
                fgo=config.fgo,
                seed=config.run.seed,
                step=self.step,
                terms=terms if self.contexts is None else (),
                truncated=rollout.truncated[rows],
                rows=[first + row for row in rows],
            )
            if self.contexts is not None:
                posed = [tasks[row] for row in rows]
                feedback, more = self.contexts.judge(
                    posed, judged.answers, judged.reports, mask[rows], feedback
                )
                columns |= more
        self.own = iteration_metrics.of_judge(self.coder.pool)
        with part("judge", self.step):  # until the slowest host has judged
            feedback, columns, reports, self.counts = known.agree(
                rows, judged.reports, feedback, columns, self.own, len(tasks)
            )
        feedback = self.worth.complete(rollout, reports, feedback, baseline)
        self.watch.add("sample", judged.seconds_sampled)
        self.watch.add("judge", judged.seconds_waited)  # what decoding did not hide
        own = Own(rows, judged.answers, judged.programs, judged.reports)
        return Batch(tasks, own, reports, rollout, feedback, columns)

    def others(
        self,
        problems: Sequence[Problem],
        curriculum: CurriculumState,
        tasks: list[Task],
        chances: np.ndarray | None,
    ) -> list[Task]:
        """The tasks that may take the place of `tasks`: none without dynamic sampling."""
        config = self.config
        found = cccs.choose_extra(
            problems,
            curriculum,
            tasks,
            step=self.step,
            seed=config.run.seed,
            sampling=config.sampling,
            config=config.cccs,
            chances=chances,
        )
        return found if self.contexts is None else self.contexts.pose(found)


def iterate(
    config: Config,
    coder: Coder,
    problems: Sequence[Problem],
    reference: Any,
    state: TrainState,
    curriculum: CurriculumState,
    contexts: Contexts | None = None,
    scheme: Scheme = Scheme(),  # noqa: B008
    chances: np.ndarray | None = None,
    kept_back: Buffer | None = None,
) -> tuple[TrainState, CurriculumState, Iteration]:
    """One iteration: choose, sample, run, score, learn, move on.

    `chances` are those of `posing.profile`; None: each problem is drawn as often.
    `kept_back` are the rollouts of `posing.buffer` so far. Raises LeftOut where an update
    was not finite.
    """
    step, seed = int(state.step), config.run.seed
    tasks = cccs.choose_tasks(
        problems,
        curriculum,
        step=step,
        seed=seed,
        sampling=config.sampling,
        config=config.cccs,
        chances=chances,
    )
    if contexts is not None:
        tasks = contexts.pose(tasks)
    coder.pool.reset_metrics()
    roll = Roller(config, coder, state.actor, contexts, scheme, step)
    first, group = roll(tasks, 0), config.sampling.rollouts_per_problem
    others = roll.others(problems, curriculum, tasks, chances)
    filled = dynamic.fill(first, others, group, roll)
    kept, judged = filled.kept, filled.judged
    drawn = buffer.of_batch(kept)
    if config.sampling.buffer:
        kept_back = buffer.push(kept_back, kept, step, config.sampling.buffer)
        drawn = buffer.draw(kept_back, len(kept.tasks), config.compared, seed, step)
    rows = add_written(config, coder, problems, curriculum, drawn, step)
    with roll.watch.part("update"), part("update", step):
        state, experience, looked, learnt = coder.steps.learn(state, reference, *rows)
        looked, experience, learnt = sharding.to_host((looked, experience, learnt))
    place = int(learnt.pop("nonfinite_first"))
    if learnt.pop("nonfinite"):
        raise LeftOut(state, experience, place)
    mask, feedback = judged.rollout.mask, judged.feedback
    metrics = {
        **roll.counts,
        **batch.metrics(judged.reports, mask, feedback),
        **batch.numbers_of(judged.columns),
        **(part_metrics(feedback, mask) if contexts is not None else {}),
        **cccs.metrics(curriculum, judged.tasks, judged.reports, config.cccs),
        **iteration_metrics.of_learning(looked, learnt, drawn.reports),
        **drawn.metrics,
        **roll.watch.seconds,
    }
    dropped, complaint = list(dynamic.dropped_rows(filled, group)), ""
    if config.sampling.extra_problems:
        metrics |= dynamic.metrics(filled, group)
        complaint = dynamic.complaint(filled, group)
    curriculum = cccs.advance(curriculum, judged.tasks, judged.reports, config.cccs)
    done = Iteration(
        step=step,
        tasks=kept.tasks,
        own=kept.own,
        reports=kept.reports,
        rollout=kept.rollout,
        feedback=kept.feedback,
        experience=experience,
        places=drawn.places,
        metrics=metrics,
        counts=roll.own,
        posed=judged.tasks,
        judged=judged.reports,
        dropped=dropped,
        generated=int(np.asarray(mask).sum()) + roll.greedy_tokens,
        complaint=complaint,
        kept_back=kept_back,
    )
    return state, curriculum, done


def learn(run: Run, logger: Logger | HostLog, interrupt: Interrupt) -> None:
    """Iterate until run.total_steps or run.total_tokens.

    Raises Stopped where a signal ends it before: `run` is then as after its last whole
    iteration, but for a validation that was given up. Raises JudgeFailsError after too
    many iterations that taught nothing, be it the last one.
    """
    config = run.config
    first = int(run.state.step)
    last = 0 if config.run.total_tokens else config.run.total_steps
    every = config.run.rollouts_every
    blank, watch = run.not_validated(), diagnosis.Watch(config)
    signs = Watch(config, logger.before)
    if run.pending is not None:
        conclude(run, logger, first - 1, run.pending)
    with StepProgress(last, "iteration", first=first) as progress:
        while not run.end:
            interrupt.check()
            start = time.perf_counter()
            run.state, run.curriculum, done = iterate(
                config,
                run.coder,
                run.problems,
                run.reference,
                run.state,
                run.curriculum,
                run.contexts,
                Scheme(run.terms, run.asked),
                run.chances,
                run.kept_back,
            )
            run.kept_back = done.kept_back
            run.is_kept = False
            run.note(done.posed, done.judged)
            run.verdicts.update(str(judged.verdict) for judged in done.judged)
            if run.coder.pool.unsafe:
                progress.write(run.coder.pool.banner)
            metrics = done.metrics
            metrics |= run.count(done.generated, metrics["batch/valid_rows"]) | blank
            is_kept = every and done.step % every == 0
            lines = [encode_row(row) for row in rollout_rows(done)] if is_kept else []
            lines, slowest = telling.tell(done.own.rows, lines, metrics)
            metrics |= slowest
            logger.note(done.step, done.counts)
            if is_kept:
                logger.write_rollouts(done.step, lines)
            if done.dropped:
                given_up = map(encode_row, done.dropped)
                logger.write_rollouts(done.step, given_up, DROPPED)
            if done.complaint:
                progress.write(f"iteration {done.step}: {done.complaint}")
            metrics["seconds/iteration"] = time.perf_counter() - start
            conclude(run, logger, done.step, metrics)
            row = {"step": done.step, **metrics}
            mark, warning = watch.look(row)
            for said in [warning] * bool(warning) + signs.look(row):
                progress.write(said)
                logger.write_warning(done.step, said)
            said = describe_iteration(metrics, config.batch_size, mark)
            progress.update(said + describe_tokens(metrics, config.run.total_tokens))
            if run.is_judge_broken:
                raise JudgeFailsError


def conclude(
    run: Run, logger: Logger | HostLog, step: int, metrics: dict[str, Any]
) -> None:
    """Validate, log and save, as far as they are due after iteration `step`."""
    if schedule.is_validation_due(run.spent, run.config):
        # kept by a save, should a signal end the validation
        run.pending = {name: to_json(value) for name, value in metrics.items()}
        start = time.perf_counter()
        metrics |= run.validate()
        metrics["seconds/iteration"] += time.perf_counter() - start
    # also of a row that waited, where it is not due any more: more steps are wanted
    run.pending, run.is_kept = None, False
    metrics |= run.folder.saver.seconds()
    logger.write(step, metrics)
    if schedule.is_save_due(run.spent, run.config.run):
        run.save(best=False)


def train(config: Config) -> int:
    """A whole run; exit code 0, `interrupt.code` when a signal ended it early, or 69
    without a judge."""
    joining.join_hosts(config.run.join_minutes)
    trackers.require(config.run.track)
    RunFolder(config.run.folder).settle(config.run)
    orbax_logging.set_verbosity(orbax_logging.ERROR)  # its warnings tear the progress bar
    if config.run.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.run.compilation_cache)
    coverage = "none" if config.fgo.mask == "none" else config.fgo.granularity
    settings = cores.pool_settings(config.execution, coverage=coverage)
    with (
        open_pool(settings) as pool,
        Interrupt(config.run.walltime) as interrupt,
        room(config.run.folder),
        contextlib.ExitStack() as stack,
    ):
        require_same_level(pool)
        run = Run(config, pool)
        stack.push(run.folder.saver.leave)
        try:
            with run.folder.starting():
                run.judge_before()
                logger = open_log(
                    run.folder.path,
                    jax.process_index(),
                    track=config.run.track,
                    start_step=run.next_row,
                    about=config.to_dict(),
                )
            with logger:
                learn(run, logger, interrupt)
            close(run)
            return 0
        except LeftOut as left:
            stop(run, left)
        except (Stopped, JudgeFailsError, OwnRewardError, OthersError) as end:
            if not run.is_kept:
                run.save(best=False)
            run.folder.saver.wait()
            if isinstance(end, OwnRewardError | OthersError):
                raise
            saved = f"saved iteration {int(run.state.step)} in {run.folder.path}"
            said, code = (
                f"{saved}; go on with the same command and --run.resume",
                JUDGE_FAILS,
            )
            if isinstance(end, Stopped):
                code = interrupt.code
            else:
                said = (
                    f"stopped: no program could be judged in {run.empty} iterations in a "
                    f"row (run.max_empty); {saved}; run `stepcoder doctor`, then resume"
                )
            if jax.process_index() == 0:
                print(said, file=sys.stderr)
            return code
