"""Difficulties are listed from easy to hard, wherever they are listed."""

import collections

from stepcoder_jax.data.curation import stats
from stepcoder_jax.records import Mode, Problem, Report, Verdict, order_difficulties
from stepcoder_jax.results import outcomes, summary
from stepcoder_jax.results.outcomes import Outcome
from stepcoder_jax.results.summary import Graded
from stepcoder_jax.runs import greedy

NATURAL = ["introductory", "interview", "competition", "easy", "medium", "hard"]
NATURAL += ["800", "1200", "10000", "mine", "other", "unknown"]
SHUFFLED = sorted(NATURAL, key=lambda name: name[::-1])


def test_known_ones_then_numbers_then_others():
    assert SHUFFLED != NATURAL and sorted(NATURAL) != NATURAL
    assert order_difficulties(SHUFFLED * 2) == NATURAL


def test_every_list_has_this_order():
    graded = [Graded(f"{name}/0", name, Verdict.PASS) for name in SHUFFLED]
    rates = greedy.scores(graded, "validation")
    assert [name.partition("_")[2] for name in rates][1:-1] == NATURAL
    table = summary.score_rows(graded, graded)
    assert [row[0].partition(", ")[2] for row in table][: len(NATURAL)] == NATURAL

    found = [Outcome(f"{name}/0", name, Verdict.PASS) for name in SHUFFLED]
    assert list(outcomes.groups(found)) == [*NATURAL, "all"]
    assert list(outcomes.score(found, [1]).pass_at_k) == [*NATURAL, "all"]
    counts = {name: collections.Counter([Verdict.PASS]) for name in SHUFFLED}
    lines = outcomes.format_table(counts).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*NATURAL, "all"]

    problems = [
        Problem(name, "", "", "x = 1\n", None, Mode.STDIN_MAIN, (), name)
        for name in SHUFFLED
    ]
    assert list(stats.describe(problems, {})) == [*NATURAL, "all"]
    reports = [Report(Verdict.PASS, (), frozenset({(1, 0)}))] * len(problems)
    assert list(stats.describe_coverage(problems, reports)) == [*NATURAL, "all"]
