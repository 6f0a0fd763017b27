"""What is counted of a chain of rounds."""

import dataclasses

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.records import (
    Attempt,
    Mode,
    Problem,
    Program,
    Report,
    Task,
    TestCase,
    TestResult,
    Variant,
    Verdict,
)
from stepcoder_jax.results.chains import End, read_rounds
from stepcoder_jax.strategies.rounds import Round

TESTS = (TestCase((1,), 12345),)
PROBLEM = Problem("p", "", "", "", "f", Mode.CALL, TESTS, "easy", visible_tests=TESTS)
FIRST = Task(PROBLEM, 0, 0, "")
LATER = dataclasses.replace(FIRST, before=(Attempt("", Verdict.WRONG, 0, ""),))


def turn(source, verdict=Verdict.WRONG, seen=Verdict.WRONG, task=FIRST, **about):
    """A round; None is an answer without code, "long" a prompt that does not fit."""
    if source == "long":
        return Round(task, None, None, **about)
    if source is None:
        return Round(task, Answer(None, "prose", 1, True), None, **about)
    report, looked = (
        Report(x, (TestResult(x),), frozenset()) if x else None for x in (verdict, seen)
    )
    answer = Answer(Program(task.problem, source, 0, ()), "", 0)
    return Round(task, answer, report, looked, **about)


def test_a_chain_is_what_became_of_each_answer():
    copied = [turn("x = 1\n"), turn("x  =  1 # so\n", task=LATER)]
    right = turn("x = 2", Verdict.PASS, Verdict.PASS, LATER)
    played = read_rounds([*copied, right])
    links = played.chain.links
    assert [link.is_unchanged for link in links] == [False, True, False]
    # x = 1 and x = 2 differ in one token
    assert links[0].similar == 0 and links[1].similar == 1 and 0.5 < links[2].similar < 1
    assert [link.variant for link in links] == ["", "direct", "direct"]
    assert [link.passes_visible for link in links] == [False, False, True]
    assert played.chain.end is End.PASSES and played.chain.is_right(2)
    assert not played.chain.is_right(1) and played.chain.is_right(9)
    assert played.program.source == "x = 2" and played.report.passed
    # an answer that is spoilt later was right once
    played = read_rounds([right, turn("x = 1", seen=None)])
    assert played.chain.was_right(1) and not played.chain.is_right(1)
    assert played.chain.end is End.ROUNDS
    assert played.chain.links[1].passes_visible is None


def test_answers_without_code():
    played = read_rounds([turn("x = 1"), turn(None)])
    last = played.chain.links[-1]
    assert last.outcome.verdict is Verdict.COMPILE and last.outcome.truncated
    assert played.program.source == "" and played.chain.end is End.CODE
    assert [link.has_code for link in played.chain.links] == [True, False]
    assert [link.without_code for link in played.chain.links] == [0, 1]


def test_answers_that_were_not_taken_are_counted_all_the_same():
    explain = dataclasses.replace(LATER, variant=Variant.EXPLAIN)
    taken = turn("x = 2", task=explain, others=(turn(None, task=LATER),))
    played = read_rounds([turn("x = 1"), taken])
    link = played.chain.links[1]
    assert (link.answers, link.without_code, link.variant) == (2, 1, "explain")
    # a prompt that was too long has no answer
    taken = turn("x = 2", task=LATER, others=(turn("long", task=explain),))
    link = read_rounds([turn("x = 1"), taken]).chain.links[1]
    assert (link.answers, link.without_code) == (1, 0)


def test_expected_values_are_seen():
    copying = turn("def f(x):\n    if x == 1: return 12345\n", task=LATER)
    links = read_rounds([turn("def f(x): return 1234"), copying]).chain.links
    assert [link.holds_expected for link in links] == [False, True]


def test_why_a_chain_ended():
    def end_of(*rounds):
        return read_rounds(rounds).chain.end

    assert end_of(turn("x"), turn("long")) is End.LENGTH
    assert end_of(turn("x", Verdict.INFRA, Verdict.INFRA)) is End.INFRA
    # on the visible tests alone
    assert end_of(turn("x", seen=Verdict.INFRA)) is End.INFRA
    assert not read_rounds([turn("x", seen=Verdict.INFRA)]).chain.is_judged
    blind = dataclasses.replace(
        FIRST, problem=dataclasses.replace(PROBLEM, visible_tests=())
    )
    assert end_of(turn("x", task=blind, seen=Verdict.PASS)) is End.BLIND
    strange = TestResult(Verdict.WRONG, unfaithful=True)
    seen = Report(Verdict.WRONG, (strange,), frozenset())
    assert end_of(turn("x")._replace(seen=seen)) is End.UNFAITHFUL
