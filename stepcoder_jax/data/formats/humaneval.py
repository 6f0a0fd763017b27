"""Reader of HumanEval files, and of HumanEval+ ones of the hub (arXiv:2107.03374).

The one test of a problem is the source of `check` as in the benchmark's own harness: the
prompt, whose helper functions `check` may call, then `test`, then the call. The prompt also
defines the function that the program is to write, as a stub, so its name is bound to the
program's function again behind it. The examples of the function's docstring are its
visible tests, which never score. HumanEval+ as on the hub has its inputs and results in
`test`, as EvalPlus releases it has none there: that is evalplus.py's.
"""

from __future__ import annotations

import ast
from typing import Any

from stepcoder_jax.data.formats import examples, rows
from stepcoder_jax.data.formats.rows import DataError, require, require_text
from stepcoder_jax.data.formats.source import parse
from stepcoder_jax.records import Mode, Problem, TestCase

MARKS = {"entry_point", "test"}  # fields that no other format has
READ = {"task_id", "prompt", "entry_point", "canonical_solution", "test"}


def read_problems(path: str, *, strict: bool) -> tuple[list[Problem], list[str]]:
    """Read a file; return the good rows' problems and one complaint per bad row.

    A problem's starter code is its prompt, to the byte. DataError for a file that cannot
    be read and, when `strict`, for the first bad row.
    """
    return rows.read_problems(path, read_row, "a HumanEval file", strict=strict)


def read_row(row: dict[str, Any], number: int) -> Problem:
    """The problem of one object; DataError naming the field that is wrong."""
    del number
    prompt, entry_point = require_text(row, "prompt"), require_text(row, "entry_point")
    if not entry_point.isidentifier():
        raise DataError(f"field entry_point: expected a name, got {entry_point!r}")
    rows.refuse_plus(row)
    test = require_text(row, "test")
    stub = parse("prompt", prompt)
    parse("test", test)
    code = f"{prompt}\n{entry_point} = candidate\n{test}\ncheck({entry_point})\n"
    parse("test", code)
    return Problem(
        id=require_text(row, "task_id"),
        statement=prompt,
        starter_code=prompt,
        solution=prompt + require(row, "canonical_solution", str),
        entry_point=entry_point,
        mode=Mode.ASSERT_PROXY,
        tests=(TestCase(code, None),),
        difficulty="humaneval",
        visible_tests=visible_tests(stub, entry_point),
    )


def visible_tests(stub: ast.Module, entry_point: str) -> tuple[TestCase, ...]:
    """The examples in the docstring of the function that is to be written."""
    for node in reversed(stub.body):
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            return examples.docstring_tests(ast.get_docstring(node) or "", entry_point)
    return ()
