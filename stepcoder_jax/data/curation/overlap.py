"""How much texts share: near duplicates, common n-grams, duplicated lines. Pure functions.

No hashing and no sampling: every pair at or above a threshold is found, and the same input
gives the same answer everywhere.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_WORD = re.compile(r"\w+")
_SHORTEST = 3  # words of a benchmark text below which a match says nothing
_EPSILON = 1e-9  # of products of a threshold and a count


class Pair(NamedTuple):
    """Two texts by their numbers, first < second, and how alike they are."""

    first: int
    second: int
    similarity: float


def similar_pairs(texts: Sequence[str], size: int, threshold: float) -> list[Pair]:
    """Return every pair of texts whose sets of word n-grams have Jaccard >= threshold.

    |A and B| / |A or B| over n-grams of `size` lower-case words (a shorter text is one
    n-gram; a text without words is like no other). Exact, by prefix filtering (Bayardo et
    al., WWW 2007, section 4): with n-grams sorted from rare to common, two sets that are
    so alike share one of the first |A| - ceil(threshold |A|) + 1 of each.
    """
    ranked = _rank([set(_grams(_WORD.findall(text.lower()), size)) for text in texts])
    owners: dict[int, list[int]] = collections.defaultdict(list)
    pairs = []
    for second, grams in enumerate(ranked):
        prefix = grams[: len(grams) - math.ceil(threshold * len(grams) - _EPSILON) + 1]
        candidates = {first for gram in prefix for first in owners[gram]}
        mine = set(grams)
        for first in sorted(candidates):
            shared = len(mine.intersection(ranked[first]))
            union = len(mine) + len(ranked[first]) - shared
            if shared >= threshold * union - _EPSILON:
                pairs.append(Pair(first, second, shared / union))
        for gram in prefix:
            owners[gram].append(second)
    return pairs


def _rank(sets: Sequence[set[tuple[str, ...]]]) -> list[list[int]]:
    """Each set as numbers in ascending order, where rarer n-grams have smaller ones."""
    counts = collections.Counter(gram for grams in sets for gram in grams)
    order = sorted(counts, key=lambda gram: (counts[gram], gram))
    rank = {gram: number for number, gram in enumerate(order)}
    return [sorted(rank[gram] for gram in grams) for grams in sets]


def _grams(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    if words:
        for start in range(max(1, len(words) - size + 1)):
            yield tuple(words[start : start + size])


class Benchmark:
    """The n-grams of a benchmark's texts, to be looked for in texts to train on.

    A text of 3 to `size` - 1 words counts as a whole; a shorter one not at all (the rule
    of DeepSeek-Coder, arXiv:2401.14196, where size is 10). Words, which that paper does not
    define, are what white space parts, in lower case: so a line of code is a few words, and
    ten of them are more than a common loop.
    """

    def __init__(self, items: Iterable[tuple[str, Sequence[str]]], size: int) -> None:
        """`items` are (id, texts)."""
        self._owners: dict[tuple[str, ...], list[str]] = {}
        for name, texts in items:
            for text in texts:
                words = text.lower().split()
                if len(words) >= _SHORTEST:
                    for gram in _grams(words, size):
                        self._owners.setdefault(gram, []).append(name)
        self._sizes = sorted({len(gram) for gram in self._owners}, reverse=True)

    def find(self, texts: Iterable[str]) -> dict[str, str]:
        """{id of an item: the first n-gram that it shares}, in order of appearance."""
        found: dict[str, str] = {}
        for text in texts:
            words = text.lower().split()
            for size in self._sizes:
                for start in range(len(words) - size + 1):
                    gram = tuple(words[start : start + size])
                    for name in self._owners.get(gram, ()):
                        found.setdefault(name, " ".join(gram))
        return found


def code_lines(source: str) -> list[str]:
    """The lines of a program without the white space around them, blank ones left out."""
    return [line.strip() for line in source.splitlines() if line.strip()]


def duplicated_shares(sources: Iterable[str], others: Iterable[str]) -> list[float | None]:
    """Share of each program's lines that are lines of one of `others`; None without lines.

    The measure that arXiv:2402.01391 takes for its Fig. 3 from arXiv:2108.07732. It does
    not say whether indentation counts; here it does not, which finds more.
    """
    known = {line for other in others for line in code_lines(other)}
    shares: list[float | None] = []
    for source in sources:
        lines = code_lines(source)
        shares.append(sum(line in known for line in lines) / len(lines) if lines else None)
    return shares
