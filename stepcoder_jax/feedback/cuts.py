"""Where a canonical solution can be cut: before any of its conditionals but the first.

arXiv:2402.01391, section 3.1 and figure 1. What is given of a solution is a number of its
conditionals: the text before the next one. Which number is due is told by `stages`.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings

from stepcoder_jax.config import ConfigError
from stepcoder_jax.records import Problem

CONDITIONALS = (ast.If, ast.For, ast.AsyncFor, ast.While)
NEWLINE = re.compile(r"\r\n|\n|\r")  # Python's own line ends; str.splitlines knows more


@functools.lru_cache(maxsize=65536)
def conditionals(source: str) -> tuple[tuple[int, int], ...]:
    """Return (line, UTF-8 column) of each conditional statement, in order of appearance.

    `If` (each `elif` is one), `For`, `AsyncFor` and `While` at any depth; comprehensions,
    conditional expressions, `try` and `with` are none (the paper's figure 1 boxes for, if
    and elif). Raises SyntaxError when the source does not parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        tree = ast.parse(source)
    found = (node for node in ast.walk(tree) if isinstance(node, CONDITIONALS))
    return tuple(sorted((node.lineno, node.col_offset) for node in found))


def problem_conditionals(problem: Problem) -> tuple[tuple[int, int], ...]:
    """Return the conditionals of a problem's canonical solution."""
    try:
        return conditionals(problem.solution)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = type(error).__name__
        if isinstance(error, SyntaxError):
            why = f"line {error.lineno}: {error.msg}"
        raise ConfigError(
            f"problem {problem.id}: the canonical solution does not parse ({why}); mend or "
            "drop the row, or set cccs.enabled=False"
        ) from error


def head(problem: Problem, given: int) -> str:
    """Return what opens the response: the starter code, or the prefix with `given` > 0.

    Never both: the canonical solution usually repeats the starter code. The prefix is the
    canonical text before the line of conditional number `given`, counted from 0, so that
    many stand in it. Empty, or ends in a newline. Raises ValueError for a conditional that
    the solution does not have.
    """
    if given == 0:
        starter = problem.starter_code.rstrip()
        return starter + "\n" if starter else ""
    found = problem_conditionals(problem)
    if not 0 < given < len(found):
        raise ValueError(
            f"problem {problem.id}: no cut before conditional {given}, it has {len(found)}"
        )
    line = found[given][0]
    # A compound statement always opens its line, so cutting whole lines loses nothing.
    line_ends = [match.end() for match in NEWLINE.finditer(problem.solution)]
    return problem.solution[: line_ends[line - 2]]
