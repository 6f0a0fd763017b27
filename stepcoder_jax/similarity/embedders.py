"""Explanations as vectors whose inner product is their cosine.

An embedder takes n texts and gives f32[n, d] with rows of length 1, or 0 where a text has
nothing in it. This one needs no model: words and pairs of neighbours, hashed, weighed by
how rare they are among the texts that it is fitted on.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from stepcoder_jax.syntax import MAX_BYTES

Embedder = Callable[[Sequence[str]], np.ndarray]

NUM_BUCKETS = 4096
_WORD = re.compile(r"\w+|[^\w\s]+")  # a run of signs is a word: explanations quote code


def fit_tfidf(texts: Iterable[str]) -> Embedder:
    """Words and bigrams by TF-IDF.

        weight of a term = count in the text * (log((1 + n) / (1 + df)) + 1)

    with n the texts and df those of them that have the term, as scikit-learn smooths it;
    then each row is brought to length 1. Case does not count. A term is one of NUM_BUCKETS
    by its CRC-32, so two may be one. Of a text the first MAX_BYTES characters are read.
    """
    found, number = np.zeros(NUM_BUCKETS), 0
    for text in texts:
        found[np.unique(_terms(text))] += 1
        number += 1
    weights = np.log((1 + number) / (1 + found)) + 1

    def embed(texts: Sequence[str]) -> np.ndarray:
        counts = [np.bincount(_terms(text), minlength=NUM_BUCKETS) for text in texts]
        return to_unit(np.reshape(counts, (-1, NUM_BUCKETS)) * weights)

    return embed


def to_unit(rows: np.ndarray) -> np.ndarray:
    """f32 rows of length 1; what has no length stays 0."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros(rows.shape), where=norms > 0).astype("f4")


def _terms(text: str) -> np.ndarray:
    """The buckets of a text's words and of its pairs of words, as often as they occur."""
    words = _WORD.findall(text[:MAX_BYTES].lower())
    pairs = (f"{one} {other}" for one, other in itertools.pairwise(words))
    terms = itertools.chain(words, pairs)
    hashes = (zlib.crc32(term.encode("utf-8", "surrogatepass")) for term in terms)
    return np.fromiter((each % NUM_BUCKETS for each in hashes), np.intp)
