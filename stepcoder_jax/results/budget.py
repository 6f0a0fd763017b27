"""Mending against drawing again: chains, and as many independent samples.

A chain of r rounds has at most 1 + r v answers, with v variants in each round. It is set
against so many of the first answers: same prompt, same model, same tests. Both are counted
in two ways. "any": one of the answers is right, which only the tests that score can tell;
of samples it is pass@k. "chosen": the one that whoever has the visible tests alone would
take; of a chain the last, of samples the first that passes the visible tests, else the
first.

Chains that end early have fewer answers, and the samples are never fewer than the chain's:
the comparison is against mending. What a chain had on average stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from stepcoder_jax.results.chains import Chain
from stepcoder_jax.results.estimates import Difference, paired_difference, pass_at_k
from stepcoder_jax.results.outcomes import Table, finite, interval_text, markdown, p_text

RULES = ("any", "chosen")


class Row(NamedTuple):
    """Chains of so many rounds, and as many samples, by one rule; shares in 0..1."""

    rounds: int
    answers: int  # of a chain at most, and of samples
    drawn: float  # of a chain, on average
    rule: str
    chain: float
    samples: float
    difference: Difference  # chain - samples, paired over problems


class Budget(NamedTuple):
    """The table."""

    rows: list[Row]  # one for each number of rounds and rule that can be told
    why: str  # what cannot be told; "" where all can


def compare(
    chains: Sequence[Chain], rounds: int, variants: int = 1, seed: int = 0
) -> Budget:
    """Each number of rounds against as many samples; weak chains count nowhere.

    It needs as many first answers of each problem as a chain has answers at most, and none
    while a chain was not judged.
    """
    strong = [chain for chain in chains if not chain.is_weak]
    failed = sum(not chain.is_judged for chain in strong)
    if failed:
        return Budget([], f"none, for {failed} chains were not judged (infra)")
    by_task: dict[str, list[Chain]] = {}
    for chain in strong:
        by_task.setdefault(chain.task, []).append(chain)
    most = [1 + place * variants for place in range(1, rounds + 1)]
    fewest = min(map(len, by_task.values()), default=0)
    rows = [
        _row(list(by_task.values()), place, answers, rule, seed)
        for place, answers in enumerate(most, 1)
        for rule in RULES
        if answers <= fewest
    ]
    lacking = [answers for answers in most if answers > fewest]
    why = (
        f"against {' and '.join(map(str, lacking))} samples: none, for the problems have "
        f"{fewest}; give --samples-per-problem {lacking[-1]}"
        if lacking
        else ""
    )
    return Budget(rows, why)


def _row(
    tasks: Sequence[Sequence[Chain]], rounds: int, answers: int, rule: str, seed: int
) -> Row:
    of_chain = {"any": Chain.was_right, "chosen": Chain.is_right}[rule]
    of_samples = {"any": _any_of, "chosen": _chosen_of}[rule]
    chain = [sum(of_chain(x, rounds) for x in some) / len(some) for some in tasks]
    samples = [of_samples(some, answers) for some in tasks]
    drawn = [
        sum(link.answers for x in some for link in x.links[: rounds + 1]) / len(some)
        for some in tasks
    ]
    return Row(
        rounds=rounds,
        answers=answers,
        drawn=sum(drawn) / len(tasks),
        rule=rule,
        chain=sum(chain) / len(tasks),
        samples=sum(samples) / len(tasks),
        difference=paired_difference(samples, chain, seed),
    )


def _any_of(chains: Sequence[Chain], k: int) -> float:
    """pass@k of the first answers."""
    return pass_at_k(len(chains), sum(chain.is_right(0) for chain in chains), k)


def _chosen_of(chains: Sequence[Chain], k: int) -> float:
    """The chance that of k of the first answers the chosen one is right.

    With n of them, of which v pass the visible tests and a of these are right, and b of
    the others: pass@k(n, v) a / v + (1 - pass@k(n, v)) b / (n - v).
    """
    right: dict[bool, list[bool]] = {True: [], False: []}
    for chain in chains:
        right[bool(chain.links[0].passes_visible)].append(chain.is_right(0))
    passing, failing = right[True], right[False]
    has_one = pass_at_k(len(chains), len(passing), k)
    shares = [sum(some) / len(some) if some else 0.0 for some in (passing, failing)]
    return has_one * shares[0] + (1 - has_one) * shares[1]


def describe(found: Budget) -> str:
    """The table in percent, as Markdown, and what it cannot tell."""
    if not found.rows:
        return f"Equal budget: {found.why}."
    head = ["equal budget", "answers", "drawn", "chain, %", "samples, %"]
    table: Table = [[*head, "chain - samples, points [95 %]", "p"]]
    for row in found.rows:
        low, high, p = row.difference.low, row.difference.high, row.difference.p
        table.append(
            [
                f"first + {row.rounds}, {row.rule}",
                str(row.answers),
                f"{row.drawn:.2f}",
                f"{100 * row.chain:.1f}",
                f"{100 * row.samples:.1f}",
                f"{100 * row.difference.change:+.1f} {interval_text(low, high, '+')}",
                p_text(p),
            ]
        )
    said = (
        "answers: of a chain at most, and of the independent samples, which are first "
        "answers; drawn: of a chain on average. any: one of them is right (of samples "
        "pass@k); chosen: the one that the visible tests choose is right."
    )
    return "\n\n".join([markdown(table), said + f" {found.why}." * bool(found.why)])


def as_json(found: Budget) -> dict[str, Any]:
    """The same as numbers; null where nothing can be told."""
    rows = []
    for row in found.rows:
        fields = row._asdict() | row.difference._asdict()
        del fields["difference"]
        rows.append(
            {k: finite(v) if isinstance(v, float) else v for k, v in fields.items()}
        )
    return {"rows": rows, "why": found.why}
