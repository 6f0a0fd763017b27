"""The guarded tier: deterministic, disjoint, covered as it says, nothing given away."""

import collections
import functools
import hashlib
import itertools
import json
import typing

import numpy as np
import pytest

from stepcoder_jax.data.generated import benchmark, guarded, splits, tiers
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback import cuts, stages
from stepcoder_jax.records import Program, Verdict
from tests.execution.kit import make_settings

SPLITS = typing.get_args(splits.Split)
JUDGED = ("train", "validation", "test")
DIGESTS = {
    "train": "f2ab87a42915fab5",
    "validation": "602c964f8a515253",
    "test": "5d7cd1e4f6b482f7",
}


@functools.cache
def problems_of(split):
    sizes = (600, 600, 600) if split == "sft" else guarded.SIZES[split]
    return guarded.generate(split, guarded.SEED, sizes)


def everything():
    return [problem for split in SPLITS for problem in problems_of(split)]


def hard(split):
    return [p for p in problems_of(split) if p.difficulty == "competition"]


def parts_run(problem, inputs):
    """Which parts a call executes, and what it returns: by the solution's own text."""
    marked = []
    for line in problem.solution.split("\n"):
        marked.append(line)
        if line.startswith("    if "):
            marked.append(f"        seen.append({line.split()[1]})")
    scope = {"seen": []}
    exec("\n".join(marked), scope)
    result = scope["solve"](*inputs)
    return scope["seen"], result


def test_the_same_seed_gives_the_same_problems():
    assert guarded.generate("train", 7, (5, 5, 5)) == guarded.generate(
        "train", 7, (5, 5, 5)
    )
    assert guarded.generate("train", 7, (5, 5, 5)) != guarded.generate(
        "train", 8, (5, 5, 5)
    )
    assert tiers.load("guarded", "validation") == problems_of("validation")


@pytest.mark.parametrize("split", DIGESTS)
def test_every_machine_has_the_same_splits(split):
    """Change these with the tier alone: results before and after do not compare."""
    rows = [benchmark.to_apps_plus(problem) for problem in problems_of(split)]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    assert digest == DIGESTS[split]


@pytest.mark.parametrize("split", JUDGED)
def test_sizes_and_stages(split):
    sizes = guarded.SIZES[split]
    counts = collections.Counter(p.difficulty for p in problems_of(split))
    assert counts == dict(zip(guarded.PARTS, sizes, strict=True))
    assert len({p.id for p in problems_of(split)}) == sum(sizes)
    for problem in problems_of(split):
        found = len(cuts.problem_conditionals(problem))
        assert found == guarded.PARTS[problem.difficulty]
        assert len(guarded.parts_of(problem)) == found
    assert stages.num_stages(9) == 3 and stages.cut_index(9, 2) == 6
    assert cuts.head(hard(split)[0], 6).count("    if ") == 6


def test_there_are_enough_alien_words_and_each_is_as_frequent():
    words = list(itertools.chain(*guarded.ALIEN))
    plain = list(itertools.chain(*guarded.PLAIN))
    assert len(words) == len(set(words)) == 27 and not set(words) & set(plain)
    drawn = collections.Counter(
        part.word for problem in hard("train") for part in guarded.parts_of(problem)
    )
    assert set(drawn) == set(words)
    assert min(drawn.values()) > 0.7 * max(drawn.values())


def test_a_class_is_once_in_a_program_and_its_operations_differ():
    for kind in range(guarded.NUM_CLASSES):
        assert len(set(guarded.operations(kind))) == guarded.OPERATIONS
    everywhere = [x for kind in range(9) for x in guarded.operations(kind)]
    assert len(set(everywhere)) == len(everywhere)
    for problem in everything():
        kinds = [guarded.meaning_of(p.word)[0] for p in guarded.parts_of(problem)]
        assert len(set(kinds)) == len(kinds)


def test_no_program_is_in_two_splits():
    homes = {}
    for split in SPLITS:
        for problem in problems_of(split):
            assert homes.setdefault(problem.solution, split) == split, problem.id


@pytest.mark.parametrize("split", JUDGED)
def test_tests_execute_what_they_are_to_execute(split):
    for problem in problems_of(split):
        seen = set()
        for test in problem.tests:
            ran, result = parts_run(problem, test.inputs)
            assert result == test.expected
            seen |= set(ran)
        count = guarded.PARTS[problem.difficulty]
        blocks = [len(seen & set(range(i, i + 3))) for i in range(0, count, 3)]
        share = 2 if split == "train" else 3
        assert blocks == [share] * (count // 3), problem.id
        assert len(problem.tests) == (2 if split == "train" else 10)


def test_each_wrong_operation_that_runs_is_noticed():
    for problem in hard("train")[:40]:
        parts = guarded.parts_of(problem)
        ran = guarded.executed(parts, [test.inputs[1] for test in problem.tests])
        for i, part in enumerate(parts):
            kind = guarded.meaning_of(part.word)[0]
            for other in set(guarded.operations(kind)) - {part.operation}:
                body = f"#{' ' + part.word}\n        x "
                wrong = problem.solution.replace(body + part.operation, body + other)
                assert wrong != problem.solution
                scope = {}
                exec(wrong, scope)
                passes = all(scope["solve"](*t.inputs) == t.expected for t in problem.tests)
                assert passes == (not ran[i])


def test_supervised_text_teaches_classes_and_plain_words_and_no_alien_meaning():
    meant = collections.defaultdict(collections.Counter)
    for problem in guarded.generate("sft", guarded.SEED, (1000, 1000, 4000)):
        lines = problem.solution.split("\n")
        for header, body in zip(lines[1:-2:2], lines[2:-2:2]):
            meant[header.split("# ")[1]][body.removeprefix("        x ")] += 1
    for word, found in meant.items():
        kind, meaning = guarded.meaning_of(word)
        if word in itertools.chain(*guarded.PLAIN):
            assert set(found) == {meaning}
        else:
            assert set(found) == set(guarded.operations(kind))
            # a quarter each, within five standard deviations
            total = sum(found.values())
            assert abs(found[meaning] / total - 0.25) < 5 * (0.1875 / total) ** 0.5


def given_and_next(split):
    """At the cuts of K = 9: what the prefix shows, and the part behind the cut."""
    for problem in hard(split):
        parts = guarded.parts_of(problem)
        for cut in (3, 6):
            yield parts[:cut], parts[cut]


def test_a_reader_of_the_prefix_alone_predicts_no_later_meaning():
    """Naive Bayes over all that the prefix shows, given the class that is asked for.

    Of 27 words of nine classes, each class has three that mean three of four operations, so
    chance is a third.
    """
    counts = collections.defaultdict(lambda: np.ones(guarded.OPERATIONS))
    prior = collections.defaultdict(lambda: np.ones(guarded.OPERATIONS))

    def case(prefix, part):
        kind, meaning = guarded.meaning_of(part.word)
        row = guarded.operations(kind).index(meaning)
        shown = [(kind, p.operation) for p in prefix] + [(kind, p.sign) for p in prefix]
        shown += [(kind, i, p.operation) for i, p in enumerate(prefix)]
        return kind, row, shown

    learnt = guarded.generate("train", 99, (0, 0, 1500))
    rows = []
    for problem in learnt:
        parts = guarded.parts_of(problem)
        rows += [case(parts[:cut], parts[cut]) for cut in (3, 6)]
    for kind, row, shown in rows:
        prior[kind][row] += 1
        for feature in shown:
            counts[feature][row] += 1
    right = []
    for prefix, part in [*given_and_next("validation"), *given_and_next("test")]:
        kind, row, shown = case(prefix, part)
        score = np.log(prior[kind])
        for feature in shown:
            score = score + np.log(counts[feature] / counts[feature].sum())
        right.append(int(np.argmax(score)) == row)
    assert abs(np.mean(right) - 1 / 3) < 4 * (2 / 9 / len(right)) ** 0.5


def test_the_judge_passes_canonical_solutions_and_says_what_ran():
    problems = [*hard("train")[:30], *hard("test")[:10]]
    programs = [Program(p, p.solution, 0, ()) for p in problems]
    with Pool(make_settings(coverage="statement")) as pool:
        reports = pool.run(programs)
    for problem, report in zip(problems, reports, strict=True):
        assert report.verdict is Verdict.PASS
        bodies = sum(column == 8 for _, column in report.executed)
        assert bodies == (6 if "/train/" in problem.id else 9)


def test_accuracy_by_position():
    problem = hard("test")[0]
    parts = guarded.parts_of(problem)
    whole = guarded.accuracy_by_position(problem, problem.solution)
    assert whole == [guarded.Accuracy(True, True, True)] * 9
    lines = problem.solution.split("\n")
    lines[1] = lines[1].replace("#", "##")  # another guard
    other = next(
        x
        for x in guarded.operations(guarded.meaning_of(parts[1].word)[0])
        if x != parts[1].operation
    )
    lines[4] = f"        x {other}"
    lines[6] = "        x = 3"
    found = guarded.accuracy_by_position(problem, "\n".join(lines[:17]))
    assert found[:3] == [
        guarded.Accuracy(False, True, True),
        guarded.Accuracy(True, True, False),
        guarded.Accuracy(True, False, False),
    ]
    assert found[8] == guarded.Accuracy(False, False, False)  # cut off before it
    assert (
        guarded.accuracy_by_position(problem, "")
        == [guarded.Accuracy(False, False, False)] * 9
    )
