"""Rounds of answering and reading, with a scripted policy and a judge of its own words."""

import dataclasses

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.records import (
    Mode,
    Problem,
    Program,
    Report,
    Task,
    TestCase,
    TestResult,
    Told,
    Variant,
    Verdict,
)
from stepcoder_jax.strategies.driving import Ask, drive
from stepcoder_jax.strategies.rounds import Refinement, refine

SHOWN, HIDDEN = TestCase((1,), 2), TestCase((5,), 6)
PROBLEM = Problem(
    *("p", "Add one.", "", "", "f", Mode.CALL, (SHOWN, HIDDEN), "easy"),
    visible_tests=(SHOWN,),
)
TASK = Task(PROBLEM, 3, 2, "head\n")
# What a source passes: of the shown test and the hidden one.
PASSES = {"right": "sh", "wrong": "", "half": "s", "odd": "h"}


def judge(program):
    """A report by the words of the source; "broken" is our own failure."""
    if program.source == "broken":
        tests = (TestResult(Verdict.NOT_RUN),) * len(program.problem.tests)
        return Report(Verdict.INFRA, tests, frozenset())
    letters = {SHOWN: "s", HIDDEN: "h"}
    verdicts = [
        Verdict.PASS if letters[test] in PASSES[program.source] else Verdict.WRONG
        for test in program.problem.tests
    ]
    results = tuple(TestResult(verdict, got="0") for verdict in verdicts)
    whole = next((x for x in verdicts if x is not Verdict.PASS), Verdict.PASS)
    return Report(whole, results, frozenset())


class Script:
    """A policy: for each strategy the sources that it writes, one after the other.

    None is an answer without code, "long" a prompt that does not fit. It keeps the batches
    that it was asked.
    """

    def __init__(self, *scripts):
        self.scripts = [list(script) for script in scripts]
        self.asked, self.runs = [], []

    def ask(self, wanted):
        self.asked.append([(place, len(task.before)) for place, task in wanted])
        return [self.answer(place, task) for place, task in wanted]

    def answer(self, place, task):
        source = self.scripts[place].pop(0)
        if source == "long":
            return None
        program = source and Program(task.problem, source, 0, ())
        return Answer(program, "", 0)

    def run(self, programs):
        self.runs.append([(x.source, len(x.problem.tests)) for x in programs])
        return list(map(judge, programs))


def play(*scripts, most=3, problem=PROBLEM, variant=Variant.DIRECT, told=Told.TEST):
    script = Script(*scripts)
    task = dataclasses.replace(TASK, problem=problem)
    chains = [refine(task, Refinement(most, variant, told), 2.0) for _ in scripts]
    return script, drive(chains, script.ask, script.run)


def sources(chain):
    return [x.answer and x.answer.program and x.answer.program.source for x in chain]


def verdicts(chain):
    return [x.report and str(x.report.verdict) for x in chain]


def test_wrong_wrong_right():
    script, (chain,) = play(["wrong", "wrong", "right"], variant=Variant.EXPLAIN)
    assert sources(chain) == ["wrong", "wrong", "right"] and not script.scripts[0]
    assert verdicts(chain) == ["wrong", "wrong", "pass"]
    first, second, third = (turn.task for turn in chain)
    assert first.before == () and (first.head, first.stage) == ("head\n", 2)
    (attempt,) = second.before
    assert attempt.source == "wrong" and attempt.verdict is Verdict.WRONG
    assert attempt.feedback.endswith("Call: f(1)\nExpected: 2\nGot: 0")
    assert third.before == (attempt, attempt)
    for task in (second, third):
        assert (task.head, task.stage, task.index) == ("", 0, 3)
        assert task.variant is Variant.EXPLAIN and task.problem is PROBLEM
    # all tests score; the one that is shown feeds, and is not run where all passed
    assert script.runs == [[("wrong", 2)], [("wrong", 1)]] * 2 + [[("right", 2)]]


def test_rounds_end_at_their_number():
    script, (chain,) = play(["wrong"] * 9, most=2)
    assert sources(chain) == ["wrong"] * 3 and len(script.scripts[0]) == 6
    assert len(script.runs) == 5  # nothing is fed after the last answer
    assert [len(chain) for chain in play(["wrong"], most=0)[1]] == [1]


def test_visible_tests_alone_feed():
    _, (chain,) = play(["half", "right"])
    assert verdicts(chain) == ["wrong"]  # the hidden test is not told
    _, (chain,) = play(["odd", "right"])
    assert verdicts(chain) == ["wrong", "pass"]
    unseen = dataclasses.replace(PROBLEM, visible_tests=())
    script, (chain,) = play(["wrong", "right"], problem=unseen)
    assert verdicts(chain) == ["wrong"] and script.runs == [[("wrong", 2)]]
    # one that does not score is asked even where all that score are passed
    only_hidden = dataclasses.replace(PROBLEM, tests=(HIDDEN,))
    _, (chain,) = play(["odd", "wrong", "right"], problem=only_hidden)
    assert verdicts(chain) == ["pass", "wrong", "pass"]
    # and told with its own call, never with that of the hidden one in its place
    (attempt,) = chain[1].task.before
    assert "Call: f(1)\nExpected: 2\n" in attempt.feedback


def test_controls_tell_less_and_end_alike():
    for told, text in ((Told.VERDICT, "The program fails a test."), (Told.NONE, "")):
        _, (chain,) = play(["wrong", "half", "right"], told=told)
        assert verdicts(chain) == ["wrong", "wrong"]
        (attempt,) = chain[1].task.before
        assert (attempt.feedback, attempt.source, attempt.test) == (text, "wrong", 0)


def test_what_ends_a_chain():
    _, chains = play(["broken", "right"], ["wrong", None, "right"], ["wrong", "long"])
    assert verdicts(chains[0]) == ["infra"]
    assert verdicts(chains[1]) == ["wrong", None] and chains[1][1].answer.program is None
    assert verdicts(chains[2]) == ["wrong", None] and chains[2][1].answer is None


def test_all_that_wait_are_asked_together():
    script, chains = play(["wrong", "right"], ["right"], ["wrong", "wrong", "right"])
    assert [sources(chain)[-1] for chain in chains] == ["right"] * 3
    assert script.asked == [[(0, 0), (1, 0), (2, 0)], [(0, 1), (2, 1)], [(2, 2)]]
    assert len(script.runs) == 5  # of all tests three times, of the shown one twice


def test_the_driver_returns_what_strategies_return_in_their_order():
    def count(times):
        seen = []
        for _ in range(times):
            seen.append((yield Ask(TASK)))
        return seen

    replies = iter(range(100))
    found = drive(
        [count(2), count(0), count(1)], lambda x: [next(replies) for _ in x], None
    )
    assert found == [[0, 2], [], [1]]
    assert drive([], None, None) == []
