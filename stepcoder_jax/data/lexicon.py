"""The words of the generated benchmark: what each concept means, in code and in English.

A concept has a code template, its meaning as a Python function, and two sets of wordings.
`plain` wordings occur everywhere; `rare` ones occur only outside the supervised part of
the train split, so a warm-started model has to find out by running programs what, say,
"the tally of the debts" is. `k` stands for a constant that is copied into the code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Concept:
    """One predicate or one map on a number x, with its constant k where it has one."""

    code: str
    run: Callable[[int, int], int | bool]
    plain: tuple[str, ...]
    rare: tuple[str, ...] = ()
    constants: tuple[int, ...] = (0,)


SMALL = (2, 3, 4, 5, 6, 7, 8, 9)

PREDICATES: dict[str, Concept] = {
    "even": Concept("x % 2 == 0", lambda x, k: x % 2 == 0, ("even numbers",), ("pairs",)),
    "odd": Concept("x % 2 == 1", lambda x, k: x % 2 == 1, ("odd numbers",), ("singles",)),
    "positive": Concept("x > 0", lambda x, k: x > 0, ("positive numbers",), ("credits",)),
    "negative": Concept("x < 0", lambda x, k: x < 0, ("negative numbers",), ("debts",)),
    "multiple": Concept(
        "x % {k} == 0",
        lambda x, k: x % k == 0,
        ("multiples of {k}", "numbers divisible by {k}"),
        ("stacks of {k}",),
        (3, 4, 5, 6, 7),
    ),
    "other": Concept(
        "x % {k} != 0",
        lambda x, k: x % k != 0,
        ("numbers not divisible by {k}",),
        ("misfits of {k}",),
        (3, 4, 5, 6, 7),
    ),
    "above": Concept(
        "x > {k}",
        lambda x, k: x > k,
        ("numbers above {k}", "numbers greater than {k}"),
        ("numbers exceeding {k}",),
        SMALL,
    ),
    "below": Concept(
        "x < {k}",
        lambda x, k: x < k,
        ("numbers below {k}", "numbers less than {k}"),
        ("numbers shy of {k}",),
        SMALL,
    ),
    "ending": Concept(
        "abs(x) % 10 == {k}",
        lambda x, k: abs(x) % 10 == k,
        ("numbers ending in {k}",),
        (),
        (1, 2, 3, 4, 5, 6),
    ),
    "far": Concept(
        "abs(x) > {k}",
        lambda x, k: abs(x) > k,
        ("numbers farther than {k} from zero",),
        (),
        SMALL,
    ),
    "near": Concept(
        "abs(x) <= {k}",
        lambda x, k: abs(x) <= k,
        ("numbers within {k} of zero",),
        (),
        SMALL,
    ),
}

MAPS: dict[str, Concept] = {
    "double": Concept("x * 2", lambda x, k: x * 2, ("double",), ("twin",)),
    "triple": Concept("x * 3", lambda x, k: x * 3, ("triple",)),
    "square": Concept("x * x", lambda x, k: x * x, ("square",), ("area",)),
    "negate": Concept("-x", lambda x, k: -x, ("opposite",), ("mirror",)),
    "absolute": Concept("abs(x)", lambda x, k: abs(x), ("absolute value",), ("size",)),
    "half": Concept("x // 2", lambda x, k: x // 2, ("half",), ("share",)),
    "plus": Concept("x + {k}", lambda x, k: x + k, ("value plus {k}",), (), SMALL),
    "minus": Concept("x - {k}", lambda x, k: x - k, ("value minus {k}",), (), SMALL),
    "remainder": Concept(
        "x % {k}", lambda x, k: x % k, ("remainder by {k}",), ("leftover by {k}",), SMALL
    ),
    "digit": Concept("abs(x) % 10", lambda x, k: abs(x) % 10, ("last digit",)),
}

# Wordings of the verbs and reductions, by the part that they name (see parts.py).
VERBS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "keep": (("Keep the {p}.", "Keep only the {p}."), ("Retain the {p}.",)),
    "drop": (("Remove the {p}.",), ("Discard the {p}.",)),
    "change": (("Replace the {p} by their {m}.",), ("Swap the {p} for their {m}.",)),
    "choose": (("Replace the {p} by their {m}, the others by their {n}.",), ()),
    "each": (("Replace each number by its {m}.",), ()),
    "until": (("Stop before the first of the {p}.",), ()),
    "unique": (("Remove repeated numbers.",), ("Prune echoes.",)),
    "running": (("Take the running sums.",), ("Pile up the numbers.",)),
    "gaps": (("Take the differences of neighbours.",), ()),
}

REDUCTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sum": (("sum",), ("tally",)),
    "count": (("count",), ("headcount",)),
    "largest": (("largest",), ("peak",)),
    "smallest": (("smallest",), ("bottom",)),
    "first": (("first",), ("opener",)),
    "last": (("last",), ("finale",)),
    "alternating": (("alternating sum",), ()),
    "streak": (("longest run",), ()),
}
