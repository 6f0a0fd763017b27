"""A run goes on with its own problems, or names the first that is another."""

import dataclasses
import json
import re

import pytest

from stepcoder_jax.config import ConfigError
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.records import TestCase
from stepcoder_jax.runs import problem_set


@pytest.fixture(scope="module")
def problems():
    return benchmark.load("train")[:4]


def test_the_same_problems_go_on(problems):
    record = json.loads(json.dumps({"problems": problem_set.describe(problems)}))
    problem_set.check(record, problems, 4)
    measured = [dataclasses.replace(x, cpu_seconds=3.0) for x in problems]
    problem_set.check(record, measured, 4)


def changed(problem, **fields):
    return dataclasses.replace(problem, **fields)


OTHERS = {
    "order": (lambda x: [x[1], x[0], *x[2:]], "problem 0 of the run is "),
    "another": (lambda x: [*x[:3], changed(x[3], id="new")], "got 'new'"),
    "fewer": (lambda x: x[:3], "learns from 4 problems, got 3"),
    "text": (lambda x: [*x[:3], changed(x[3], statement="?")], "the text or the tests of"),
    "tests": (
        lambda x: [*x[:3], changed(x[3], tests=(TestCase("1", "2"),))],
        "the text or the tests of",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_refused_by_name(problems, name):
    make, words = OTHERS[name]
    record = {"problems": problem_set.describe(problems)}
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        problem_set.check(record, make(problems), 4)
    assert str(error.value).startswith("data.path: ")


def test_visible_tests_count_where_prompts_show_them(problems):
    shown = [dataclasses.replace(x, visible_tests=x.tests[:1]) for x in problems]
    record = {"problems": problem_set.describe(problems)}
    problem_set.check(record, shown, 4)  # an older run did not know of any
    record = {"problems": problem_set.describe(shown, visible=True)}
    problem_set.check(record, shown, 4, visible=True)
    with pytest.raises(ConfigError, match="the text or the tests of"):
        problem_set.check(record, problems, 4, visible=True)


def test_an_older_checkpoint_knows_their_number_alone(problems):
    problem_set.check({}, problems, 4)
    with pytest.raises(ConfigError, match="learns from 5 problems, got 4"):
        problem_set.check({}, problems, 5)


def test_an_id_that_occurs_twice_is_refused(problems):
    with pytest.raises(ConfigError, match="2 problems have the id"):
        problem_set.describe([*problems, problems[0]])
