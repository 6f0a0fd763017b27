"""CodeBLEU (arXiv:2009.10297) of Python programs, of our own: from 0 to 1.

    CodeBLEU = (BLEU + weighted BLEU + trees + flow) / 4

    BLEU           BP (p_1 p_2 p_3 p_4)^(1/4) of the tokens; p_n = matches / n-grams of the
                   candidate, 0.1 matches where there is none and n > 1; BP = min(1,
                   exp(1 - |reference| / |candidate|))
    weighted BLEU  the same; in p_1 a keyword counts as five other tokens
    trees          sub-trees in common, names blanked: 2 |A and B| / (|A| + |B|)
    flow           def-use edges in common, names by first appearance: the same of them

A reference without edges leaves the mean of the other three. A text that does not parse has
no trees and no flow: both are 0. Two programs of fewer than four tokens have fewer n.

Where we differ from the package `codebleu` 0.7: its syntax match is membership, and its
last two parts ask only how much of the reference is found, so that writing more costs
nothing; no flow counts there as full, so that the empty text scores 0.25; and its variables
are numbered in the order of a set of strings, which changes from process to process.
"""

from __future__ import annotations

import functools
import keyword
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from stepcoder_jax import syntax
from stepcoder_jax.similarity.lexemes import share, tokens
from stepcoder_jax.similarity.trees import Edge, def_use, nodes_below, subtrees

_ORDERS = (1, 2, 3, 4)
_KEYWORD_WEIGHT = 5
_NO_MATCH = 0.1  # smoothing: method 1 of Chen and Cherry (2014), as in NLTK
_MOST_KEPT = 128  # programs whose parts are kept, for a reference meets many candidates


class Parts(NamedTuple):
    """The four parts, each from 0 to 1; `flow` None where the reference has no edges."""

    bleu: float
    weighted_bleu: float
    trees: float
    flow: float | None

    @property
    def mean(self) -> float:
        known = [part for part in self if part is not None]
        return sum(known) / len(known)


class _Counts(NamedTuple):
    grams: tuple[Counter[tuple[str, ...]], ...]  # of n = 1, 2, 3, 4
    trees: Counter[bytes] | None  # None: it does not parse
    flow: Counter[Edge] | None


def codebleu(candidate: str, reference: str) -> float:
    """The CodeBLEU of a program against one reference."""
    return parts(candidate, reference).mean


def mean_codebleu(candidate: str, references: Sequence[str]) -> float:
    """The mean of its CodeBLEU against each reference: S_cb of arXiv:2405.18649."""
    if not references:
        raise ValueError("expected at least one reference, got none")
    return sum(codebleu(candidate, each) for each in references) / len(references)


def parts(candidate: str, reference: str) -> Parts:
    """The parts of the CodeBLEU of a program against one reference."""
    ours, theirs = _count(candidate), _count(reference)
    bleu = _bleu(ours.grams, theirs.grams, 1)
    weighted = _bleu(ours.grams, theirs.grams, _KEYWORD_WEIGHT)
    trees, flow = 0.0, 0.0
    if ours.trees is not None and theirs.trees is not None:
        trees = share(ours.trees, theirs.trees)
    if ours.flow is not None and theirs.flow is not None:
        flow = share(ours.flow, theirs.flow)
    return Parts(bleu, weighted, trees, None if theirs.flow == Counter() else flow)


@functools.lru_cache(maxsize=_MOST_KEPT)
def _count(source: str) -> _Counts:
    found = tokens(source)
    grams = tuple(Counter(zip(*(found[i:] for i in range(n)))) for n in _ORDERS)
    tree = syntax.parse(source)
    if tree is None:
        return _Counts(grams, None, None)
    below = nodes_below(tree)
    return _Counts(grams, subtrees(below), def_use(below))


def _bleu(
    ours: Sequence[Counter[tuple[str, ...]]],
    theirs: Sequence[Counter[tuple[str, ...]]],
    weight: int,
) -> float:
    """BLEU of one candidate; in p_1 a keyword counts `weight` times."""
    length, expected = ours[0].total(), theirs[0].total()
    if length == 0 or expected == 0:
        return float(length == expected)
    logs = []
    for n, own, known in zip(_ORDERS, ours, theirs):
        if n > min(_ORDERS[-1], max(length, expected)):
            break
        common = own & known
        if n == 1:
            common, own = _weigh(common, weight), _weigh(own, weight)
            if not common:
                return 0.0
        logs.append(math.log((common.total() or _NO_MATCH) / max(1, own.total())))
    brevity = min(0.0, 1 - expected / length)
    return math.exp(brevity + sum(logs) / len(logs))


def _weigh(grams: Counter[tuple[str, ...]], weight: int) -> Counter[tuple[str, ...]]:
    return Counter(
        {
            gram: count * (weight if keyword.iskeyword(gram[0]) else 1)
            for gram, count in grams.items()
        }
    )
