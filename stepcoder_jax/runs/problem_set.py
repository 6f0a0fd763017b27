"""Which problems a run learns from: what its checkpoints know of them, and hold it to.

Row i of the curriculum and place i of every permutation are problem i of the pool, so a run
goes on with the same problems in the same order, or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from stepcoder_jax.config import ConfigError
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.records import Problem

SAME = "give the run its own problems again, or start another run.folder"


def describe(problems: Sequence[Problem], visible: bool = False) -> dict[str, list[str]]:
    """The ids, in order, and a digest of each problem's text and tests.

    With `visible`, of its visible tests too: where prompts show them.

    Raises ConfigError for an id that occurs twice: the curriculum goes by it.
    """
    ids = [problem.id for problem in problems]
    for name, count in Counter(ids).most_common(1):
        if count > 1:
            raise ConfigError(
                f"data.path: {count} problems have the id {name!r}; the curriculum goes by "
                "ids: give each problem its own"
            )
    return {"ids": ids, "digests": [_digest(problem, visible) for problem in problems]}


def _digest(problem: Problem, visible: bool) -> str:
    """16 hexadecimal digits; the CPU limit, which is measured, counts for nothing."""
    bare = dataclasses.replace(problem, cpu_seconds=None)
    if not visible:
        bare = dataclasses.replace(bare, visible_tests=())
    try:
        text = json.dumps(own.to_row(bare), sort_keys=True)
    except DataError:  # tests that no file of our own can hold
        tests = dataclasses.replace(bare, tests=(), visible_tests=())
        text = json.dumps([own.to_row(tests), len(problem.tests)], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def check(
    record: dict[str, Any],
    problems: Sequence[Problem],
    rows: int,
    visible: bool = False,
    field: str = "data.path",
) -> None:
    """Raise ConfigError unless a checkpoint's problems are these, naming the first other.

    `rows` is the length of its curriculum, all that older checkpoints know. `field` is
    where they come from.
    """
    known = record.get("problems")
    if len(problems) != rows:
        raise ConfigError(
            f"{field}: the run learns from {rows} problems, got {len(problems)}; {SAME}"
        )
    if known is None:
        return
    found = describe(problems, visible=visible)
    for place, (then, now) in enumerate(zip(known["ids"], found["ids"], strict=True)):
        if then != now:
            raise ConfigError(
                f"{field}: problem {place} of the run is {then!r}, got {now!r}; {SAME}"
            )
    for name, then, now in zip(known["ids"], known["digests"], found["digests"]):
        if then != now:
            raise ConfigError(
                f"{field}: the text or the tests of problem {name!r} have changed since "
                f"the run was begun; {SAME}"
            )
