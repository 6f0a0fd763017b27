"""Supervised text as rows of tokens: what an example is, and how examples fill batches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.config import Config, ConfigError, SFTConfig
from stepcoder_jax.feedback import cuts, prompts
from stepcoder_jax.pytrees import TextBatch
from stepcoder_jax.records import Problem, Task

BUCKET = 64  # rows are padded to a multiple of this many tokens, so few shapes compile


class Example(NamedTuple):
    """A prompt, its completion, and where the completion begins."""

    ids: list[int]
    prompt_length: int


class Group(NamedTuple):
    """What one update learns from: the examples of each row, and the rows' width."""

    rows: list[list[Example]]
    width: int

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return sum(len(example.ids) for row in self.rows for example in row)


Encode = Callable[..., Example | None]  # task, code, explanation = ""


def encoder(tokenizer: Any, config: Config, table: list[bytes] | None = None) -> Encode:
    """A function: a task, the code behind its head, an explanation -> an example.

    The completion is the code, its closing fence and EOS; of a task with attempts before it
    the explanation, where there is one, and the code between both its fences. None for an
    example over prompt.max_prompt_length or sampling.max_completion_length. `table` is
    `prompts.token_bytes(tokenizer)`, where it is known.
    """
    prompt, pieces = config.prompt, table or prompts.token_bytes(tokenizer)

    def encode(task: Task, code: str, explanation: str = "") -> Example | None:
        start = prompts.prompt_ids(task, tokenizer, prompt)
        text = (code if code.endswith("\n") else code + "\n") + prompt.fence
        if task.before:
            told = explanation.strip()
            text = f"{told}{told and chr(10)}{prompt.fence}python\n{text}"
        end = [*prompts.completion_ids(text, tokenizer, pieces), tokenizer.eos_token_id]
        fits = len(end) <= config.sampling.max_completion_length
        if not fits or len(start) > prompt.max_prompt_length:
            return None
        return Example(start + end, len(start))

    return encode


def canonical(
    problems: Sequence[Problem], tokenizer: Any, config: Config
) -> tuple[list[Example], int]:
    """Canonical solutions, and how many were left out: too long, or no solution."""
    encode = encoder(tokenizer, config)
    tasks = [Task(each, i, 0, cuts.head(each, 0)) for i, each in enumerate(problems)]
    found = [x for x in (write_on(task, encode) for task in tasks) if x is not None]
    return found, len(problems) - len(found)


def write_on(task: Task, encode: Encode) -> Example | None:
    """The canonical solution behind the task's head; None: it has none, or a long one.

    The starter code, which opens a whole program, is left out where the solution does not
    begin with it.
    """
    solution = task.problem.solution
    if not solution:
        return None
    if not solution.startswith(task.head):
        task = dataclasses.replace(task, head="")
    return encode(task, solution[len(task.head) :].rstrip("\n"))


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 of the examples in their order: what a resumed run must have again."""
    found = hashlib.sha256()
    for ids, prompt_length in examples:
        found.update(np.array([prompt_length, len(ids), *ids], np.int64).tobytes())
    return found.hexdigest()


def make_batch(group: Group, batch_size: int) -> TextBatch:
    """Rows of `group.width` tokens, one example behind the other."""
    tokens = np.zeros((batch_size, group.width), np.int32)
    segments = np.zeros_like(tokens)
    scored = np.zeros(tokens.shape, bool)
    for i, row in enumerate(group.rows):
        start = 0
        for number, example in enumerate(row, start=1):
            end = start + len(example.ids)
            tokens[i, start:end] = example.ids
            segments[i, start:end] = number
            scored[i, start + example.prompt_length : end] = True
            start = end
    return TextBatch(tokens, segments, scored)


def bucket(
    examples: Sequence[Example], order: Sequence[int], batch_size: int
) -> list[Group]:
    """One example per row; examples of like length share a batch, so little is padding."""
    open_groups: dict[int, Group] = {}
    groups = []
    for i in order:
        width = -(-len(examples[i].ids) // BUCKET) * BUCKET
        group = open_groups.setdefault(width, Group([], width))
        group.rows.append([examples[i]])
        if len(group.rows) == batch_size:
            groups.append(group)
            open_groups[width] = Group([], width)
    return [*groups, *(group for group in open_groups.values() if group.rows)]


def pack(
    examples: Sequence[Example], order: Sequence[int], width: int
) -> list[list[Example]]:
    """Rows of up to `width` tokens: first-fit decreasing (Johnson, 1973).

    The longest example comes first, those of one length as `order` has them, and each goes
    into the first row that has room. Raises ConfigError for an example over `width`.
    """
    by_length = sorted(order, key=lambda i: -len(examples[i].ids))
    longest = len(examples[by_length[0]].ids)
    if longest > width:
        raise ConfigError(
            f"sft.packing: expected at least {longest}, the tokens of the longest example, "
            f"got {width}; set --sft.packing"
        )
    rows: list[list[Example]] = []
    room = np.full(len(examples), width)
    for i in by_length:
        size = len(examples[i].ids)
        place = int(np.argmax(room[: len(rows) + 1] >= size))
        if place == len(rows):
            rows.append([])
        rows[place].append(examples[i])
        room[place] -= size
    return rows


def epoch(
    examples: Sequence[Example], settings: SFTConfig, seed: int, index: int
) -> list[Group]:
    """One pass over all examples in an order that (seed, index) gives."""
    rng = np.random.default_rng([seed, index])
    order, size = rng.permutation(len(examples)).tolist(), settings.batch_size
    if settings.packing:
        rows = pack(examples, order, settings.packing)
        rows = [rows[i] for i in rng.permutation(len(rows))]
        starts = range(0, len(rows), size)
        return [Group(rows[i : i + size], settings.packing) for i in starts]
    groups = bucket(examples, order, size)
    return [groups[i] for i in rng.permutation(len(groups))]


def plan(examples: Sequence[Example], settings: SFTConfig, seed: int) -> int:
    """Number of updates: whole epochs, and the share of the last one."""
    whole, rest = divmod(settings.epochs, 1)
    count = sum(len(epoch(examples, settings, seed, i)) for i in range(int(whole)))
    if rest:
        count += int(rest * len(epoch(examples, settings, seed, int(whole))))
    if not count:
        raise ConfigError(
            f"sft.epochs: {settings.epochs:g} epochs of {len(examples)} examples are less "
            "than one update; set --sft.epochs higher or --sft.batch_size lower"
        )
    return count
