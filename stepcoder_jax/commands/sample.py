"""`stepcoder sample MODEL`: greedy programs, what ran of them, and what a test says."""

from __future__ import annotations

import dataclasses
import sys

from stepcoder_jax.config import ConfigError
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.feedback import fgo, rewards
from stepcoder_jax.results import report
from stepcoder_jax.runs import failing, restore
from stepcoder_jax.runs.generate import complete_greedily
from stepcoder_jax.runs.greedy import whole_tasks


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The flags of `stepcoder sample`."""

    run: str
    split: Split
    step: int | None
    before: bool
    problems: str  # a file; "": those of the split
    count: int
    asked: restore.Asked


def sample_run(wanted: Wanted) -> int:
    """Show greedy programs: what ran, what did not, verdict, reward, the failing test."""
    if wanted.count < 1:
        raise ConfigError(f"--count: expected at least 1, got {wanted.count}")
    restore.check_problems(wanted.run, wanted.problems)
    ansi = report.wants_colour(sys.stdout)
    place = (wanted.run, wanted.step, wanted.before)
    with restore.opened(*place, asked=wanted.asked) as (config, coder, actor, label):
        picked = restore.pick(
            wanted.run,
            config,
            wanted.problems,
            wanted.split,
            wanted.count,
            coder.tokenizer,
        )
        tasks = whole_tasks(picked.problems)
        results = complete_greedily(coder, actor, tasks, picked.source)
        print(f"{wanted.run}, {label}, greedy")
        for program, judged in zip(results.programs, results.reports, strict=True):
            kept = fgo.byte_mask(program.source, judged, config.fgo.keep_uncompiled)
            reward = rewards.outcome_reward(judged, config.reward)
            statement = report.show_controls(program.problem.statement.strip())
            print(f"\n{report.show_controls(program.problem.id)}: {statement}")
            print(report.show(program, judged, kept, reward, ansi))
            if not judged.passed:
                print(failing.describe(program, judged))
    return 0
