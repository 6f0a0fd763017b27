"""Records as supervised text: right refinements, and right first programs beside them.

After arXiv:2405.18649, section 4: each right refinement is learnt in both instructions,
after its explanation and by itself, mixed with first programs that are right. The loss is
on the last answer alone: the wrong program and what running it said are part of the prompt
(sft_rows.Example), so no model learns to write them.

The control, first programs alone, has as many rows an epoch and as many updates; each
first program comes as often as another, or once more.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from stepcoder_jax.config import Config
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.formats.samples import find_problem
from stepcoder_jax.data.refinements import (
    RefinementRecord,
    group_siblings,
    read_refinements,
)
from stepcoder_jax.feedback import sft_rows
from stepcoder_jax.feedback.sft_rows import Example
from stepcoder_jax.records import Problem, Task, Variant
from stepcoder_jax.runs import raft
from stepcoder_jax.similarity.lexemes import spans

# last words of default_rng, beside those of cccs and raft
_SIBLING_STREAM, _BLANK_STREAM = 5, 6
_MOST_NAMED = 20
NO_RIGHT, FENCED, TOO_LONG = (
    "wrong programs without a right refinement",
    "answers with a line that opens with the fence",  # it would end them
    "answers too long for prompt.max_prompt_length or sampling.max_completion_length",
)


class Lessons(NamedTuple):
    """What is learnt."""

    examples: list[Example]
    mixed: list[Example]  # those with the refinements, whose epochs are counted
    told: str  # what became of all records


class Row(NamedTuple):
    """One answer to learn."""

    record: RefinementRecord
    task: Task

    @property
    def explanation(self) -> str:
        return self.record.explanation if self.task.variant is Variant.EXPLAIN else ""


def select(problems: Sequence[Problem], tokenizer: Any, config: Config) -> Lessons:
    """What the files of sft.records teach of these problems.

    What teaches nothing is named on standard error, a line for each reason. Raises
    DataError, one line that names file, row and field, for the first record that is bad;
    where a record's problem is not among `problems`; and where nothing is left to learn.
    """
    settings, left_out = config.sft, collections.defaultdict[str, list[str]](list)
    known = {problem.id: problem for problem in problems}
    records = read_refinements(settings.records)
    _require_known(records, known)
    encode = sft_rows.encoder(tokenizer, config)
    mended: list[Example] = []
    taught: set[int] = set()
    rows = list(_rows(records, known, config, left_out))
    for place, row in enumerate(rows):
        if _has_fence(row, config.prompt.fence):
            left_out[FENCED].append(row.record.wrong_id)
            continue
        task = _blank(row.task, settings.blank_wrong, config.run.seed, place)
        example = encode(task, row.record.refinement, row.explanation)
        if example is None:
            left_out[TOO_LONG].append(row.record.wrong_id)
            continue
        mended.append(example)
        taught.add(row.task.index)
    _name(left_out)
    wrong = len({record.wrong_id for record in records})
    told = f"{len(mended)} rows of refinements of {wrong} wrong programs"
    if not mended:
        raise DataError(
            f"sft.records: {', '.join(settings.records)}: nothing to learn from: {told}; "
            "make more with `stepcoder refine`, or raise the limits of length"
        )
    first = _first(problems, sorted(taught), tokenizer, config)
    told += f", {len(first)} first programs of the same {len(taught)} problems"
    mixed = [*first, *mended]
    if settings.control == "none":
        return Lessons(mixed, mixed, told)
    if not first:
        raise DataError(f"sft.control: first, and there is no first program: {told}")
    again = [first[i % len(first)] for i in range(len(mixed))]
    return Lessons(again, mixed, f"{told}; control: the first programs, {len(again)} rows")


def _require_known(
    records: Sequence[RefinementRecord], known: Mapping[str, Problem]
) -> None:
    for record in records:
        try:
            find_problem({"task_id": record.task_id}, known)
        except DataError as error:
            raise DataError(f"sft.records: {record.wrong_id}: {error}") from None


def _rows(
    records: Sequence[RefinementRecord],
    known: Mapping[str, Problem],
    config: Config,
    left_out: dict[str, list[str]],
) -> Iterator[Row]:
    """The answers to learn, each once; names the wrong programs that have none."""
    places = {name: place for place, name in enumerate(known)}
    for number, (wrong_id, siblings) in enumerate(group_siblings(records).items()):
        right = [record for record in siblings if record.is_right]
        if not right:
            left_out[NO_RIGHT].append(wrong_id)
        seen: set[tuple[Variant, str, str]] = set()
        draw = [config.run.seed, number, _SIBLING_STREAM]
        for record in _choose(right, config.sft.per_wrong, draw):
            problem = find_problem({"task_id": record.task_id}, known)
            for variant in Variant:
                task = Task(
                    problem,
                    places[problem.id],
                    stage=0,
                    head="",
                    before=(record.feedback,),
                    variant=variant,
                )
                row = Row(record, task)
                key = variant, row.explanation, record.refinement.rstrip()
                is_told = bool(row.explanation) == (variant is Variant.EXPLAIN)
                if is_told and key not in seen:
                    seen.add(key)
                    yield row


def _choose(
    right: Sequence[RefinementRecord], most: int, draw: Sequence[int]
) -> Sequence[RefinementRecord]:
    """`most` of the right answers, in their order, explained ones first; 0: all."""
    explained = [record for record in right if record.explanation]
    if not most or len(right) <= most:
        return right
    rng = np.random.default_rng(draw)
    pool = explained if len(explained) >= most else right
    chosen = rng.choice(len(pool), most, replace=False)
    return [pool[i] for i in sorted(chosen)]


def _has_fence(row: Row, fence: str) -> bool:
    lines = [*row.record.refinement.split("\n"), *row.explanation.split("\n")]
    return any(line.startswith(fence) for line in lines)


def _blank(task: Task, share: float, seed: int, place: int) -> Task:
    """The task with this share of the wrong program's tokens blanked."""
    if not share:
        return task
    (attempt,) = task.before
    found = spans(attempt.source)
    rng = np.random.default_rng([seed, place, _BLANK_STREAM])
    parts, end = [], 0
    for (start, stop), number in zip(found, rng.random(len(found))):
        if number < share:
            parts += [attempt.source[end:start], "_"]
            end = stop
    source = "".join([*parts, attempt.source[end:]])
    blanked = dataclasses.replace(attempt, source=source)
    return dataclasses.replace(task, before=(blanked,))


def _first(
    problems: Sequence[Problem], taught: Sequence[int], tokenizer: Any, config: Config
) -> list[Example]:
    """Right first programs of the problems that are taught."""
    if config.sft.samples:
        found, _ = raft.collect(problems, tokenizer, config)
        return [example for place in taught for example in found.get(place, ())]
    chosen = [problems[place] for place in taught]
    return sft_rows.canonical(chosen, tokenizer, config)[0]


def _name(left_out: Mapping[str, Sequence[str]]) -> None:
    if jax.process_index():
        return
    for reason, found in left_out.items():
        names = list(dict.fromkeys(found))
        more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
        named = ", ".join(names[:_MOST_NAMED])
        print(f"left out: {len(found)} {reason}: {named}{more}", file=sys.stderr)
