"""Visible tests that the canonical solution fails are left out by name, by the judge."""

import dataclasses

import pytest

from stepcoder_jax.data.problems import read_any
from stepcoder_jax.records import Mode, Problem, TestCase
from stepcoder_jax.runs.disk import visible
from tests.execution.kit import make_settings, need_data
from tests.hosts_kit import on_hosts

SCORED = TestCase("assert f(5) == 6\n", None)
RIGHT = TestCase("assert f(1) == 2\n", None)
WRONG = TestCase("assert f(1) == 3\n", None)
BROKEN = TestCase("assert g == 3\n", None)
PROBLEM = Problem(
    *("p", "", "", "def f(x): return x + 1", "f", Mode.ASSERT_PROXY, (SCORED,), "easy"),
    visible_tests=(WRONG, RIGHT, SCORED, BROKEN),
)


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """How many pools were opened."""
    pools = []
    monkeypatch.setattr(
        visible, "open_pool", lambda x, real=visible.open_pool: pools.append(x) or real(x)
    )
    return pools


def test_wrong_ones_are_left_out_by_name(capsys, opened):
    unsolved = dataclasses.replace(PROBLEM, id="q", solution="")
    scored = dataclasses.replace(PROBLEM, id="r", visible_tests=(SCORED,))
    problems = [unsolved, PROBLEM, scored]
    found = visible.leave_out_wrong(problems, make_settings(workers=1))
    assert found == [
        unsolved,
        dataclasses.replace(PROBLEM, visible_tests=(RIGHT, SCORED)),
        scored,
    ]
    assert len(opened) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "left out: 2 visible tests that the canonical solutions do not pass, of p (1, 4)"
    )


def test_hosts_run_a_share_each_and_leave_out_the_same(monkeypatch, capsys, opened):
    again = dataclasses.replace(PROBLEM, id="s")
    problems, settings = [PROBLEM, again], make_settings(workers=1)
    alone = visible.leave_out_wrong(problems, settings)
    line = capsys.readouterr().err.splitlines()[-1]
    opened.clear()
    work = lambda host: visible.leave_out_wrong(problems, settings)  # noqa: E731
    found, count = on_hosts(monkeypatch, 2, work)
    assert found == [alone, alone] and count == 1 and len(opened) == 2
    assert capsys.readouterr().err.count(line) == 1


def test_nothing_runs_where_all_of_them_score(opened):
    problems = [dataclasses.replace(PROBLEM, visible_tests=(SCORED,))]
    assert visible.leave_out_wrong(problems, make_settings(workers=1)) is problems
    assert not opened


@pytest.mark.long
def test_the_genuine_docstrings(capsys):
    """HumanEval's have 397 examples; some are not what the authors' own programs do."""
    problems, _ = read_any(str(need_data("humaneval/HumanEval.jsonl.gz")), strict=True)
    found = visible.leave_out_wrong(problems, make_settings())
    assert sum(len(problem.visible_tests) for problem in found) == 397 - 6
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(
        "of HumanEval/47 (2), HumanEval/116 (1, 2), HumanEval/130 (1, 2), HumanEval/148 (2)"
    )
