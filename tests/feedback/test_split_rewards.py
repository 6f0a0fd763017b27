"""Rewards of explanation and program: the maps, where they stand, who gets none."""

import dataclasses
import math

import numpy as np
import pytest

from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.rewards.batch import mean_of
from stepcoder_jax.feedback.split_rewards import (
    CLIPPED,
    PAPER,
    Scores,
    Siblings,
    explanation_similarities,
    fit_explanation_map,
    leave_out,
    program_reward,
    split_rewards,
)
from stepcoder_jax.records import (
    Attempt,
    InputError,
    Mode,
    Problem,
    Program,
    Report,
    Task,
    TestResult,
    Variant,
    Verdict,
)
from stepcoder_jax.similarity.codebleu import codebleu

PROBLEM = Problem("p", "", "", "x = 9\n", None, Mode.STDIN_MAIN, (), "easy")
WRONG = "x = 1 - y\n"
RIGHT = "x = 1 + y\n"
CONTEXT = Task(PROBLEM, 0, 0, "", (Attempt(WRONG, Verdict.WRONG, 0, ""),), Variant.EXPLAIN)
SIBLINGS = Siblings((RIGHT,), ("up",))
ANGLES = {"up": 90, "near": 30, "far": 0, "down": -90}  # of S_ex 1, 0.5, 0 and -1


def embed(texts):
    angles = np.radians([ANGLES[text] for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype("f4")


def judged(passed, total=2, verdict=None, **fields):
    tests = [TestResult(Verdict.PASS)] * passed + [TestResult(Verdict.WRONG)] * (
        total - passed
    )
    verdict = verdict or (Verdict.PASS if passed == total else Verdict.WRONG)
    return Report(verdict, tuple(tests), frozenset(), **fields)


def answer(source=RIGHT, explanation="near", tokens=3, truncated=False):
    program = None if source is None else Program(PROBLEM, source, 0, ())
    return Answer(program, explanation, tokens, truncated)


def reward(*rows, tasks=None, siblings=None, **options):
    """Rewards, |e| and metrics of (answer, report) rows of 5 tokens, in 6 columns."""
    answers, reports = zip(*rows)
    mask = np.tile(np.arange(6) < 5, (len(rows), 1))
    rewards, explained, columns = split_rewards(
        tasks or [CONTEXT] * len(rows),
        answers,
        reports,
        siblings or [SIBLINGS] * len(rows),
        mask,
        **{"embed": embed, **options},
    )
    return rewards, explained, {name: mean_of(columns[name]) for name in columns}


@pytest.mark.parametrize(
    ("similarity", "paper", "clipped"),
    [
        (0.4, -5, -5),
        (0.7, 0, 0),
        (1.0, 5, 5),
        (0.0, -35 / 3, -5),
        (-1.0, -85 / 3, -5),
    ],
)
def test_maps_of_the_explanation(similarity, paper, clipped):
    assert PAPER(similarity) == pytest.approx(paper)
    assert CLIPPED(similarity) == pytest.approx(clipped)


@pytest.mark.parametrize(
    ("kind", "tests", "codebleu", "of_wrong", "expected"),
    [
        ("paper", 0, 0, math.nan, -5),
        ("paper", 1, 1, math.nan, 5),
        ("paper", 0.5, 0.93, math.nan, 2.15),  # the copy of section 7 of our notes
        ("paper", 1, 0.13, math.nan, 0.65),  # below it: right, in another form
        ("tests", 0, math.nan, math.nan, -5),
        ("tests", 0.5, math.nan, math.nan, 0),
        ("tests", 1, math.nan, math.nan, 5),
        ("tests_then_codebleu", 0.5, 0.93, math.nan, -2.5),
        ("tests_then_codebleu", 1, 0.13, math.nan, 0.65),
        ("gain", 0.5, 0.93, 0.93, -2.5),  # the copy
        ("gain", 1, 0.13, 0.93, -4),
        ("gain", 1, 1, 0.93, 0.35),
        ("gain", 0, 0.1, 0.93, -5),  # not below an answer without code
    ],
)
def test_rewards_of_the_program(kind, tests, codebleu, of_wrong, expected):
    scores = Scores(tests, codebleu, of_wrong, math.nan)
    assert program_reward(scores, kind) == pytest.approx(expected)


def test_rewards_stand_on_two_tokens():
    rewards, explained, metrics = reward((answer(), judged(1)))
    # S_cb is 1, S_ut 1/2, S_ex 1/2
    expected = [[0, 0, (50 * 0.5 - 35) / 3, 0, 5 * 1.5 - 5, 0]]
    np.testing.assert_allclose(rewards, expected, rtol=1e-6)
    assert rewards.dtype == np.float32 and explained.tolist() == [3]
    assert metrics == {
        "split/tests": 0.5,
        "split/codebleu": 1.0,
        "split/explanation": pytest.approx(0.5),
        "split/copied": 0.0,
        "split/without_code": 0.0,
    }


def test_without_an_explanation_one_token_has_a_reward():
    """Never the last token of the prompt, which would be column -1."""
    rewards, explained, _ = reward((answer(explanation="", tokens=0), judged(2)))
    assert rewards.tolist() == [[0, 0, 0, 0, 5, 0]] and explained.tolist() == [0]


def test_a_direct_answer_is_one_part():
    direct = dataclasses.replace(CONTEXT, variant=Variant.DIRECT)
    rewards, explained, _ = reward((answer(), judged(2)), tasks=[direct])
    assert rewards.tolist() == [[0, 0, 0, 0, 5, 0]] and explained.tolist() == [0]


def test_an_answer_cut_in_its_explanation():
    """R(r) is -5 on the last token, R(e) as usual: here both are on the same one."""
    cut = answer(source=None, tokens=5, truncated=True)
    rewards, explained, metrics = reward((cut, judged(0, verdict=Verdict.COMPILE)))
    np.testing.assert_allclose(rewards[0], [0, 0, 0, 0, -5 - 10 / 3, 0], rtol=1e-6)
    assert explained.tolist() == [5] and metrics["split/without_code"] == 1
    begun = answer(source=None, tokens=3, truncated=True)  # cut in the code
    rewards, explained, _ = reward((begun, judged(0, verdict=Verdict.COMPILE)))
    np.testing.assert_allclose(rewards[0], [0, 0, -10 / 3, 0, -5, 0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["paper", "tests", "tests_then_codebleu", "gain"])
def test_no_program_is_worth_more_than_none(kind):
    none = reward((answer(source=None), judged(0)), kind=kind)[0][0, 4]
    poor = reward((answer(source="zzz("), judged(0)), kind=kind)[0][0, 4]
    assert none == -5 <= poor


def test_rows_that_are_not_valid_have_no_reward_of_either_kind():
    rows = [
        (answer(), judged(2)),
        (answer(), judged(0, verdict=Verdict.INFRA)),
        (answer(), judged(2, weak=True)),
    ]
    rewards, explained, metrics = reward(*rows)
    assert (rewards != 0).sum(axis=1).tolist() == [2, 0, 0]
    assert explained.tolist() == [3, 3, 3] and metrics["split/tests"] == 1
    nothing = reward(*rows[1:])
    assert not nothing[0].any() and all(map(math.isnan, nothing[2].values()))


def test_one_scalar_for_both_spans():
    rewards, explained, _ = reward((answer(), judged(1)), one_scalar=True)
    np.testing.assert_allclose(rewards[0], [0, 0, 0, 0, 2.5 - 10 / 3, 0], rtol=1e-6)
    assert explained.tolist() == [0]
    # an explanation that was asked for and did not come gets the floor
    silent = answer(explanation=" ", tokens=0)
    options = {"one_scalar": True, "explanation_map": CLIPPED}
    rewards, _, _ = reward((silent, judged(1)), **options)
    assert rewards[0].tolist() == [0, 0, 0, 0, 2.5 - 5, 0]


@pytest.mark.parametrize(
    ("options", "siblings"), [({"embed": None}, SIBLINGS), ({}, Siblings((RIGHT,), ("",)))]
)
def test_without_anything_to_compare_it_with_an_explanation_has_no_reward(
    options, siblings
):
    rewards, explained, metrics = reward(
        (answer(), judged(2)), siblings=[siblings], **options
    )
    assert rewards.tolist() == [[0, 0, 0, 0, 5, 0]] and explained.tolist() == [3]
    assert math.isnan(metrics["split/explanation"])


def test_codebleu_is_the_mean_over_siblings_and_gain_is_over_the_wrong_program():
    siblings = Siblings((RIGHT, "x = -y + 1\n"), ("up", ""))
    alike = np.mean([codebleu(RIGHT, each) for each in siblings.programs])
    copied = np.mean([codebleu(WRONG, each) for each in siblings.programs])
    rows = [(answer(), judged(1)), (answer(source=WRONG), judged(1))]
    paper = reward(*rows, siblings=[siblings] * 2)
    gain = reward(*rows, siblings=[siblings] * 2, kind="gain")
    np.testing.assert_allclose(paper[0][:, 4], [5 * alike - 2.5, 5 * copied - 2.5])
    np.testing.assert_allclose(gain[0][:, 4], [5 * (alike - copied) - 2.5, -2.5])
    assert paper[2]["split/copied"] == 0.5


def test_a_pair_is_not_compared_with_itself():
    both = Siblings((RIGHT, WRONG), ("up", "near"))
    assert leave_out(both, 0, "x") == Siblings((WRONG,), ("near",))
    assert leave_out(both, 1, "x") == Siblings((RIGHT,), ("up",))
    # the only one: the canonical solution, which explains nothing
    assert leave_out(SIBLINGS, 0, "x = 9\n") == Siblings(("x = 9\n",), ("",))


def test_similarity_is_the_mean_cosine_with_each_ones_own_siblings():
    two = Siblings((RIGHT, RIGHT, RIGHT), ("up", "", "down"))
    found = explanation_similarities(
        ["near", "up", "", "near"],
        [SIBLINGS, two, two, Siblings((RIGHT,), ("",))],
        embed,
    )
    np.testing.assert_allclose(found, [0.5, 0.0, np.nan, np.nan], atol=1e-6)


def test_the_fitted_map_puts_the_medians_where_they_belong():
    """Right: up with near .5, twice. Wrong: far with up and near: 0 and cos 30, their mean.

    The median of the right is 0.5, of the wrong 0.433.
    """
    fitted = fit_explanation_map([(["up", "near"], ["far"])], embed)
    wrong = (0 + math.cos(math.radians(30))) / 2
    assert fitted(0.5) == pytest.approx(2.5) and fitted(wrong) == pytest.approx(-2.5)
    assert (fitted(1.0), fitted(-1.0), fitted.least) == (5, -5, -5)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "no right explanation"),
        ([(["up"], ["far"])], "no right explanation"),  # without itself there is none
        ([(["up", "near"], [])], "no wrong explanation"),
        ([(["up", "near"], [" "])], "no wrong explanation"),
        ([(["up", "far"], ["near"])], "expected right explanations to be more alike"),
    ],
)
def test_a_map_that_cannot_be_fitted_is_refused_in_one_line(groups, message):
    with pytest.raises(InputError, match=message) as caught:
        fit_explanation_map(groups, embed)
    assert "\n" not in str(caught.value)
