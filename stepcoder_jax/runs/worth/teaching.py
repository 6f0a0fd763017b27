"""Written programs that an iteration learns behind its rollouts: runs/posing/written.py."""

from __future__ import annotations

from collections.abc import Sequence

from stepcoder_jax.config import Config
from stepcoder_jax.feedback.cccs import CurriculumState
from stepcoder_jax.feedback.sft_rows import write_on
from stepcoder_jax.pytrees import Feedback, Rollout
from stepcoder_jax.records import Problem
from stepcoder_jax.runs.generate import Coder
from stepcoder_jax.runs.posing import written
from stepcoder_jax.runs.posing.buffer import Drawn


def add_written(
    config: Config,
    coder: Coder,
    problems: Sequence[Problem],
    curriculum: CurriculumState,
    drawn: Drawn,
    step: int,
) -> tuple[Rollout, Feedback]:
    """What iteration `step` learns from: `config.learnt_rows` rows, rollouts the first."""
    place, more = (config.run.seed, step), config.learnt_rows - config.batch_size
    if not more:
        return drawn.rollout, drawn.feedback
    tasks = written.choose(problems, curriculum, more, place, config.cccs)
    encode = coder.encoder()
    examples = [write_on(task, encode) for task in tasks]
    return written.add(drawn.rollout, drawn.feedback, examples)
