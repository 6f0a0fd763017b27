"""RAFT, rejection-sampling fine-tuning: the samples that passed, as supervised text.

arXiv:2304.06767, whose reward is here the judge's verdict: of several samples per problem
those that pass all tests are kept, and the model learns to write them. Draw, filter, learn,
and again from the new model, is the simplest RL.

A file is what `stepcoder evaluate --out` (results.jsonl) or `stepcoder judge` writes: one
object per line with task_id, passed, and completion or solution. The prompt is the task's
own with its starter code as the head, as the sample was drawn; the completion is the text
behind it, tokenised anew (files hold text), with the closing fence and EOS.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.config import Config
from stepcoder_jax.data.formats.rows import DataError, Row, require_object, stream_lines
from stepcoder_jax.data.formats.samples import read_sample
from stepcoder_jax.feedback import cuts
from stepcoder_jax.feedback.sft_rows import Example, encoder
from stepcoder_jax.records import Problem, Program, Task, Verdict
from stepcoder_jax.results.judged import read_outcome

WANTED = "judged samples, one JSON object per line"
CAP_STREAM = 3  # last word of default_rng([seed, problem, stream]), beside those of cccs
ROWS = "rows"
NOT_PASSED, WEAK, TRUNCATED, DUPLICATE, TOO_LONG, CAPPED = LEFT_OUT = (
    "not passed",
    "passed weakly",  # graded within reach of the program, which could cheat
    "truncated",  # ended by the length limit: no end to learn
    "duplicates",  # the same text for the same problem
    "too long",  # for prompt.max_prompt_length or sampling.max_completion_length
    "over sft.per_problem",
)

Counts = collections.Counter[str]


class Sample(NamedTuple):
    """What a model wrote, and what it passed; two of them are duplicates when equal."""

    problem: int  # row of the problem among those that are learnt
    head: str  # what opened the response
    code: str  # what the model wrote behind it


def select(
    problems: Sequence[Problem], tokenizer: Any, config: Config
) -> tuple[list[Example], str]:
    """The examples in the files of sft.samples, and in words what became of all rows.

    Problem by problem; errors as of `collect`.
    """
    found, told = collect(problems, tokenizer, config)
    return [example for place in sorted(found) for example in found[place]], told


def collect(
    problems: Sequence[Problem], tokenizer: Any, config: Config
) -> tuple[dict[int, Sequence[Example]], str]:
    """As `select`, by the row of the problem.

    Raises DataError, one line that names file, row and field, for the
    first row that is bad, that was not judged, or whose problem is not among `problems`;
    and where nothing is left to learn from.
    """
    settings, counts = config.sft, Counts()
    encode, found = encoder(tokenizer, config), dict[int, list[Example]]()
    samples = list(read_passed(problems, settings.samples, counts))
    for sample in dict.fromkeys(samples):
        task = Task(problems[sample.problem], sample.problem, 0, sample.head)
        example = encode(task, sample.code)
        if example is None:
            counts[TOO_LONG] += 1
        else:
            found.setdefault(sample.problem, []).append(example)
    counts[DUPLICATE] = len(samples) - len(set(samples))
    kept: dict[int, Sequence[Example]] = {}
    for problem, examples in found.items():
        kept[problem] = draw(examples, settings.per_problem, config.run.seed, problem)
        counts[CAPPED] += len(examples) - len(kept[problem])
    total = sum(map(len, kept.values()))
    told = f"{total} examples of {len(found)} of {len(problems)} problems"
    left_out = ", ".join(f"{counts[name]} {name}" for name in LEFT_OUT if counts[name])
    told += f" out of {counts[ROWS]} rows; left out: {left_out or 'none'}"
    if not total:
        raise DataError(
            f"sft.samples: {', '.join(settings.samples)}: no row to learn from: {told}; "
            "draw more samples, or learn canonical solutions first"
        )
    return kept, told


def draw(
    examples: Sequence[Example], most: int, seed: int, problem: int
) -> Sequence[Example]:
    """`most` examples of a problem, without replacement and in their order; 0: all."""
    if not most or len(examples) <= most:
        return examples
    rng = np.random.default_rng([seed, problem, CAP_STREAM])
    chosen = rng.choice(len(examples), most, replace=False)
    return [examples[i] for i in sorted(chosen)]


def read_passed(
    problems: Sequence[Problem], files: Sequence[str], counts: Counts
) -> Iterator[Sample]:
    """The samples to learn from, duplicates and all; counts the rows that are none."""
    places = {problem.id: place for place, problem in enumerate(problems)}
    known = {problem.id: problem for problem in problems}
    for path in files:
        for row in stream_lines(path, WANTED):
            counts[ROWS] += 1
            try:
                program, fields = check(row, known)
            except DataError as error:
                raise DataError(f"sft.samples: {path}: {row.place}: {error}") from None
            if not fields["passed"]:
                counts[NOT_PASSED] += 1
            elif fields.get("weak"):
                counts[WEAK] += 1
            elif fields.get("truncated"):
                counts[TRUNCATED] += 1
            else:
                yield Sample(places[program.problem.id], *written(program, fields))


def check(row: Row, known: Mapping[str, Problem]) -> tuple[Program, dict[str, Any]]:
    """The program of a judged row, and its fields; DataError names the wrong one."""
    fields = require_object(row)
    program = read_sample(row, known).program
    if "passed" not in fields:
        raise DataError(
            "field passed: expected true or false, but it is missing; `stepcoder judge` "
            "writes it for samples that are not judged yet"
        )
    if read_outcome(fields).verdict is Verdict.INFRA:
        raise DataError(
            "field result: the sample was not judged (infra), so nobody knows whether it "
            "passes; judge the file again"
        )
    return program, fields


def written(program: Program, fields: Mapping[str, Any]) -> tuple[str, str]:
    """The head that the model saw, and what it wrote behind it.

    The head is the starter code with one newline at its end (`cuts.head`), and a row's
    completion continues the starter code as it stands. A whole program that does not begin
    with the head stands behind an empty one.
    """
    starter, head = program.problem.starter_code, cuts.head(program.problem, 0)
    if "solution" not in fields:
        completion: str = fields["completion"]
        if not starter or starter.endswith("\n"):
            return head, completion
        if completion.startswith("\n"):
            return head, completion[1:]
    source = program.source
    return (head, source[len(head) :]) if source.startswith(head) else ("", source)
