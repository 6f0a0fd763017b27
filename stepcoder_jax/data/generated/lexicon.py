"""The words of the generated benchmark: what each concept means, in code and in English.

A concept has a code template, its meaning as a Python function, and two sets of wordings.
What a `plain` wording means can be read off the supervised part of the train split. A
`rare` one means something only outside of it, so a warm-started model has to find out by
running programs what, say, "the tally of the debts" is. `k` stands for a constant that is
copied into the code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Words(NamedTuple):
    """The wordings of one concept, verb or reduction."""

    plain: tuple[str, ...]
    rare: tuple[str, ...] = ()


class Concept(NamedTuple):
    """One predicate or one map on a number x, with its constant k where it has one."""

    code: str
    run: Callable[[int, int], int | bool]
    words: Words
    constants: tuple[int, ...] = (0,)


DIGITS = (2, 3, 4, 5, 6, 7, 8, 9)
MODULI = (3, 4, 5, 6, 7)
ENDINGS = (1, 2, 3, 4, 5, 6)

PREDICATES: dict[str, Concept] = {
    "even": Concept(
        "x % 2 == 0", lambda x, k: x % 2 == 0, Words(("even numbers",), ("pairs",))
    ),
    "odd": Concept(
        "x % 2 == 1", lambda x, k: x % 2 == 1, Words(("odd numbers",), ("singles",))
    ),
    "positive": Concept(
        "x > 0", lambda x, k: x > 0, Words(("positive numbers",), ("credits",))
    ),
    "negative": Concept(
        "x < 0", lambda x, k: x < 0, Words(("negative numbers",), ("debts",))
    ),
    "multiple": Concept(
        "x % {k} == 0",
        lambda x, k: x % k == 0,
        Words(("multiples of {k}", "numbers divisible by {k}"), ("stacks of {k}",)),
        MODULI,
    ),
    "other": Concept(
        "x % {k} != 0",
        lambda x, k: x % k != 0,
        Words(("numbers not divisible by {k}",), ("misfits of {k}",)),
        MODULI,
    ),
    "above": Concept(
        "x > {k}",
        lambda x, k: x > k,
        Words(
            ("numbers above {k}", "numbers greater than {k}"), ("numbers exceeding {k}",)
        ),
        DIGITS,
    ),
    "below": Concept(
        "x < {k}",
        lambda x, k: x < k,
        Words(("numbers below {k}", "numbers less than {k}"), ("numbers shy of {k}",)),
        DIGITS,
    ),
    "ending": Concept(
        "abs(x) % 10 == {k}",
        lambda x, k: abs(x) % 10 == k,
        Words(("numbers ending in {k}",)),
        ENDINGS,
    ),
    "far": Concept(
        "abs(x) > {k}",
        lambda x, k: abs(x) > k,
        Words(("numbers farther than {k} from zero",)),
        DIGITS,
    ),
    "near": Concept(
        "abs(x) <= {k}",
        lambda x, k: abs(x) <= k,
        Words(("numbers within {k} of zero",)),
        DIGITS,
    ),
}

MAPS: dict[str, Concept] = {
    "double": Concept("x * 2", lambda x, k: x * 2, Words(("double",), ("twin",))),
    "triple": Concept("x * 3", lambda x, k: x * 3, Words(("triple",))),
    "square": Concept("x * x", lambda x, k: x * x, Words(("square",), ("area",))),
    "negate": Concept("-x", lambda x, k: -x, Words(("opposite",), ("mirror",))),
    "absolute": Concept(
        "abs(x)", lambda x, k: abs(x), Words(("absolute value",), ("size",))
    ),
    "half": Concept("x // 2", lambda x, k: x // 2, Words(("half",), ("share",))),
    "plus": Concept("x + {k}", lambda x, k: x + k, Words(("value plus {k}",)), DIGITS),
    "minus": Concept("x - {k}", lambda x, k: x - k, Words(("value minus {k}",)), DIGITS),
    "remainder": Concept(
        "x % {k}",
        lambda x, k: x % k,
        Words(("remainder by {k}",), ("leftover by {k}",)),
        DIGITS,
    ),
    "digit": Concept("abs(x) % 10", lambda x, k: abs(x) % 10, Words(("last digit",))),
}

# Wordings of the verbs and reductions, by the part that they name (see parts.py).
VERBS: dict[str, Words] = {
    "keep": Words(("Keep the {p}.", "Keep only the {p}."), ("Retain the {p}.",)),
    "drop": Words(("Remove the {p}.",), ("Discard the {p}.",)),
    "change": Words(("Replace the {p} by their {m}.",)),
    "choose": Words(("Replace the {p} by their {m}, the others by their {n}.",)),
    "each": Words(("Replace each number by its {m}.",)),
    "until": Words(("Stop before the first of the {p}.",)),
    "unique": Words(("Remove repeated numbers.",), ("Prune echoes.",)),
    "running": Words(("Take the running sums.",), ("Pile up the numbers.",)),
    "gaps": Words(("Take the differences of neighbours.",)),
}

REDUCTIONS: dict[str, Words] = {
    "sum": Words(("sum",), ("tally",)),
    "count": Words(("count",), ("headcount",)),
    "largest": Words(("largest",), ("peak",)),
    "smallest": Words(("smallest",), ("bottom",)),
    "first": Words(("first",), ("opener",)),
    "last": Words(("last",), ("finale",)),
    "alternating": Words(("alternating sum",)),
    "streak": Words(("longest run",)),
}
