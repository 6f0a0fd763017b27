"""What the greedy program of each prompt earns, by a scripted model and judge."""

import numpy as np

from stepcoder_jax.config import Config
from stepcoder_jax.feedback.rewards.stepcoder import stepcoder
from stepcoder_jax.feedback.rewards.terms import Term
from stepcoder_jax.pytrees import Feedback
from stepcoder_jax.records import Program, Report, Task, Verdict
from stepcoder_jax.runs.generate import Judged
from stepcoder_jax.runs.worth import appraising
from stepcoder_jax.runs.worth.appraising import Appraiser, Scheme
from stepcoder_jax.sampling.slots import Completion
from tests.feedback.kit import problem

GROUP, COLUMNS = 2, 5


def first(program, report, extras):
    """A tenth on the first token: it is that token's, and no part of the baseline."""
    return [0.1] + [0.0] * (extras.tokens - 1)


def make(**coderl):
    config = Config(algorithm="coderl")
    config.sampling.rollouts_per_problem = GROUP
    config.sampling.max_completion_length = COLUMNS
    for name, value in coderl.items():
        setattr(config.coderl, name, value)
    terms = [Term("stepcoder", 1.0, stepcoder), Term("first", 1.0, first)]
    return Appraiser(config, None, "actor", Scheme(terms))


def test_the_greedy_program_of_a_group_is_run_once(monkeypatch):
    verdicts = [Verdict.PASS, Verdict.WRONG, Verdict.INFRA]
    tasks = [Task(problem(str(i), ""), i, 0, "") for i in range(3) for _ in range(GROUP)]
    asked = []

    def complete(coder, actor, posed, label):
        asked.append(([task.index for task in posed], actor, label))
        done = [
            Completion(i, np.zeros(2 + i, np.int32), None, None, False) for i in range(3)
        ]
        programs = [Program(task.problem, "", 0, ()) for task in posed]
        reports = [Report(verdict, (), frozenset()) for verdict in verdicts]
        return Judged(done, [0, 1, 2], [], programs, reports, 0.0, 0.0)

    monkeypatch.setattr(appraising, "complete_greedily", complete)
    found = make().find_baseline(tasks)
    assert asked == [([0, 1, 2], "actor", "")]
    np.testing.assert_allclose(found.rewards, [1, 1, -0.3, -0.3, 0, 0], rtol=1e-6)
    assert found.valid.tolist() == [True] * 4 + [False] * 2 and found.tokens == 9
    # a row whose greedy program was not judged teaches nothing
    valid = np.array([True, False, True, True, True, True])
    feedback = Feedback(np.zeros((6, COLUMNS)), np.ones((6, COLUMNS), bool), valid)
    told = make().complete(None, [], feedback, found)
    assert told.valid.tolist() == [True, False, True, True, False, False]
    assert told.baseline is found.rewards and told.token_values is None


def test_nothing_is_decoded_where_nobody_asks():
    assert make().has_baseline and not make(baseline="none").has_baseline
    appraiser = make()
    appraiser.config.algorithm = "ppo"
    assert not appraiser.has_baseline
    assert appraiser.bind([], []) is appraiser.scheme.terms
