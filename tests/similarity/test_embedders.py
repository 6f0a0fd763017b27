"""TF-IDF of words and pairs of words, against sums by hand."""

import math
import subprocess
import sys
import zlib

import numpy as np

from stepcoder_jax.similarity.embedders import NUM_BUCKETS, fit_tfidf, to_unit


def place(term):
    return zlib.crc32(term.encode()) % NUM_BUCKETS


def test_tfidf_by_hand():
    """Two texts; `the` is in both, `loop` in one, `the loop` in one, `off` in none.

    log((1 + 2) / (1 + 2)) + 1 = 1; log(3 / 2) + 1; log(3 / 1) + 1 of what is new.
    """
    embed = fit_tfidf(["The loop", "the sign"])
    expected = np.zeros(NUM_BUCKETS)
    once, new = math.log(3 / 2) + 1, math.log(3) + 1
    for term, weight in {"the": 2.0, "loop": once, "off": new}.items():
        expected[place(term)] += weight
    for term, weight in {"the the": new, "the loop": once, "loop off": new}.items():
        expected[place(term)] += weight
    (found,) = embed(["the THE loop off"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-6)


def test_rows_are_of_length_one_or_empty():
    embed = fit_tfidf([])
    rows = embed(["a b", "", " \n", "é ß 漢字", "a" * 10**6, "\ud800 b"])
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(norms, [1, 0, 0, 1, 1, 1], rtol=1e-6)
    plus, minus = embed(["x += y", "x -= y"])  # signs are words
    assert plus @ minus < 0.9
    assert embed([]).shape == (0, NUM_BUCKETS)
    assert not to_unit(np.zeros((2, 3))).any()


def test_the_same_words_are_near_and_rare_ones_count_more():
    texts = [f"The {name} of the items is wrong." for name in ("sum", "count", "sign")]
    rows = fit_tfidf(texts)([*texts, "The sum is wrong.", "Nothing in common"])
    cosines = rows @ rows.T
    assert np.isclose(cosines[0, 0], 1)
    assert cosines[3, 0] > cosines[3, 1] > 0.2
    assert cosines[4, 0] == 0


def test_every_process_gives_the_same():
    code = (
        "from stepcoder_jax.similarity.embedders import fit_tfidf; "
        "print(fit_tfidf(['a b c', 'b d'])(['a b d e']).tobytes().hex())"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(shown) == 1
