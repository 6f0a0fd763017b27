"""What a batch's programs are worth beside what the judge said of each by itself.

the discriminator's word on each program      where reward.terms have rlcf
the greedy program's reward of each prompt    with algorithm=coderl, coderl.baseline
q_t of each token                             with coderl.critic
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.config import Config
from stepcoder_jax.feedback.rewards import batch, rlcf
from stepcoder_jax.feedback.rewards.table import PAPER
from stepcoder_jax.feedback.rewards.terms import OwnRewardError, Term
from stepcoder_jax.heads.asking import Asked
from stepcoder_jax.pytrees import Feedback, Rollout
from stepcoder_jax.records import Program, Report, Task
from stepcoder_jax.runs.generate import Coder, complete_greedily
from stepcoder_jax.runs.hosts.channel import together
from stepcoder_jax.runs.shares import known
from stepcoder_jax.sampling.slots import Completion


class Baseline(NamedTuple):
    """What the greedy program of each row's prompt earns."""

    rewards: np.ndarray  # f32[B], on its last token
    valid: np.ndarray  # bool[B], False where our own machinery failed on it
    tokens: int  # completion tokens that it took


class Scheme(NamedTuple):
    """How a run's programs are rewarded."""

    terms: Sequence[Term] = PAPER
    asked: Asked = Asked()


class Appraiser(NamedTuple):
    """What is asked of a batch's programs, of one actor."""

    config: Config
    coder: Coder
    actor: Any
    scheme: Scheme

    def bind(self, tasks: Sequence[Task], done: Sequence[Completion]) -> Sequence[Term]:
        """The terms for these completions, of which each host has its own to judge."""
        if self.scheme.asked.discriminator is None:
            return self.scheme.terms
        programs: list[Program] = []
        for task, completion in zip(tasks, done, strict=True):
            program = self.coder.read(task, completion).program
            assert program is not None  # the answer to a problem is one, whatever it is
            programs.append(program)
        found = self.scheme.asked.discriminator.compare(self.actor, tasks, programs)
        return rlcf.bind(self.scheme.terms, found)

    @property
    def has_baseline(self) -> bool:
        """Whether rewards are judged against greedy programs."""
        config = self.config
        return config.takes_returns and config.coderl.baseline == "greedy"

    def find_baseline(self, tasks: Sequence[Task]) -> Baseline:
        """The greedy program's reward for each task.

        Rows of one group have the same task, and one greedy program.
        """
        config = self.config
        group = config.sampling.rollouts_per_problem
        posed = list(tasks[::group])
        judged = complete_greedily(self.coder, self.actor, posed, label="")
        columns = config.sampling.max_completion_length
        sizes = np.array([len(each.tokens) for each in judged.completions])
        cut = [bool(each.truncated) for each in judged.completions]
        mask = np.arange(columns)[None] < sizes[judged.rows][:, None]
        terms = self.bind(posed, judged.completions)
        fails = (OwnRewardError,) if any(term.file for term in terms) else ()
        with together("rewards of greedy programs", *fails):
            rewards, _ = batch.add_up(
                terms,
                judged.programs,
                judged.reports,
                mask,
                config.reward,
                [cut[row] for row in judged.rows],
                judged.rows,
            )
        last = np.where(
            np.arange(columns)[None] == mask.sum(axis=1)[:, None] - 1, rewards, 0
        )
        valid = np.array([report.is_valid for report in judged.reports], bool)
        ours = Feedback(last, mask, valid)
        feedback = known.agree(
            judged.rows, judged.reports, ours, {}, {}, len(posed)
        ).feedback
        return Baseline(
            np.repeat(feedback.rewards.sum(axis=1), group),
            np.repeat(feedback.valid, group),
            int(sizes.sum()),
        )

    def complete(
        self,
        rollout: Rollout,
        reports: Sequence[Report],
        feedback: Feedback,
        baseline: Baseline | None,
    ) -> Feedback:
        """The batch's feedback with baseline and q_t, where these are asked for.

        A row whose greedy program could not be judged is not valid either: what it earned
        more is not known.
        """
        if baseline is not None:
            valid = np.asarray(feedback.valid) & baseline.valid
            feedback = feedback._replace(valid=valid, baseline=baseline.rewards)
        critic = self.scheme.asked.critic
        if critic is not None:
            values = critic.values(self.actor, rollout, reports)
            feedback = feedback._replace(token_values=values)
        return feedback
