"""What becomes of a drawn program, and of an answer: each goes where it must."""

import dataclasses

import pytest

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.records import Attempt, Program, Report, TestResult, Variant, Verdict
from stepcoder_jax.strategies.driving import drive
from stepcoder_jax.strategies.mending import Fate, answer_wrong, draw_wrong, look
from tests.strategies.test_rounds import PROBLEM, TASK, Script, judge

ATTEMPT = Attempt("def f(x):\n    return x\n", Verdict.WRONG, 0, "It fails.")
ASKED = dataclasses.replace(
    TASK, stage=0, head="", before=(ATTEMPT,), variant=Variant.EXPLAIN
)


def found_of(strategy, *sources, run=judge):
    script = Script(list(sources))
    return drive([strategy], script.ask, lambda some: list(map(run, some)))[0]


@pytest.mark.parametrize(
    ("source", "fate"),
    [
        ("wrong", Fate.KEPT),
        ("odd", Fate.KEPT),  # it fails the shown test alone
        ("half", Fate.UNTOLD),  # the hidden test is not told
        ("right", Fate.PASSED),
        ("broken", Fate.INFRA),
        (None, Fate.NO_CODE),
        ("long", Fate.TOO_LONG),
    ],
)
def test_a_drawn_program(source, fate):
    looked = found_of(draw_wrong(TASK, 2.0), source)
    assert looked.fate is fate and (looked.attempt is None) == (fate is not Fate.KEPT)
    if looked.attempt:
        assert looked.attempt.source == source == looked.program.source
        assert "Call: f(1)" in looked.attempt.feedback


def test_a_failure_of_ours_on_the_visible_tests_is_no_wrong_program():
    def broken(program):
        return judge(dataclasses.replace(program, source="broken"))

    program = Program(PROBLEM, "wrong", 0, ())
    assert found_of(look(program, 2.0)).fate is Fate.KEPT
    assert found_of(look(program, 2.0), run=broken).fate is Fate.INFRA


def answered(source, explanation="", run=judge):
    program = None if source is None else Program(PROBLEM, source, 0, ())

    def ask(wanted):
        return [Answer(program, explanation, 0)] * len(wanted)

    strategy = answer_wrong(ASKED, "```")
    return drive([strategy], ask, lambda some: list(map(run, some)))[0]


@pytest.mark.parametrize(
    ("source", "explanation", "fate"),
    [
        ("right", "Why.\n", Fate.KEPT),
        ("wrong", "", Fate.KEPT),  # an answer that fails is a record too
        (None, "Why.\n", Fate.NO_CODE),
        (ATTEMPT.source, "Why.\n", Fate.COPIED),
        ("def f( x ): # so\n  return x", "", Fate.COPIED),  # the same syntax
        ("right", "See `f(1)`, not:\n```python\nf()\n```\n", Fate.CODE_TOLD),
        ("right", "See ```f(1)```.\n", Fate.KEPT),  # no block: within a line
        ("broken", "", Fate.INFRA),
    ],
)
def test_an_answer(source, explanation, fate):
    assert answered(source, explanation).fate is fate


def test_what_the_judge_cannot_carry_is_no_answer_and_a_weak_one_is():
    def unfaithful(program):
        result = TestResult(Verdict.WRONG, unfaithful=True)
        return Report(Verdict.WRONG, (result,), frozenset())

    def weak(program):
        return dataclasses.replace(judge(program), weak=True)

    assert answered("right", run=unfaithful).fate is Fate.UNFAITHFUL
    kept = answered("right", run=weak)
    assert kept.fate is Fate.KEPT and kept.report.weak


def test_what_was_not_asked_is_too_long():
    strategy = answer_wrong(ASKED, "```")
    (found,) = drive([strategy], lambda wanted: [None], None)
    assert found.fate is Fate.TOO_LONG
