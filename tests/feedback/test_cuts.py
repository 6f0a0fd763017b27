"""Where a solution can be cut, and the text that a cut gives."""

import json
from pathlib import Path

import pytest

from stepcoder_jax.config import CCCSConfig, ConfigError
from stepcoder_jax.feedback import cccs, cuts
from stepcoder_jax.records import Mode, Problem
from tests.feedback.kit import SOLUTION, problem, with_conditionals


def test_conditionals_are_if_elif_for_while():
    assert cuts.conditionals(SOLUTION) == ((3, 4), (4, 8), (6, 8), (8, 4))
    assert cuts.conditionals("async def f():\n  async for é in a: pass\n") == ((2, 2),)
    assert cuts.conditionals("s = '日'\nif s:\n  for c in s: pass\n") == ((2, 0), (3, 2))


def test_head_is_the_canonical_text_before_the_header():
    lines = SOLUTION.splitlines(keepends=True)
    # conditional number 2 is the `elif` of line 6
    assert cuts.head(problem(), 2) == "".join(lines[:5])
    nine = with_conditionals(9)
    for given in range(1, 9):
        prefix = cuts.head(nine, given)
        rest = nine.solution.removeprefix(prefix)
        assert prefix.endswith("\n") and rest.startswith(f"if a == {given}:")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_head_counts_lines_as_python_does(end):
    solution = end.join(["a = '\x0c\u2028'", "if a:", "    a", "if b:", "    b", ""])
    assert cuts.head(problem(solution=solution), 1) == solution[: solution.index("if b")]


def test_head_with_nothing_given_is_the_starter_code_alone():
    for starter, expected in (
        ("", ""),
        ("\n", ""),
        ("def f(a):", "def f(a):\n"),
        ("\n\ndef f(a):\n\t\n\n", "\n\ndef f(a):\n"),
    ):
        assert cuts.head(problem(starter=starter), 0) == expected


@pytest.mark.parametrize("given", [-1, 4, 9])
def test_a_cut_that_does_not_exist_is_an_error(given):
    with pytest.raises(ValueError, match=f"problem p: no cut before .* {given}, it has 4"):
        cuts.head(problem(), given)


APPS = Path(__file__).parents[3] / "shared" / "data" / "apps_plus" / "problems.json"


@pytest.mark.skipif(not APPS.exists(), reason=f"no APPS+ problems at {APPS}")
def test_heads_of_real_problems_are_prefixes_that_grow_with_the_stage():
    rows = json.loads(APPS.read_text())
    pool = [problem(str(i), row["canonical_solution"]) for i, row in enumerate(rows)]
    stages = cccs.initial(pool, CCCSConfig()).stage
    assert len(pool) == 316 and stages.max() > 2
    for name in ("cccs", "adaptive"):  # every cut of the paper's, and every cut
        config = CCCSConfig(prefix=name)
        for i, row in enumerate(pool):
            sizes = [0]
            for task in cccs.pose_all(row, i, config)[1:]:
                assert row.solution.startswith(task.head) and task.head[-1] in "\r\n"
                sizes.append(len(task.head))
            assert sizes == sorted(set(sizes)), row.id
            assert name != "cccs" or len(sizes) == stages[i] + 1


@pytest.mark.parametrize("solution", ["a\0b\n", "x = " + "-" * 9000 + "1\n"])
def test_a_solution_that_the_parser_gives_up_on_is_named(solution):
    problem = Problem("odd", "", "", solution, None, Mode.STDIN_MAIN, (), "introductory")
    with pytest.raises(ConfigError, match="problem odd: the canonical solution does not"):
        cuts.problem_conditionals(problem)
