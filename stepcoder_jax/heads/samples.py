"""Judged programs as rows that a head learns from, and which of them are held out.

They are those of a run's rollouts/STEP.jsonl. A problem is held out whole: its programs are
much alike, so that some of them would give the others away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.feedback.sft_rows import Encode, Example
from stepcoder_jax.models.heads import OUTCOMES, Kind
from stepcoder_jax.records import Problem, Task, Verdict

HELD_OUT = 5  # of so many problems one, by its id
_STEP = 64  # rows are padded to a multiple of so many tokens

# CodeRL's classes: the harness has no others (`get_error_type` of its released code)
CLASS_OF = {
    Verdict.COMPILE: "compile",
    **dict.fromkeys(
        (Verdict.RUNTIME, Verdict.TIMEOUT, Verdict.MEMORY, Verdict.OUTPUT), "runtime"
    ),
    Verdict.WRONG: "failed",
    Verdict.PASS: "passed",
}


class Sample(NamedTuple):
    """What one decision of a head is about: a program, or a written one and a sampled."""

    programs: tuple[Example, ...]
    label: int  # outcome: of OUTCOMES; pair: 0, the first is the written one
    group: str  # what accuracies are told by: the class of the sampled program
    problem: str


class Batch(NamedTuple):
    """Programs of B samples, of one sample behind each other; empty rows fill it up."""

    tokens: Any  # i32[B * n, L]
    mask: Any  # bool[B * n, L], the program's tokens
    labels: Any  # i32[B]
    weights: Any  # f32[B], 0 for a row that fills up


def read_samples(
    rows: Iterable[Mapping[str, Any]],
    problems: Mapping[str, Problem],
    encode: Encode,
    kind: Kind,
) -> tuple[list[Sample], int]:
    """Samples of rows of rollouts, and how many rows gave none.

    Left out are invalid rows, answers to failed programs, problems that are not there, and
    programs that are too long or without a token of their own. Outcomes have each problem's
    canonical solution as one more program that passes, as CodeRL (section 3.2.2). Pairs
    have the rest of the canonical solution behind the same head beside the sampled one.
    """
    samples: list[Sample] = []
    written: set[str] = set()
    left_out = 0
    for row in rows:
        problem = problems.get(row["problem"])
        sampled = None
        if problem is not None and row["valid"] and "turns" not in row:
            task = Task(problem, 0, row["stage"], row["head"])
            sampled = encode(task, row["completion"])
        if problem is None or sampled is None:
            left_out += 1
            continue
        group = CLASS_OF[Verdict(row["verdict"])]
        canonical = behind(task, encode)
        if kind == "pair":
            if canonical is None or canonical.ids == sampled.ids:
                left_out += 1
            else:
                samples.append(Sample((canonical, sampled), 0, group, problem.id))
            continue
        samples.append(Sample((sampled,), OUTCOMES.index(group), group, problem.id))
        if canonical is not None and problem.id not in written:
            written.add(problem.id)
            passed = OUTCOMES.index("passed")
            samples.append(Sample((canonical,), passed, "passed", problem.id))
    return samples, left_out


def behind(task: Task, encode: Encode) -> Example | None:
    """The canonical solution behind the task's head; None where it does not go on so."""
    solution = task.problem.solution
    if not solution or not solution.startswith(task.head):
        return None
    return encode(task, solution[len(task.head) :].rstrip("\n"))


def split(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Those that are learnt, and those of problems that are held out."""

    def is_held_out(sample: Sample) -> bool:
        name = hashlib.sha256(sample.problem.encode("utf-8", "surrogatepass"))
        return int(name.hexdigest(), 16) % HELD_OUT == 0

    learnt = [sample for sample in samples if not is_held_out(sample)]
    return learnt, [sample for sample in samples if is_held_out(sample)]


def width_of(samples: Sequence[Sample]) -> int:
    """Columns that hold the longest program."""
    longest = max(len(each.ids) for sample in samples for each in sample.programs)
    return -(-longest // _STEP) * _STEP


def arrays_of(
    programs: Sequence[Example], rows: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens i32[rows, width] packed from the left, and which of them are the programs'.

    Of a row that fills up the first token counts as one: nothing is read of it.
    """
    tokens = np.zeros((rows, width), np.int32)
    mask = np.zeros(tokens.shape, bool)
    mask[len(programs) :, 0] = True
    for row, program in enumerate(programs):
        tokens[row, : len(program.ids)] = program.ids
        mask[row, program.prompt_length : len(program.ids)] = True
    return tokens, mask


def make_batch(samples: Sequence[Sample], size: int, width: int) -> Batch:
    """A batch of `size` samples, of which the last ones may be missing."""
    programs = [program for sample in samples for program in sample.programs]
    tokens, mask = arrays_of(programs, size * len(samples[0].programs), width)
    labels = np.zeros(size, np.int32)
    labels[: len(samples)] = [sample.label for sample in samples]
    return Batch(tokens, mask, labels, (np.arange(size) < len(samples)).astype(np.float32))
