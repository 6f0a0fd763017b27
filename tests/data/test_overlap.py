"""What texts share: against slow definitions, and small cases by hand."""

import random

import pytest

from stepcoder_jax.data.curation.overlap import (
    Benchmark,
    code_lines,
    duplicated_shares,
    similar_pairs,
)


def slow_pairs(texts, size, threshold):
    """Every pair, by the definition."""
    sets = []
    for text in texts:
        words = text.split()
        count = max(1, len(words) - size + 1) if words else 0
        sets.append({tuple(words[i : i + size]) for i in range(count)})
    found = {}
    for b in range(len(sets)):
        for a in range(b):
            union = len(sets[a] | sets[b])
            if union and len(sets[a] & sets[b]) / union >= threshold - 1e-12:
                found[a, b] = len(sets[a] & sets[b]) / union
    return found


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7, 0.8, 1.0])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_pairs_are_those_of_the_definition(size, threshold):
    rng = random.Random(size)
    base = [[rng.choice("abcdefgh") for _ in range(rng.randrange(30))] for _ in range(30)]
    texts = [" ".join(words) for words in base]
    for words in base:  # and the same with a word changed here and there
        changed = [w if rng.random() > 0.05 else "z" for w in words]
        texts.append(" ".join(changed))
    wanted = slow_pairs(texts, size, threshold)
    got = {(a, b): s for a, b, s in similar_pairs(texts, size, threshold)}
    assert got == pytest.approx(wanted)
    assert len(wanted) > 5


def test_a_similarity_at_the_threshold_counts():
    # unigrams {a..j} and {a..h, x}: 8 shared of 11; {a..h}: 8 of 10
    texts = ["a b c d e f g h i j", "a b c d e f g h x", "a b c d e f g h"]
    assert [(a, b) for a, b, _ in similar_pairs(texts, 1, 0.8)] == [(0, 2), (1, 2)]
    assert [(a, b) for a, b, _ in similar_pairs(texts, 1, 0.81)] == [(1, 2)]
    words = [f"w{i}" for i in range(25)]  # 0.28 * 25 is more than 7 in floating point
    assert len(similar_pairs([" ".join(words), " ".join(words[:7])], 1, 0.28)) == 1


def test_case_and_signs_do_not_count_and_nothing_is_like_no_other():
    assert len(similar_pairs(["Add, two numbers!", "add two NUMBERS"], 5, 1.0)) == 1
    assert similar_pairs(["", "", "...", "..."], 5, 0.8) == []


BENCHMARK = [
    ("one", ["a b c d e f", "x = y"]),
    ("two", ["C D E F G", "q r"]),
    ("three", ["a b c d"]),
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0 a b c d 1", {"one": "a b c d", "three": "a b c d"}),
        ("c  d\ne F", {"one": "c d e f", "two": "c d e f"}),
        ("d e f g", {"two": "d e f g"}),
        ("a b c", {}),
        ("x = y", {"one": "x = y"}),  # of three words: as a whole
        ("x =", {}),
        ("q r", {}),  # two words say nothing
        ("d e f g x = y", {"two": "d e f g", "one": "x = y"}),
    ],
)
def test_n_grams_of_benchmarks(text, found):
    assert Benchmark(BENCHMARK, 4).find([text]) == found


def test_several_texts_do_not_run_together():
    assert Benchmark(BENCHMARK, 4).find(["a b", "c d"]) == {}


def test_duplicated_lines():
    assert code_lines("\n  a = 1 \n\t\nb\r\n") == ["a = 1", "b"]
    others = ["def f():\n    return 1\n", "x = 2\n"]
    sources = ["return 1\nx = 2\ny\n", "\n", "z\n", "  x = 2"]
    assert duplicated_shares(sources, others) == [2 / 3, None, 0.0, 1.0]
