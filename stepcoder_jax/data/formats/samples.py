"""A model's samples, rows of a file, as the programs of the problems that they name.

A row has `task_id` and `solution`, a whole program, or `completion`, which continues the
problem's starter code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from stepcoder_jax.data.formats.mbpp import ID_PREFIX
from stepcoder_jax.data.formats.rows import DataError, Row, require, require_object, say
from stepcoder_jax.records import Problem, Program


class Sample(NamedTuple):
    """One row of the samples file and the program it stands for."""

    fields: dict[str, Any]
    program: Program


def read_sample(row: Row, problems: Mapping[str, Problem]) -> Sample:
    """One row's sample; DataError naming the field that is wrong."""
    fields = require_object(row)
    problem = find_problem(fields, problems)
    if "solution" in fields:
        source, start = require(fields, "solution", str), 0
    elif "completion" in fields:
        source = problem.starter_code + require(fields, "completion", str)
        start = len(problem.starter_code.encode())
    else:
        raise DataError("fields completion and solution: expected one, both are missing")
    return Sample(fields, Program(problem, source, start, ()))


def find_problem(fields: Mapping[str, Any], problems: Mapping[str, Problem]) -> Problem:
    """The problem that `task_id` names; MBPP's may be Mbpp/2, MBPP/2, "2" or 2."""
    if "task_id" not in fields:
        raise DataError("field task_id: expected a problem's id, but it is missing")
    name = str(fields["task_id"])
    number = re.sub(rf"^{ID_PREFIX}", "", name, flags=re.IGNORECASE)
    problem = problems.get(name) or problems.get(ID_PREFIX + number)
    if problem is None:
        raise DataError(
            f"field task_id: expected the id of a problem, as {next(iter(problems))!r} is, "
            f"got {say(fields['task_id'])}"
        )
    return problem
