"""Critic sampling by a scripted policy, judge and critic: what is gone on from, mended."""

import dataclasses

import pytest

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.records import InputError, Program, Report, TestResult, Verdict
from stepcoder_jax.strategies.critic_sampling import (
    CriticSampling,
    best_prefix,
    sample_by_critic,
)
from stepcoder_jax.strategies.driving import Valued, drive
from tests.strategies.test_rounds import PROBLEM, TASK

BLIND = dataclasses.replace(TASK, problem=dataclasses.replace(PROBLEM, visible_tests=()))


class Script:
    """Writes what each strategy's list says; values by a table of sources.

    A source passes the shown test if it begins with "ok", both tests with "ok!"; one that
    begins with "broken" is our own failure.
    """

    def __init__(self, *scripts, values=()):
        self.scripts, self.values = [list(script) for script in scripts], dict(values)
        self.asked, self.tasks, self.runs, self.valued = [], [], [], []

    def ask(self, wanted):
        self.asked.append([(place, asked.draw) for place, asked in wanted])
        self.tasks.append([asked.task for _, asked in wanted])
        found = []
        for place, asked in wanted:
            source = self.scripts[place].pop(0)
            program = Program(asked.task.problem, source, 0, ()) if source else None
            found.append(Answer(program, "", 0))
        return found

    def run(self, programs):
        self.runs.append(len(programs))
        return list(map(self.judge, programs))

    def judge(self, program):
        if program.source.startswith("broken"):
            return Report(Verdict.INFRA, (), frozenset())
        shown = program.source.startswith("ok")
        results = [shown, program.source.startswith("ok!")][: len(program.problem.tests)]
        verdicts = [Verdict.PASS if good else Verdict.WRONG for good in results]
        worst = next((x for x in verdicts if x is not Verdict.PASS), Verdict.PASS)
        tests = tuple(TestResult(verdict, got="0") for verdict in verdicts)
        return Report(worst, tests, frozenset())

    def value(self, wanted):
        self.valued.append([each.program.source for each in wanted])
        return [self.values[each.program.source] for each in wanted]

    def play(self, *tasks, samples=4, mended=1):
        asked = CriticSampling(samples, mended)
        each = [sample_by_critic(task, asked, 2.0) for task in tasks]
        return drive(each, self.ask, self.run, self.value)


# the best line of the first ends it; of the second its middle, whose chance is the best of
# all but ends no line
SEEDS = {
    "ok1\nb\nc\n": Valued(0.9, ((2, 0.1), (4, 0.2), (6, 0.6), (8, 0.9))),
    "ok2\ndd\ne\n": Valued(0.1, ((4, 0.5), (6, 0.8), (7, 0.3))),
}


def test_what_passes_is_gone_on_from_behind_its_best_line():
    script = Script(
        ["ok1\nb\nc\n", "bad\n", "ok2\ndd\ne\n", None, "ok!", "bad", "ok!", "ok"],
        values=SEEDS,
    )
    (chains,) = script.play(TASK)
    assert script.valued == [[*SEEDS]]  # what fails is not asked about
    assert script.asked == [[(0, i) for i in range(4)], [(0, i) for i in range(4, 8)]]
    assert [task.head for task in script.tasks[1]] == ["ok1\nb\n", "ok2\n"] * 2
    assert {task.before for task in script.tasks[1]} == {()}
    sources = [[turn.program and turn.program.source for turn in x] for x in chains]
    assert sources == [
        *(["ok1\nb\nc\n", "ok!"], ["bad\n", "bad"]),
        *(["ok2\ndd\ne\n", "ok!"], [None, "ok"]),
    ]
    verdicts = [chain[1].report.verdict for chain in chains]
    assert verdicts == [Verdict.PASS, Verdict.WRONG, Verdict.PASS, Verdict.WRONG]


def test_where_nothing_passes_the_best_failure_is_mended():
    values = {"bad1": Valued(0.1), "bad2": Valued(0.7), "bad3": Valued(0.3)}
    script = Script(["bad1", "bad2", "bad3", "broken", *["ok!"] * 4], values=values)
    (chains,) = script.play(TASK)
    assert script.valued[-1] == ["bad1", "bad2", "bad3"]
    (attempt,) = {task.before[0] for task in script.tasks[1]}
    assert attempt.source == "bad2" and "Call: f(1)" in attempt.feedback
    assert {(task.head, task.stage) for task in script.tasks[1]} == {("", 0)}
    assert all(len(chain) == 2 for chain in chains)
    # of two that are mended each has its half
    script = Script(["bad1", "bad2", "bad3", "broken", *["ok!"] * 4], values=values)
    script.play(TASK, mended=2)
    told = [task.before[0].source for task in script.tasks[1]]
    assert told == ["bad2", "bad3", "bad2", "bad3"]


@pytest.mark.parametrize(
    ("task", "source"), [(BLIND, "ok"), (TASK, None), (TASK, "broken")]
)
def test_a_problem_of_which_nothing_is_known_has_its_first_answers(task, source):
    script = Script([source] * 2)
    (chains,) = script.play(task, samples=2)
    assert [len(chain) for chain in chains] == [1, 1] and len(script.asked) == 1


def test_the_lists_of_all_problems_are_one_batch():
    values = {**SEEDS, "bad": Valued(0.5)}
    first = ["ok1\nb\nc\n", "bad"]
    script = Script([*first, "ok!", "ok!"], ["bad", "bad", "ok!", "bad"], values=values)
    found = script.play(TASK, TASK, samples=2)
    assert script.asked == [
        [(0, 0), (0, 1), (1, 0), (1, 1)],
        [(0, 2), (0, 3), (1, 2), (1, 3)],
    ]
    assert script.runs[0] == 4 and [len(chains) for chains in found] == [2, 2]


def test_of_equal_prefixes_the_longest_and_of_none_the_head():
    program = Program(PROBLEM, "head\na\nb\nc\n", 5, ())
    told = Valued(0.5, ((7, 0.4), (9, 0.4), (11, 0.9)))
    assert best_prefix(TASK, program, told) == "head\na\nb\n"
    assert best_prefix(TASK, program, Valued(0.5, ((6, 0.9), (11, 0.9)))) == "head\n"
    assert best_prefix(TASK, program, Valued(0.5)) == "head\n"


def test_flags_that_cannot_be():
    assert CriticSampling.of_flags(8, 0, greedy=False) == CriticSampling(8)
    with pytest.raises(InputError, match=r"^--critic: it has its one round of its own"):
        CriticSampling.of_flags(8, 1, greedy=False)
    with pytest.raises(InputError, match=r"^--critic: a greedy program .* the same again"):
        CriticSampling.of_flags(1, 0, greedy=True)


def test_a_critic_that_is_not_there_is_not_guessed():
    script = Script(["ok1\n"] * 2)
    strategy = sample_by_critic(TASK, CriticSampling(2), 2.0)
    with pytest.raises(ValueError, match="nobody values programs, and 2 are"):
        drive([strategy], script.ask, script.run)
