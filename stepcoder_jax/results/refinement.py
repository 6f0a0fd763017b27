"""Chains of answers, added up: what is mended and spoilt, what later answers are like."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stepcoder_jax.records import Verdict
from stepcoder_jax.results import budget
from stepcoder_jax.results.budget import Budget
from stepcoder_jax.results.chains import Chain, End, Link
from stepcoder_jax.results.estimates import (
    Difference,
    Estimate,
    estimate_ratio,
    mcnemar,
    paired_difference,
)
from stepcoder_jax.results.outcomes import (
    ALL,
    CHANGE,
    Outcome,
    Scores,
    Table,
    change_cells,
    finite,
    markdown,
    percent,
    score,
)

_NOTHING = Estimate(math.nan, math.nan, math.nan)
_UNKNOWN = Difference(math.nan, math.nan, math.nan, math.nan)


class After(NamedTuple):
    """Chains after so many rounds, 0 the first answer."""

    scores: Scores
    mended: Estimate  # of those wrong at first: the success refinement rate
    spoilt: Estimate  # of those right at first
    answers: int  # that were drawn in this round
    without_code: Estimate  # of them
    unchanged: Estimate  # of those with code that were taken: the program before
    similar: Estimate  # to the program before, on average over the same
    holding: Estimate  # of the same: they write out a value that a visible test expects
    variants: dict[str, int]  # of the answers that were taken


class Refined(NamedTuple):
    """What chains add up to."""

    after: list[After]
    by_set: dict[str, Estimate]  # mended at the end; a set is what stands before an id's /
    unchanged: Estimate  # as in each round, of all later answers
    similar: Estimate
    without_code: Estimate
    ends: dict[End, int]  # chains
    budget: Budget

    @property
    def answers(self) -> int:
        """How many were drawn after the first ones."""
        return sum(each.answers for each in self.after[1:])


def add_up(
    chains: Sequence[Chain],
    rounds: int,
    ks: Sequence[int],
    seed: int = 0,
    variants: int = 1,
) -> Refined:
    """Add chains up; those that are weak count in no share, nor does one with INFRA."""
    valid = [chain for chain in chains if chain.is_judged and not chain.is_weak]

    def share(of: Sequence[tuple[Chain, Link]], counts: Count, size: Count) -> Estimate:
        return _share([(x.task, counts(y), size(y)) for x, y in of], seed)

    def after(place: int) -> After:
        links = [(x, x.links[place]) for x in valid if place < len(x.links)]
        taken = collections.Counter(link.variant for _, link in links)
        return After(
            scores=score([chain.after(place) for chain in chains], ks, seed),
            mended=_moved(valid, place, False, seed),
            spoilt=_moved(valid, place, True, seed),
            answers=sum(link.answers for _, link in links),
            without_code=share(links, lambda x: x.without_code, lambda x: x.answers),
            unchanged=share(links, lambda x: x.is_unchanged, lambda x: x.has_code),
            similar=share(links, lambda x: x.similar, lambda x: x.has_code),
            holding=share(links, lambda x: x.holds_expected, lambda x: x.has_code),
            variants=dict(sorted(taken.items())),
        )

    later = [(chain, link) for chain in valid for link in chain.links[1:]]
    sets: dict[str, list[Chain]] = {}
    for chain in valid:
        sets.setdefault(chain.task.rpartition("/")[0], []).append(chain)
    return Refined(
        after=[after(place) for place in range(rounds + 1)],
        by_set={x: _moved(chosen, rounds, False, seed) for x, chosen in sets.items()},
        unchanged=share(later, lambda x: x.is_unchanged, lambda x: x.has_code),
        similar=share(later, lambda x: x.similar, lambda x: x.has_code),
        without_code=share(later, lambda x: x.without_code, lambda x: x.answers),
        ends=dict(collections.Counter(chain.end for chain in chains)),
        budget=budget.compare(chains, rounds, variants, seed),
    )


Count = Callable[[Link], float]


def _moved(chains: Sequence[Chain], place: int, was_right: bool, seed: int) -> Estimate:
    """Of the chains whose first answer was right, or was not, those that are not so now."""
    pairs = [
        (chain.task, int(chain.is_right(place) is not was_right), 1)
        for chain in chains
        if chain.is_right(0) is was_right
    ]
    return _share(pairs, seed)


def _share(pairs: Sequence[tuple[str, float, float]], seed: int) -> Estimate:
    """Of (problem, count, out of how many); a resample keeps a problem's together."""
    total: dict[str, tuple[float, float]] = {}
    for name, count, of in pairs:
        before = total.get(name, (0, 0))
        total[name] = before[0] + count, before[1] + of
    counts, sizes = zip(*total.values()) if total else ((), ())
    return estimate_ratio(counts, sizes, seed) if sum(sizes) else _NOTHING


def describe(refined: Refined) -> str:
    """Tables of the rounds, in percent with intervals of 95 %, as Markdown."""
    parts = [markdown(_pass_table(refined)), _say_moved(refined)]
    if len(refined.by_set) > 1:
        parts.append(markdown(_set_table(refined)))
    parts += [markdown(_answer_table(refined)), _say_answers(refined)]
    parts.append(budget.describe(refined.budget))
    return "\n\n".join(parts)


def _name(place: int) -> str:
    return f"after round {place}" if place else "first answer"


def _pass_table(refined: Refined) -> Table:
    found = refined.after[0].scores.pass_at_k
    ks = list(found[ALL]) if found else []
    table: Table = [["", *(f"pass@{k}, %" for k in ks), "mended, %", "spoilt, %"]]
    for place, after in enumerate(refined.after):
        known = after.scores.pass_at_k
        rates = [percent(known[ALL][k]) if known else "-" for k in ks]
        moved = [_text(after.mended), _text(after.spoilt)] if place else ["", ""]
        table.append([_name(place), *rates, *moved])
    return table


def _say_moved(refined: Refined) -> str:
    ends = ", ".join(f"{end} {refined.ends[end]}" for end in End if end in refined.ends)
    return (
        "mended: of those wrong at first, the success refinement rate; spoilt: of those "
        f"right at first. A chain counts by its last answer. Why chains ended: {ends}."
    )


def _set_table(refined: Refined) -> Table:
    """The success refinement rate of each set of problems, and its mean over them."""
    known = [x.value for x in refined.by_set.values() if not math.isnan(x.value)]
    mean = f"{100 * sum(known) / len(known):.1f}" if known else "-"
    rows = [[name or "-", _text(share)] for name, share in refined.by_set.items()]
    return [["set", "mended, %"], *rows, ["mean of the sets", mean]]


def _answer_table(refined: Refined) -> Table:
    head = ["answers of", "drawn", "without code, %", "unchanged, %"]
    table: Table = [[*head, "similar, %", "expected value, %"]]
    for place, after in enumerate(refined.after):
        row = [f"round {place}" if place else "the first", str(after.answers)]
        copied = [_text(after.unchanged), _text(after.similar)] if place else ["", ""]
        table.append([*row, _text(after.without_code), *copied, _text(after.holding)])
    return table


def _say_answers(refined: Refined) -> str:
    total: collections.Counter[str] = collections.Counter()
    for after in refined.after[1:]:
        total += collections.Counter(after.variants)
    taken = ", ".join(f"{name} {count}" for name, count in sorted(total.items()))
    return (
        "without code: of those drawn; of those taken that have code, unchanged: the "
        "program before, by its syntax; similar: the overlap with it, by tokens; expected "
        "value: it writes out one that a visible "
        "test expects, as programs may by chance: what is above the first answers' share "
        f"is copied. {refined.answers} later answers: {_text(refined.without_code)} % "
        f"without code; {_text(refined.unchanged)} % unchanged, "
        f"{_text(refined.similar)} % similar. Taken: {taken or 'none'}."
    )


def _text(share: Estimate) -> str:
    return "-" if math.isnan(share.value) else percent(share)


def _numbers(share: Estimate) -> dict[str, float | None]:
    return {name: finite(value) for name, value in share._asdict().items()}


def as_json(refined: Refined) -> dict[str, Any]:
    """The same as numbers; null where nothing can be told."""
    return {
        "after": [
            {
                **{
                    f"pass@{k}": _numbers(value)
                    for k, value in after.scores.pass_at_k.get(ALL, {}).items()
                },
                "mended": _numbers(after.mended),
                "spoilt": _numbers(after.spoilt),
                "answers": after.answers,
                "without_code": _numbers(after.without_code),
                "unchanged": _numbers(after.unchanged),
                "similar": _numbers(after.similar),
                "expected_value": _numbers(after.holding),
                "variants": after.variants,
            }
            for after in refined.after
        ],
        "mended_by_set": {name: _numbers(x) for name, x in refined.by_set.items()},
        "unchanged": _numbers(refined.unchanged),
        "similar": _numbers(refined.similar),
        "without_code": _numbers(refined.without_code),
        "answers": refined.answers,
        "ends": {str(end): count for end, count in refined.ends.items()},
        "equal_budget": budget.as_json(refined.budget),
    }


class Pair(NamedTuple):
    """One share of two sets of chains over the same problems, shares in 0..1."""

    name: str
    problems: int
    samples: int  # of each side
    before: float
    after: float
    difference: Difference
    exact: float  # sign test over problems: McNemar's where each has one sample


def pair(before: Sequence[Outcome], after: Sequence[Outcome], seed: int) -> list[Pair]:
    """Two sets of chains after each round, and what they mended of what both failed first.

    Samples of a problem are paired in their order, as far as both sides have some; a
    problem counts once, by their mean. Empty unless all samples of both are chains.
    """
    if not all(row.rounds for row in (*before, *after)):
        return []
    ours, theirs = _by_task(before), _by_task(after)
    both = {task: list(zip(ours[task], theirs[task])) for task in ours}
    wrong = {
        task: [(a, b) for a, b in pairs if Verdict.PASS not in (a[0], b[0])]
        for task, pairs in both.items()
    }
    most = max(len(row.rounds) for row in (*before, *after))
    rows = [_pair(f"{_name(place)}, right", both, place, seed) for place in range(most)]
    for place in range(1, most):
        rows += [_pair(f"{_name(place)}, mended", wrong, place, seed)]
    return [row for row in rows if row.problems]


def pair_table(pairs: Sequence[Pair], before: str, after: str) -> Table:
    """Shares in percent, changes in points; the sides by these names."""
    head = ["rounds", "problems", "samples", before, after, *CHANGE]
    return [head] + [
        [
            *(found.name, str(found.problems), str(found.samples)),
            f"{100 * found.before:.1f}",
            f"{100 * found.after:.1f}",
            *change_cells(found.difference, found.exact),
        ]
        for found in pairs
    ]


Verdicts = tuple[Verdict, ...]


def _by_task(outcomes: Sequence[Outcome]) -> dict[str, list[Verdicts]]:
    found: dict[str, list[Verdicts]] = {}
    for row in outcomes:
        found.setdefault(row.task, []).append(row.rounds)
    return found


def _pair(
    name: str,
    pairs: Mapping[str, Sequence[tuple[Verdicts, Verdicts]]],
    place: int,
    seed: int,
) -> Pair:
    """What passes after so many rounds, of these pairs of each problem."""
    some = [each for each in pairs.values() if each]
    sides = [
        [
            sum(x[side][: place + 1][-1] is Verdict.PASS for x in each) / len(each)
            for each in some
        ]
        for side in (0, 1)
    ]
    old, new = sides
    signs = [(b > a) - (b < a) for a, b in zip(old, new)]
    return Pair(
        name=name,
        problems=len(some),
        samples=sum(map(len, some)),
        before=sum(old) / len(some) if some else math.nan,
        after=sum(new) / len(some) if some else math.nan,
        difference=paired_difference(old, new, seed) if some else _UNKNOWN,
        exact=mcnemar(signs.count(1), signs.count(-1)),
    )
