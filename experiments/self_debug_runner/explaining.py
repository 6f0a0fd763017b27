"""Ask whether the reward of explanations pays their truth, which the tier's rule knows.

python explaining.py RECORDS.jsonl OUT.json [--seed N] [--encoder FOLDER]

RECORDS are answers of a model with their explanations. S_ex of one is its likeness to those
of the right answers to the same wrong program, itself left out (split_rewards). OUT gets,
for TF-IDF and the encoder, Spearman's rank correlation of S_ex with the truth: of the
model's own explanations, and of the candidates of benchmarks/explanation_rewards.py, in one
wording and reworded. A process of its own, for it takes minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import explanation_rewards as constructed
from benchmarks.explanation_rewards import Case

from stepcoder_jax.data.generated import dialect, teaching
from stepcoder_jax.data.refinements import (
    RefinementRecord,
    group_siblings,
    read_refinements,
)
from stepcoder_jax.feedback.split_rewards import (
    Siblings,
    explanation_similarities,
    leave_out,
)
from stepcoder_jax.results.outcomes import finite
from stepcoder_jax.similarity.embedders import Embedder, fit_tfidf
from stepcoder_jax.similarity.encoder import load_encoder

PROBLEMS = 200  # of the constructed candidates
WORDINGS = {"one wording": 1, "reworded": len(constructed.WORDINGS)}


def own_scores(
    records: Sequence[RefinementRecord], embed: Embedder
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """S_ex and truth of the explanations of each wrong program that can be scored."""
    problems = {x.id: x for x in dialect.load("train")}
    scores, truths = [], []
    for siblings in group_siblings(records).values():
        said = [record for record in siblings if record.explanation]
        right = [record for record in said if record.is_right]
        whole = Siblings(("",) * len(right), tuple(x.explanation for x in right))
        compared = [
            leave_out(whole, right.index(x), "") if x in right else whole for x in said
        ]
        found = explanation_similarities([x.explanation for x in said], compared, embed)
        is_true = np.array(
            [teaching.is_true(problems[x.task_id], x.wrong, x.explanation) for x in said],
            bool,
        )
        known = ~np.isnan(found)
        if known.any():
            scores.append(found[known])
            truths.append(is_true[known])
    return scores, truths


def describe(scores: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, Any]:
    """A rank correlation with its interval, and of how many explanations it is."""
    if not scores:
        return {"explanations": 0}
    found = constructed.correlate(scores, truths)
    total = np.concatenate(truths)
    return {
        "spearman": {name: finite(x) for name, x in found._asdict().items()},
        "explanations": len(total),
        "true": float(total.mean()),
        "wrong_programs": len(scores),
    }


def made_cases(seed: int) -> Iterator[tuple[str, list[Case]]]:
    """Candidates by wording."""
    for name, wordings in WORDINGS.items():
        yield name, constructed.make_cases("test", PROBLEMS, seed, wordings)


def explain(file: str, seed: int, encoder: str) -> dict[str, Any]:
    """Encoder -> whose explanations -> their rank correlation."""
    records = read_refinements([file])
    cases = dict(made_cases(seed))
    texts = [x.explanation for x in records]
    texts += [t for each in cases.values() for x in each for t in x.candidates]
    encoders = {"TF-IDF": fit_tfidf(texts)}
    if encoder:
        encoders[Path(encoder).name] = load_encoder(encoder)
    return {
        name: {
            "its own": describe(*own_scores(records, embed)),
            **{
                wording: describe(
                    constructed.similarities(each, embed), constructed.truths_of(each)
                )
                for wording, each in cases.items()
            },
        }
        for name, embed in encoders.items()
    }


def main() -> None:
    """Write OUT whole, or not at all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("records")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", default="")
    given = parser.parse_args()
    found = explain(given.records, given.seed, given.encoder)
    part = given.out.with_suffix(".part")
    part.write_text(json.dumps(found) + "\n")
    part.replace(given.out)


if __name__ == "__main__":
    main()
