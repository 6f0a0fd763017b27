"""Chains of answers, each to what the one before made of its tests, added up.

A chain that has ended keeps its last answer: after round r it counts by the answer of round
r, or by the last one before. An answer without code counts as one that does not compile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from stepcoder_jax.records import Verdict
from stepcoder_jax.results.estimates import Estimate, estimate_ratio
from stepcoder_jax.results.outcomes import (
    ALL,
    Outcome,
    Scores,
    Table,
    finite,
    markdown,
    percent,
    score,
)

_NOTHING = Estimate(math.nan, math.nan, math.nan)


class Link(NamedTuple):
    """One answer of a chain."""

    outcome: Outcome
    has_code: bool = True
    is_unchanged: bool = False  # the program of the answer before, by its syntax


class Chain(NamedTuple):
    """The first answer to a problem, and those that followed."""

    links: tuple[Link, ...]
    is_cut: bool = False  # the prompt of the next was too long

    def after(self, rounds: int) -> Outcome:
        """What has become of it after so many rounds."""
        return self.links[min(rounds, len(self.links) - 1)].outcome

    @property
    def is_judged(self) -> bool:
        return all(link.outcome.verdict is not Verdict.INFRA for link in self.links)


class Refined(NamedTuple):
    """What chains add up to. Entry r of a list is after round r, 0 the first answer."""

    scores: list[Scores]
    mended: list[Estimate]  # of those wrong at first: the success refinement rate
    spoilt: list[Estimate]  # of those right at first
    unchanged: Estimate  # of later answers with code
    without_code: Estimate  # of later answers
    answers: int  # after the first
    cut: int  # chains


def add_up(
    chains: Sequence[Chain], rounds: int, ks: Sequence[int], seed: int = 0
) -> Refined:
    """Add chains up; those that are weak count in no share, nor does one with INFRA."""
    valid = [
        chain
        for chain in chains
        if chain.is_judged and not any(link.outcome.weak for link in chain.links)
    ]
    places = range(rounds + 1)

    def share(pairs: Sequence[tuple[str, int, int]]) -> Estimate:
        """Of (problem, count, out of how many)."""
        total: dict[str, tuple[int, int]] = {}
        for name, count, of in pairs:
            before = total.get(name, (0, 0))
            total[name] = before[0] + count, before[1] + of
        counts, sizes = zip(*total.values()) if total else ((), ())
        return estimate_ratio(counts, sizes, seed) if sum(sizes) else _NOTHING

    def moved(was_right: bool, place: int) -> Estimate:
        return share(
            [
                (chain.after(0).task, _passes(chain, place) is not was_right, 1)
                for chain in valid
                if _passes(chain, 0) is was_right
            ]
        )

    later = [(chain, link) for chain in valid for link in chain.links[1:]]
    return Refined(
        scores=[score([chain.after(r) for chain in chains], ks, seed) for r in places],
        mended=[moved(False, place) for place in places],
        spoilt=[moved(True, place) for place in places],
        unchanged=share(
            [(x.after(0).task, y.is_unchanged, 1) for x, y in later if y.has_code]
        ),
        without_code=share([(x.after(0).task, not y.has_code, 1) for x, y in later]),
        answers=len(later),
        cut=sum(chain.is_cut for chain in chains),
    )


def _passes(chain: Chain, place: int) -> bool:
    return chain.after(place).verdict is Verdict.PASS


def describe(refined: Refined) -> str:
    """Tables of the rounds, in percent with intervals of 95 %, as Markdown."""
    found = refined.scores[0].pass_at_k
    ks = list(found[ALL]) if found else []
    table: Table = [["", *(f"pass@{k}, %" for k in ks), "mended, %", "spoilt, %"]]
    rows = zip(refined.scores, refined.mended, refined.spoilt)
    for place, (scores, mended, spoilt) in enumerate(rows):
        rates = [percent(scores.pass_at_k[ALL][k]) for k in ks if scores.pass_at_k]
        moved = [_text(mended), _text(spoilt)] if place else ["", ""]
        name = f"after round {place}" if place else "first answer"
        table.append([name, *(rates or ["-"] * len(ks)), *moved])
    said = (
        "mended: of those wrong at first; spoilt: of those right at first. "
        f"{refined.answers} later answers: {_text(refined.without_code)} % without code; "
        f"{_text(refined.unchanged)} % of the others are the program before. "
        f"{refined.cut} chains were cut by the length of the prompt."
    )
    return f"{markdown(table)}\n\n{said}"


def _text(share: Estimate) -> str:
    return "-" if math.isnan(share.value) else percent(share)


def as_json(refined: Refined) -> dict[str, Any]:
    """The same as numbers; null where nothing can be told."""

    def numbers(share: Estimate) -> dict[str, float | None]:
        return {name: finite(value) for name, value in share._asdict().items()}

    rows = zip(refined.scores, refined.mended, refined.spoilt)
    return {
        "after": [
            {
                **{
                    f"pass@{k}": numbers(value)
                    for k, value in scores.pass_at_k.get(ALL, {}).items()
                },
                "mended": numbers(mended),
                "spoilt": numbers(spoilt),
            }
            for scores, mended, spoilt in rows
        ],
        "unchanged": numbers(refined.unchanged),
        "without_code": numbers(refined.without_code),
        "answers": refined.answers,
        "cut": refined.cut,
    }
