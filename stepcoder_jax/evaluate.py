"""Greedy pass@1: `stepcoder evaluate` and the train loop's measure of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from stepcoder_jax import cccs, prompts, sharding
from stepcoder_jax.config import Config, PromptConfig
from stepcoder_jax.data.generated import Split
from stepcoder_jax.execution import Pool, PoolSettings, open_pool
from stepcoder_jax.records import Problem, Program, Report, Task, Verdict
from stepcoder_jax.sampling import FindStop
from stepcoder_jax.sources import limit_cpu, load_problems
from stepcoder_jax.steps import Steps
from stepcoder_jax.summary import Graded


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


def agree(reports: Sequence[Report]) -> list[Report]:
    """The reports with process 0's verdicts: clocks differ between hosts, and one that saw
    a timeout of its own would go on with another curriculum."""
    known = list(Verdict)
    codes = np.array([known.index(report.verdict) for report in reports], np.int32)
    return [
        report if known[code] is report.verdict else replace(report, verdict=known[code])
        for report, code in zip(reports, sharding.from_first(codes), strict=True)
    ]


def whole_tasks(problems: Sequence[Problem]) -> list[Task]:
    """Every problem at stage 0: nothing of its solution is given."""
    return [
        Task(problem, i, stage=0, head=cccs.head(problem, 0))
        for i, problem in enumerate(problems)
    ]


def complete_greedily(
    coder: Coder, actor: Any, tasks: Sequence[Task], batch_size: int, label: str
) -> list[tuple[Program, Report]]:
    """The greedy program of each task, judged; a batch decodes while one is judged."""
    results: list[tuple[Program, Report]] = []
    starts = range(0, len(tasks), batch_size)
    for start in tqdm(starts, desc=label, unit="batch", leave=False):
        chosen = tasks[start : start + batch_size]
        index = np.arange(start, start + len(chosen))
        batch = prompts.encode(chosen, coder.tokenizer, coder.prompt, index)
        rollout = coder.steps.sample_greedy(actor, batch, coder.find_stop)
        programs = prompts.decode(chosen, rollout, coder.table, coder.prompt.fence)
        results += zip(programs, agree(coder.pool.run(programs)), strict=True)
    return results


def grade(
    coder: Coder, actor: Any, problems: Sequence[Problem], batch_size: int, label: str
) -> list[Graded]:
    """Greedy pass@1's raw material: the verdict of one greedy program per problem."""
    results = complete_greedily(coder, actor, whole_tasks(problems), batch_size, label)
    return [
        Graded(problem.id, problem.difficulty, report.verdict)
        for problem, (_, report) in zip(problems, results, strict=True)
    ]


def pass_rate(rows: Sequence[Graded]) -> float:
    """Share that passed, over the rows that our own machinery did not fail on."""
    valid = [
        row.verdict is Verdict.PASS for row in rows if row.verdict is not Verdict.INFRA
    ]
    return float(np.mean(valid)) if valid else float("nan")


def scores(rows: Sequence[Graded], prefix: str) -> dict[str, float]:
    """Metrics: pass@1 overall and by difficulty, and the share that compiles."""
    numbers = {f"{prefix}/pass@1": pass_rate(rows)}
    for difficulty in dict.fromkeys(row.difficulty for row in rows):
        chosen = [row for row in rows if row.difficulty == difficulty]
        numbers[f"{prefix}/pass@1_{difficulty}"] = pass_rate(chosen)
    compiled = [row.verdict is not Verdict.COMPILE for row in rows]
    numbers[f"{prefix}/compiles"] = float(np.mean(compiled))
    return numbers


def grade_params(config: Config, actor: Any, tokenizer: Any, split: Split) -> list[Graded]:
    """Greedy verdicts of host parameters on evaluation.test_problems of a split."""
    steps = Steps(
        config, sharding.make_mesh(config.mesh, jax.devices()), tokenizer.eos_token_id
    )
    problems = load_problems(config.data, split)[: config.evaluation.test_problems]
    problems = limit_cpu(problems, config, split, kept=None)
    with open_pool(PoolSettings(**vars(config.execution), coverage="none")) as pool:
        coder = Coder.make(config, steps, pool, tokenizer)
        size = config.evaluation.batch_size
        return grade(coder, steps.place_params(actor), problems, size, split)
