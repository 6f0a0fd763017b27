"""What a model answered: a program, and behind a failed one perhaps an explanation of it.

The first answer to a problem continues an open fence (`prompts.decode`). An answer to what
running a program said is prose and then a program in a fence that the model opens. The last
whole block is the code, and all before its fence is the explanation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from stepcoder_jax import syntax
from stepcoder_jax.feedback import prompts
from stepcoder_jax.records import Mode, Program, Report, Task, Verdict

_LANGUAGES = (b"", b"python", b"python3", b"py")


class Answer(NamedTuple):
    """An answer's parts. The program's spans are of all tokens, None in the explanation."""

    program: Program | None  # None: it holds no whole block of code
    explanation: str
    explanation_tokens: int  # those that end before the opening fence; of blanks alone 0
    truncated: bool = False  # ended by the length limit


def stand_in(task: Task, number: int) -> Program:
    """The program of an answer that holds none, of so many tokens: all are outside."""
    return Program(task.problem, "", 0, (None,) * number)


def without_code(task: Task) -> Report:
    """The report on it, which no judge was asked for: it does not compile."""
    weak = task.problem.mode is Mode.ASSERT_INPROC
    said = "the answer holds no whole block of code"
    return Report(Verdict.COMPILE, (), frozenset(), said, weak)


class _Block(NamedTuple):
    """Byte offsets of a fenced block; `end` None where nothing closes it."""

    fence: int
    start: int  # of its code
    end: int | None


def read(task: Task, ids: Sequence[int], table: list[bytes], fence: str) -> Answer:
    """The answer to a task; `table` is `prompts.token_bytes(tokenizer)`."""
    if not task.before:
        return Answer(prompts.decode(task, ids, table, fence), "", 0)
    pieces = prompts.pieces_of(ids, table)
    data = b"".join(pieces)
    blocks = _find_blocks(data, fence.encode())
    whole = [block for block in blocks if block.end is not None]
    chosen = whole[-1] if whole else next(iter(blocks), None)
    end = chosen.fence if chosen else len(data)
    explanation, _ = syntax.decode_lossy(data[:end])
    program = None
    if chosen and chosen.end is not None:
        program = prompts.part_of(task, pieces, chosen.start, chosen.end)
    count = _tokens_before(pieces, end) if explanation.strip() else 0
    return Answer(program, explanation, count)


def _find_blocks(data: bytes, fence: bytes) -> list[_Block]:
    """The blocks of Python; a line that begins with the fence opens or closes one."""
    places = [found.start() for found in re.finditer(rb"(?m)^" + re.escape(fence), data)]
    ends: list[int | None] = [*places[1::2], None]
    blocks = []
    for place, end in zip(places[::2], ends):
        line = data.find(b"\n", place)
        start = len(data) if line < 0 else line + 1
        language = data[place + len(fence) : start].strip().lower()
        if language in _LANGUAGES:
            blocks.append(_Block(place, start, end))
    return blocks


def _tokens_before(pieces: Sequence[bytes], end: int) -> int:
    """How many of the first tokens hold no byte from `end` on."""
    size = 0
    for count, piece in enumerate(pieces):
        size += len(piece)
        if size > end:
            return count
    return len(pieces)
