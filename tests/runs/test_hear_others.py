"""What is told of other problems, by a scripted player."""

import dataclasses
from types import SimpleNamespace

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
    Verdict,
)
from stepcoder_jax.runs.generate import Player, hear_others, refine_all, run_all
from stepcoder_jax.sampling.drawing import Truncation
from stepcoder_jax.strategies.rounds import Refinement
from tests.hosts_kit import on_hosts

SHOWN = (TestCase((1,), 2),)
RANDOM = Refinement(2, told=Told.RANDOM)


def tasks_of(*ids):
    problem = Problem("", "", "", "", "f", Mode.CALL, SHOWN, "", visible_tests=SHOWN)
    return [Task(dataclasses.replace(problem, id=x), 0, 0, "") for x in ids]


class Scripted(Player):
    """Each problem's first answer says its id, and passes where that is in capitals."""

    def ask(self, wanted):
        assert all(not asked.task.before for _, asked in wanted)
        asked_at.append((self.first, [place for place, _ in wanted]))
        return [Answer(Program(x.task.problem, "", 0, ()), "", 0) for _, x in wanted]

    def run(self, programs):
        return [
            Report(verdict, (TestResult(verdict, got=program.problem.id),), frozenset())
            for program in programs
            for verdict in [Verdict.PASS if program.problem.id.isupper() else Verdict.WRONG]
        ]


asked_at = []


@pytest.fixture
def player():
    asked_at.clear()
    pool = SimpleNamespace(settings=SimpleNamespace(cpu_seconds=1.0))
    coder = SimpleNamespace(pool=pool)
    return Scripted(coder, None, 12, Truncation(0.0), 0)


def test_those_that_fail_are_told_of(player):
    asked = hear_others(player, tasks_of("b", "A", "a"), RANDOM)
    assert asked._replace(others=Others()) == RANDOM
    assert asked.others.ids == ("a", "b")
    for name, text in zip(asked.others.ids, asked.others.texts):
        assert text.endswith(f"Call: f(1)\nExpected: 2\nGot: {name}")
    # beyond the draws of the chains: 12 first answers, and twice 12 more
    assert asked_at == [(36, [0, 1, 2])]


def test_nothing_is_asked_for_other_controls(player):
    asked = Refinement(2, told=Told.NONE)
    assert hear_others(player, tasks_of("a", "b"), asked) is asked and not asked_at


def test_one_alone_cannot_be_told_of_another(player):
    with pytest.raises(InputError, match=r"first answer fails a visible test, got 1 of 2"):
        hear_others(player, tasks_of("a", "B"), RANDOM)


def test_all_hosts_read_the_report_of_the_host_that_ran_the_program(player, monkeypatch):
    """One sees a timeout in each program; they go on alike, with longer reports of some."""
    programs = [Program(task.problem, "", 0, ()) for task in tasks_of("a", "B", "c")]
    slow = TestResult(Verdict.TIMEOUT, "CPU time", stderr="x" * 99_999)
    late = Report(Verdict.TIMEOUT, (slow,), frozenset())
    told = {
        program.problem.id: report
        for program, report in zip(programs, player.run(programs))
    }

    class Judge:
        def __init__(self, is_late):
            self.is_late = is_late

        def stream(self, programs):
            for place, program in enumerate(programs):
                yield place, late if self.is_late else told[program.problem.id]

    work = lambda host: run_all(Judge(host == 1), programs, "")  # noqa: E731
    found, count = on_hosts(monkeypatch, 2, work)
    assert found == [[told["a"], late, told["c"]]] * 2
    assert count == 2  # so long a text takes two


def test_a_first_answer_that_happens_to_fail_here_alone_is_told_of_another(player):
    """One that passed when others were heard has failed now: any of them will do."""
    asked = hear_others(player, tasks_of("a", "b", "C"), RANDOM)
    assert asked.others.ids == ("a", "b")
    (chain,) = refine_all(player, tasks_of("C"), asked)
    assert len(chain) == 1
