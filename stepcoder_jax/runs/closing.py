"""The end of a run of RL: verdicts on test, curves, and what is said of it."""

from __future__ import annotations

import time

import jax
import numpy as np

from stepcoder_jax.devices import sharding
from stepcoder_jax.results import diagnosis, summary
from stepcoder_jax.results.drawing import curves
from stepcoder_jax.results.logger import METRICS, read_metrics
from stepcoder_jax.results.summary import Graded
from stepcoder_jax.runs.rl_run import Run


def close(run: Run) -> None:
    """Judge the best checkpoint on test, draw the curves, say what happened."""
    run.folder.saver.wait()
    after: list[Graded] = []
    best, count = run.folder.latest(best=True), run.config.evaluation.test_problems
    if count:
        actor = run.state.actor  # the run keeps it: a signal may end the judging
        if best is not None:
            found = run.folder.newest_networks(run.steps.abstract_state)
            actor = actor if found is None else found[0]
        after = run.grade(actor, "test", count, "test after")
        sharding.on_first(lambda: run.folder.write_after(after))
    if jax.process_index():
        return
    path, judged = run.folder.path, run.verdicts
    rows = read_metrics(path / METRICS)
    shares = [row["cccs/stage0_share"] for row in rows[-10:]]
    curves.draw(path / METRICS, path / "curves.png", path.name, others=run.others)
    print(
        summary.summary(
            run.folder.read_before(),
            after,
            visits=run.curriculum.visits,
            stage0_share=float(np.mean(shares)) if shares else 0.0,
            causes=diagnosis.summarise(rows, run.config),
            config=run.config,
            folder=str(path),
            minutes=(time.monotonic() - run.start) / 60,
        )
    )
    tokens = "uncounted" if run.spent.tokens is None else f"{run.spent.tokens:,}"
    print(
        f"{run.end} ended the run: {run.spent.steps} iterations, {tokens} generated tokens."
    )
    shown = ", ".join(f"{count} {verdict}" for verdict, count in judged.most_common())
    print(f"{judged.total()} rollouts were judged: {shown}.")
