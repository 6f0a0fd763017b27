"""Does the explanation reward rank explanations by their truth?

Command    python experiments/benchmarks/explanation_rewards.py [--encoder FOLDER]
Shows      for each encoder, TF-IDF and that of FOLDER: Spearman's rank correlation of S_ex
           (split_rewards) with the truth of the explanation, with 95 % intervals by
           bootstrap over wrong programs (a perfect order of a share p of true ones has
           sqrt(3 p (1 - p)): .65 of one in six); the same without the truth on parts that
           the siblings do not tell; how often what siblings tell stands above what is
           corrupted in one way, ties as half; and the shares of true and of corrupted ones
           that earn more than 0, by the paper's map and by one fitted on the train split.

The problems are the dialect tier's, whose rule teacher knows which explanations are true.
Each wrong program has four siblings, all of which tell its first wrong part. Its candidates
are that, the truth on another wrong part, and the first with a fact corrupted: what the
part means, what it is taken for, the two exchanged, which part; or all, another program's.
In "one wording" all use the teacher's words, so the first is a copy of its siblings; in
"reworded" siblings and candidates are each in one of four wordings.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from stepcoder_jax.data.generated import dialect, teaching
from stepcoder_jax.feedback.split_rewards import (
    PAPER,
    ExplanationMap,
    Siblings,
    explanation_similarities,
    fit_explanation_map,
)
from stepcoder_jax.records import Problem
from stepcoder_jax.results.estimates import Estimate
from stepcoder_jax.similarity.embedders import Embedder, fit_tfidf
from stepcoder_jax.similarity.encoder import load_encoder

WORDINGS = (
    "Part {part} is x {meaning}, not x {said}.",  # the teacher's
    "The program does x {said} in part {part}, where it must do x {meaning}.",
    "In part {part} the line x {said} is wrong; it has to be x {meaning}.",
    "Instead of x {said}, part {part} should compute x {meaning}.",
)
SIBLINGS = 4
TOLD, ANOTHER = "told", "another part"  # kinds that are true
CORRUPTED = ("meaning", "taken for", "exchanged", "part", "all")
RESAMPLES = 1000


class Facts(NamedTuple):
    """What an explanation says."""

    part: int
    meaning: str
    said: str


class Case(NamedTuple):
    """A wrong program: explanations of its siblings, and candidates with their kinds."""

    siblings: tuple[str, ...]
    candidates: tuple[str, ...]
    kinds: tuple[str, ...]  # TOLD, ANOTHER, or what is corrupted


def say(facts: Facts, wording: str) -> str:
    return wording.format(**facts._asdict())


def true_facts(problem: Problem, source: str) -> list[Facts]:
    meanings = dialect.meanings_of(problem)
    written = dialect.operations_of(source, len(meanings)) or []
    return [
        Facts(1 << i, meaning, said)
        for i, (meaning, said) in enumerate(zip(meanings, written))
        if meaning != said
    ]


def corrupt(rng: np.random.Generator, true: Facts, foreign: Facts) -> dict[str, Facts]:
    others = [o for o in dialect.OPERATIONS if o not in (true.meaning, true.said)]
    parts = [part for part in (1, 2, 4) if part != true.part]
    return {
        "meaning": true._replace(meaning=others[rng.integers(len(others))]),
        "taken for": true._replace(said=others[rng.integers(len(others))]),
        "exchanged": Facts(true.part, true.said, true.meaning),
        "part": true._replace(part=parts[rng.integers(len(parts))]),
        "all": foreign,
    }


def make_cases(split: dialect.Split, count: int, seed: int, wordings: int) -> list[Case]:
    """One wrong program for each of the first problems of a split."""
    rng = np.random.default_rng([seed, count])
    problems = dialect.load(split)[:count]
    programs = [dialect.wrong_programs(rng, each, 1)[0] for each in problems]
    known = [true_facts(*pair) for pair in zip(problems, programs)]
    cases = []
    for place, (problem, program, true) in enumerate(zip(problems, programs, known)):
        foreign = known[(place + 1) % len(known)][0]
        said = [(TOLD, true[0]), *((ANOTHER, facts) for facts in true[1:])]
        for kind, facts in corrupt(rng, true[0], foreign).items():
            if not teaching.is_true(problem, program, say(facts, WORDINGS[0])):
                said.append((kind, facts))
        drawn = [WORDINGS[i] for i in rng.integers(wordings, size=SIBLINGS + len(said))]
        siblings = tuple(say(true[0], each) for each in drawn[:SIBLINGS])
        candidates = [say(facts, each) for (_, facts), each in zip(said, drawn[SIBLINGS:])]
        kinds = tuple(kind for kind, _ in said)
        cases.append(Case(siblings, tuple(candidates), kinds))
    return cases


def similarities(cases: Sequence[Case], embed: Embedder) -> list[np.ndarray]:
    """S_ex of the candidates of each case."""
    pairs = [
        (text, Siblings(("",) * SIBLINGS, case.siblings))
        for case in cases
        for text in case.candidates
    ]
    texts, siblings = zip(*pairs)
    found = explanation_similarities(texts, siblings, embed)
    ends = np.cumsum([len(case.candidates) for case in cases])[:-1]
    return np.split(found, ends)


def truths_of(cases: Sequence[Case]) -> list[np.ndarray]:
    """Which candidates of each case are true."""
    return [np.array([kind in (TOLD, ANOTHER) for kind in case.kinds]) for case in cases]


def spearman(scores: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    ranks = [rankdata(np.concatenate(each)) for each in (scores, truths)]
    if any(np.ptp(each) == 0 for each in ranks):
        return math.nan  # all alike: there is no order
    return float(np.corrcoef(*ranks)[0, 1])


def correlate(scores: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> Estimate:
    """Spearman's rank correlation, and its interval by bootstrap over wrong programs.

    All are nan where all explanations are true, or none is.
    """
    value = spearman(scores, truths)
    if math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        rows = rng.integers(len(scores), size=len(scores))
        drawn.append(spearman([scores[i] for i in rows], [truths[i] for i in rows]))
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def with_interval(scores: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*correlate(scores, truths))


def ranked_right(cases: Sequence[Case], scores: Sequence[np.ndarray], kind: str) -> float:
    """Of pairs of what is told and a candidate of this kind, in the same case."""
    won = [
        np.sign(score[case.kinds.index(TOLD)] - score[case.kinds.index(kind)]) / 2 + 0.5
        for case, score in zip(cases, scores)
        if kind in case.kinds
    ]
    return float(np.mean(won))


def earn(values: np.ndarray, true: np.ndarray, mapped: ExplanationMap) -> str:
    """The share of true and of corrupted ones whose reward is above 0."""
    earns = np.array([mapped(value) > 0 for value in values])
    return f"{earns[true].mean():.2f}, {earns[~true].mean():.2f}"


def show(
    name: str, cases: Sequence[Case], fitted_on: Sequence[Case], embed: Embedder
) -> str:
    """The row of an encoder."""
    scores = similarities(cases, embed)
    truths = truths_of(cases)
    told = [np.array([kind != ANOTHER for kind in case.kinds]) for case in cases]
    kept = [[each[i] for each, i in zip(side, told)] for side in (scores, truths)]
    groups = [
        (case.siblings, [t for t, k in zip(case.candidates, case.kinds) if k in CORRUPTED])
        for case in fitted_on
    ]
    parts = [name, with_interval(scores, truths), with_interval(*kept)]
    parts += [f"{ranked_right(cases, scores, kind):.2f}" for kind in (*CORRUPTED, ANOTHER)]
    values, true = np.concatenate(scores), np.concatenate(truths)
    maps = (PAPER, fit_explanation_map(groups, embed))
    parts += [earn(values, true, mapped) for mapped in maps]
    return f"| {' | '.join(parts)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--encoder", help="folder of a sentence encoder")
    parser.add_argument("--problems", type=int, default=200)
    args = parser.parse_args()
    head = ["encoder, wording", "Spearman", "told part alone", *CORRUPTED, ANOTHER]
    head += ["paper's map > 0", "fitted map > 0"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for wording, number in {"one wording": 1, "reworded": len(WORDINGS)}.items():
        cases = make_cases("test", args.problems, 0, number)
        known = make_cases("train", args.problems, 1, number)
        encoders = {
            "TF-IDF": fit_tfidf(t for c in known for t in (*c.siblings, *c.candidates))
        }
        if args.encoder:
            encoders["folder"] = load_encoder(args.encoder)
        for name, embed in encoders.items():
            print(show(f"{name}, {wording}", cases, known, embed), flush=True)


if __name__ == "__main__":
    main()
