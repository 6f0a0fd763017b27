"""Rounds of answering and reading, with a scripted policy and a judge of its own words."""

import dataclasses

import pytest

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.turns import Others
from stepcoder_jax.records import (
    InputError,
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
from stepcoder_jax.strategies.rounds import VARIANTS, Refinement, fail_first, refine

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
    place, whole = next(
        ((i, x) for i, x in enumerate(verdicts) if x is not Verdict.PASS),
        (len(verdicts), Verdict.PASS),
    )
    left = (TestResult(Verdict.NOT_RUN),) * len(results[place + 1 :])
    return Report(whole, results[: place + 1] + left, frozenset())


class Script:
    """A policy: for each strategy the sources that it writes, one after the other.

    None is an answer without code, "long" a prompt that does not fit. It keeps the batches
    that it was asked.
    """

    def __init__(self, *scripts):
        self.scripts = [list(script) for script in scripts]
        self.asked, self.runs = [], []

    def ask(self, wanted):
        self.asked.append([(place, asked.draw) for place, asked in wanted])
        return [self.answer(place, asked.task) for place, asked in wanted]

    def answer(self, place, task):
        source = self.scripts[place].pop(0)
        if source == "long":
            return None
        program = source and Program(task.problem, source, 0, ())
        return Answer(program, "", 0)

    def run(self, programs):
        self.runs.append([(x.source, len(x.problem.tests)) for x in programs])
        return list(map(judge, programs))


def play(*scripts, most=3, problem=PROBLEM, variant="direct", **how):
    script = Script(*scripts)
    task = dataclasses.replace(TASK, problem=problem)
    asked = Refinement(most, VARIANTS[variant], **how)
    chains = [refine(task, asked, 2.0) for _ in scripts]
    return script, drive(chains, script.ask, script.run)


def sources(chain):
    return [x.answer and x.answer.program and x.answer.program.source for x in chain]


def verdicts(chain):
    return [x.report and str(x.report.verdict) for x in chain]


def test_wrong_wrong_right():
    script, (chain,) = play(["wrong", "wrong", "right"], variant="explain")
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
    # all tests score; the one that is shown feeds, and is not run once more
    assert script.runs == [[("wrong", 2)]] * 2 + [[("right", 2)]]


def test_rounds_end_at_their_number():
    script, (chain,) = play(["wrong"] * 9, most=2)
    assert sources(chain) == ["wrong"] * 3 and len(script.scripts[0]) == 6
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
    assert len(script.runs) == 3


def runs(script):
    return [run for batch in script.runs for run in batch]


def test_visible_tests_run_only_where_the_report_does_not_say():
    """One that does not score, and one behind the failure that ended the run."""
    apart = dataclasses.replace(PROBLEM, tests=(HIDDEN,))
    script, _ = play(["wrong", "right"], problem=apart)
    assert runs(script) == [("wrong", 1)] * 2 + [("right", 1)] * 2
    # HIDDEN comes first and fails, so the shown one has not run
    behind = dataclasses.replace(PROBLEM, tests=(HIDDEN, SHOWN))
    script, (chain,) = play(["wrong", "half", "right"], problem=behind)
    assert runs(script) == [("wrong", 2), ("wrong", 1), ("half", 2), ("half", 1)]
    assert chain[1].seen.passed and chain[1].report.verdict is Verdict.WRONG
    # after the last answer nothing is fed
    script, _ = play(["wrong", "wrong"], problem=behind, most=1)
    assert runs(script) == [("wrong", 2), ("wrong", 1), ("wrong", 2)]


def test_both_variants_answer_and_the_better_by_visible_tests_goes_on():
    answers = ["wrong", "wrong", "half", "odd"]
    script, (chain,) = play(answers, variant="both", most=1)
    assert sources(chain) == ["wrong", "half"]  # of the last two the second
    assert [str(x.task.variant) for x in chain] == ["direct", "explain"]
    assert sources(chain[1].others) == ["wrong"]
    # of equals the first, and both are told of the one that was taken
    script, (chain,) = play(["wrong"] * 5, variant="both", most=2)
    assert [str(x.task.variant) for x in chain] == ["direct"] * 3
    assert [len(x.others) for x in chain] == [0, 1, 1]
    (other,) = chain[2].others
    assert other.task.before == chain[2].task.before and len(other.task.before) == 2
    # each answer is drawn apart, and has the same place whatever became of others
    assert script.asked == [[(0, number)] for number in range(5)]
    script, (chain,) = play(["wrong", None, "wrong", "right"], variant="both")
    assert sources(chain) == ["wrong", "wrong", "right"] and chain[1].others
    assert script.asked == [[(0, 0)], [(0, 1)], [(0, 2)], [(0, 3)]]


def test_the_second_variant_is_not_asked_where_it_could_not_be_better():
    script, (chain,) = play(["wrong", "half", "right"], variant="both")
    assert sources(chain) == ["wrong", "half"] and script.scripts == [["right"]]
    assert chain[1].others == ()
    # draws of a later round do not depend on that
    script, _ = play(["wrong", "wrong", "odd", "right"], variant="both")
    assert script.asked[-1] == [(0, 3)]


def test_what_ends_a_chain_of_both():
    _, chains = play(
        *(["wrong", None, None], ["wrong", "long", "long"], ["wrong", "wrong", "broken"]),
        ["wrong", "long", "right"],
        variant="both",
    )
    assert [verdicts(chain)[1] for chain in chains] == [None, None, "infra", "pass"]
    assert chains[0][1].answer and not chains[1][1].answer
    assert [len(chain[1].others) for chain in chains] == [1, 1, 1, 1]


def test_all_programs_are_told_of_where_it_is_asked():
    _, (chain,) = play(["right", "right", "wrong", "odd"], refine_all=True)
    assert verdicts(chain) == ["pass", "pass", "wrong", "wrong"]
    first, second, third = chain[3].task.before
    assert first == second and first.verdict is Verdict.PASS and first.test is None
    assert first.feedback == "The program passes the tests that are shown."
    assert third.feedback.endswith("Got: 0")
    for told, text in ((Told.NONE, ""), (Told.VERDICT, first.feedback)):
        _, (chain,) = play(["right"] * 4, refine_all=True, told=told)
        assert {x.feedback for x in chain[3].task.before} == {text}
    unseen = dataclasses.replace(PROBLEM, visible_tests=())
    _, (chain,) = play(["right"] * 4, refine_all=True, problem=unseen)
    assert verdicts(chain) == ["pass"]  # nothing is there to be read
    _, (chain,) = play(["broken", "right"], refine_all=True)
    assert verdicts(chain) == ["infra"]


def test_what_was_said_of_another_problem():
    others = Others(("a", "p", "z"), ("of a", "its own", "of z"))
    said = set()
    for seed in range(20):
        how = {"told": Told.RANDOM, "others": others, "seed": seed}
        _, (chain, again) = play(["wrong", "half"], ["wrong", "half"], **how)
        (attempt,) = chain[1].task.before
        assert attempt == again[1].task.before[0] and attempt.source == "wrong"
        said.add(attempt.feedback)
    assert said == {"of a", "of z"}
    for ids, text in ((("a", "b"), "of b"), (("p", "q"), "of q"), (("o", "p"), "of o")):
        others = Others(ids, tuple(f"of {name}" for name in ids))
        how = {"told": Told.RANDOM, "others": others}
        told = {
            play(["wrong", "half"], **how, seed=x)[1][0][1].task.before[0].feedback
            for x in range(9)
        }
        assert text in told and "of p" not in told
    with pytest.raises(InputError, match="no other problem"):
        play(["wrong", "half"], told=Told.RANDOM, others=Others(("p",), ("of p",)))


def test_what_a_first_answer_would_tell():
    script = Script(["wrong"], ["half"], ["broken"], [None])
    asked = [fail_first(TASK, 2.0) for _ in script.scripts]
    found = drive(asked, script.ask, script.run)
    assert found[0].feedback.endswith("Got: 0") and found[1:] == [None] * 3


def test_flags_that_cannot_be():
    of_flags = Refinement.of_flags
    for rounds, refine_all, words in (
        (-1, False, "--rounds: expected"),
        (0, True, "needs"),
    ):
        with pytest.raises(InputError, match=words):
            of_flags(rounds, "direct", Told.TEST, refine_all, 0)
    assert of_flags(3, "direct", Told.TEST, True, 0).answers == 4
    both = of_flags(3, "both", Told.NONE, False, 5)
    assert (both.answers, both.seed, both.told) == (7, 5, Told.NONE)


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
