"""The contexts that a run learns from, out of files of records (`data.contexts`)."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from stepcoder_jax.config import Config, ConfigError, RewardConfig
from stepcoder_jax.data.refinements import (
    RefinementRecord,
    group_siblings,
    read_refinements,
)
from stepcoder_jax.feedback import split_rewards
from stepcoder_jax.feedback.contexts import Contexts, Rating
from stepcoder_jax.feedback.split_rewards import Siblings
from stepcoder_jax.records import Problem, Task, Variant
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.similarity.embedders import Embedder, fit_tfidf
from stepcoder_jax.similarity.encoder import load_encoder

Groups = Mapping[str, Sequence[RefinementRecord]]
_MOST_NAMED = 20


def load(
    config: Config, problems: Sequence[Problem], tokenizer: Any, flag: str
) -> Contexts:
    """Each wrong program of the records is one context; those of no use are named.

    These are programs of other problems than `problems`; those that nobody has mended,
    where the reward compares with right answers; and those whose prompts are too long
    (`flag` sets prompt.max_prompt_length). ConfigError where none is left.
    """
    groups = group_siblings(read_refinements(config.data.contexts))
    rating = _rate(config, groups)
    known = {problem.id: problem for problem in problems}
    compares = rating.embed is not None or rating.kind != "tests"
    strangers = [name for name, rows in groups.items() if rows[0].task_id not in known]
    unmended = [
        name
        for name, rows in groups.items()
        if compares and rows[0].task_id in known and not any(row.is_right for row in rows)
    ]
    _tell(strangers, len(groups), "are of no problem that the run learns from (data.path)")
    _tell(unmended, len(groups), "have no right refinement to be compared with")
    out = {*strangers, *unmended}
    names = [name for name in groups if name not in out]
    if not names:
        raise ConfigError(
            f"data.contexts: expected a wrong program of {config.data.path} with a right "
            f"refinement, got {len(groups)} in {', '.join(config.data.contexts)}, of which "
            f"{len(strangers)} are of other problems and {len(unmended)} are not mended"
        )
    named = [
        dataclasses.replace(task, problem=dataclasses.replace(task.problem, id=name))
        for name in names
        for task in [_pose(config, groups[name], known, 0)]
    ]
    out.update(sources.leave_out_long(named, tokenizer, config, flag))
    names = [name for name in names if name not in out]
    return Contexts(
        names,
        [_pose(config, groups[name], known, row) for row, name in enumerate(names)],
        [_right(groups[name]) for name in names],
        rating,
    )


def _pose(
    config: Config, rows: Sequence[RefinementRecord], known: Mapping[str, Problem], row: int
) -> Task:
    """The task of a context, in this row of the pool."""
    problem, variant = known[rows[0].task_id], Variant(config.prompt.variant)
    return Task(problem, row, 0, "", (rows[0].feedback,), variant)


def _right(rows: Sequence[RefinementRecord]) -> Siblings:
    right = [record for record in rows if record.is_right]
    return Siblings(
        tuple(record.refinement for record in right),
        tuple(record.explanation for record in right),
    )


def _rate(config: Config, groups: Groups) -> Rating:
    """The rewards that the config asks for, with an encoder that knows the records."""
    reward, variant = config.reward, Variant(config.prompt.variant)
    embed, chosen = None, split_rewards.PAPER
    if variant is Variant.EXPLAIN and reward.explanation != "none":
        embed = _load_embedder(reward, groups)
        if reward.explanation == "fitted":
            chosen = split_rewards.fit_explanation_map(_explanations(groups), embed)
        elif reward.explanation == "clipped":
            chosen = split_rewards.CLIPPED
    return Rating(reward.program, embed, chosen, reward.one_scalar)


def _load_embedder(reward: RewardConfig, groups: Groups) -> Embedder:
    if reward.encoder:
        return load_encoder(reward.encoder)
    return fit_tfidf(
        text for pair in _explanations(groups) for side in pair for text in side
    )


def _explanations(groups: Groups) -> list[tuple[list[str], list[str]]]:
    """Of each wrong program the explanations of right and of wrong refinements."""
    return [
        (
            [row.explanation for row in rows if row.is_right and row.explanation.strip()],
            [row.explanation for row in rows if not row.passed and row.explanation.strip()],
        )
        for rows in groups.values()
    ]


def _tell(names: Sequence[str], total: int, what: str) -> None:
    if names and jax.process_index() == 0:
        more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
        print(
            f"left out: {len(names)} of {total} wrong programs {what}: "
            f"{', '.join(names[:_MOST_NAMED])}{more}",
            file=sys.stderr,
        )
