"""Tasks to judged programs: the judge works on what has ended while the rest decodes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.config import Config, PromptConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback import prompts
from stepcoder_jax.progress import CountProgress
from stepcoder_jax.pytrees import PromptBatch, Rollout
from stepcoder_jax.records import Program, Report, Task, Verdict
from stepcoder_jax.runs.disk.interrupt import breakable
from stepcoder_jax.sampling import slots
from stepcoder_jax.sampling.slots import Completion, FindStop


class Coder(NamedTuple):
    """All that turns tasks into judged programs, but for the parameters."""

    steps: Steps
    pool: Pool
    tokenizer: Any
    table: list[bytes]  # prompts.token_bytes(tokenizer)
    find_stop: FindStop
    prompt: PromptConfig

    @classmethod
    def make(cls, config: Config, steps: Steps, pool: Pool, tokenizer: Any) -> Coder:
        table = prompts.token_bytes(tokenizer)
        find_stop = prompts.stop_finder(tokenizer, config.prompt.fence)
        return cls(steps, pool, tokenizer, table, find_stop, config.prompt)

    def encode(self, tasks: Sequence[Task], first: int) -> PromptBatch:
        """The prompts of tasks whose global rollout indices begin at `first`."""
        index = np.arange(first, first + len(tasks))
        return prompts.encode(tasks, self.tokenizer, self.prompt, index)


class Judged(NamedTuple):
    """Rollouts with what the judge said, all in the order of their tasks."""

    completions: list[Completion]
    programs: list[Program]
    reports: list[Report]
    seconds_sampled: float  # from the start to the last token
    seconds_waited: float  # from the last token to the last verdict


def agree(reports: Sequence[Report]) -> list[Report]:
    """The reports with process 0's verdicts.

    Clocks differ between hosts: one that alone saw a timeout would go on with another
    curriculum.
    """
    known = list(Verdict)
    codes = np.array([known.index(report.verdict) for report in reports], np.int32)
    return [
        report if known[code] is report.verdict else replace(report, verdict=known[code])
        for report, code in zip(reports, sharding.from_first(codes), strict=True)
    ]


def roll_out(
    coder: Coder, actor: Any, tasks: Sequence[Task], step: int
) -> tuple[Rollout, Judged]:
    """Completions of the tasks of iteration `step`, drawn and judged; row i is task i's.

    `prompts.encode` -> `Steps.sample` -> `prompts.decode` -> `Pool.stream`, the last three
    at the same time.
    """
    batch = coder.encode(tasks, first=step * len(tasks))
    coder.pool.reset_metrics()
    stream = coder.steps.sample(actor, batch, step, coder.find_stop)
    judged = judge_stream(coder, tasks, stream, label="")
    columns = coder.steps.config.sampling.max_completion_length
    return slots.collect(batch, columns, judged.completions), judged


def judge_stream(
    coder: Coder, tasks: Sequence[Task], stream: Iterator[list[Completion]], label: str
) -> Judged:
    """Judge completions as they end, one for each task; row i of them continues task i.

    The pool takes programs without limit, so that decoding never waits for it. Verdicts
    are counted aloud where there is a `label`.
    """
    completions: list[Completion] = []
    programs: list[Program] = []
    started = time.perf_counter()
    last_token = started

    def as_they_end() -> Iterator[Program]:
        nonlocal last_token
        for done in stream:
            for completion in done:
                task, ids = tasks[completion.row], completion.tokens.tolist()
                completions.append(completion)
                programs.append(prompts.decode(task, ids, coder.table, coder.prompt.fence))
                yield programs[-1]
        last_token = time.perf_counter()

    reports: dict[int, Report] = {}
    progress = CountProgress(len(tasks), "program", label, is_quiet=not label)
    with breakable(), progress as bar:
        for place, report in coder.pool.stream(as_they_end(), window=len(tasks)):
            reports[place] = report
            bar.update()
    ended = time.perf_counter()
    order = sorted(range(len(tasks)), key=lambda place: completions[place].row)
    return Judged(
        completions=[completions[place] for place in order],
        programs=[programs[place] for place in order],
        reports=agree([reports[place] for place in order]),
        seconds_sampled=last_token - started,
        seconds_waited=ended - last_token,
    )


def complete_greedily(
    coder: Coder, actor: Any, tasks: Sequence[Task], label: str
) -> Judged:
    """The greedy program of each task, judged."""
    batch = coder.encode(tasks, first=0)
    stream = coder.steps.sample_greedy(actor, batch, coder.find_stop)
    return judge_stream(coder, tasks, stream, label)
