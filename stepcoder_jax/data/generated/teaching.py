"""The rule teacher of the dialect tier: what is wrong with a program, and that mended.

It reads what a model reads: the statement, the program, and the first visible test that
fails, which executes one part alone. So of two parts that are wrong it tells and mends the
first; the other is for the next round. A teacher that wrote the canonical program would
show what no reader of its message can know, and teach to guess. An explanation is true by
construction, and `is_true` knows all true ones.

A program that is not written as the tier writes them, two lines a part, has no teacher:
None.
"""

from __future__ import annotations

from stepcoder_jax.data.generated import dialect
from stepcoder_jax.records import Problem


def explain(problem: Problem, source: str) -> str | None:
    """What the first part that fails means, and what the program takes it for.

    None too where no visible test fails; InputError for a problem of another tier.
    """
    return next(iter(true_explanations(problem, source)), None)


def mend(problem: Problem, source: str) -> str | None:
    """The program with that part put right and all else kept; None and errors as above."""
    meanings = dialect.meanings_of(problem)
    written = dialect.operations_of(source, len(meanings))
    if written is None or written == meanings:
        return None
    told = next(i for i, said in enumerate(written) if said != meanings[i])
    written[told] = meanings[told]
    return dialect.write_program(written)


def is_true(problem: Problem, source: str, explanation: str) -> bool:
    """Whether an explanation says of one wrong part what it means and what it is taken for.

    Any wrong part will do, not only the one whose test is told.
    """
    return explanation.strip() in true_explanations(problem, source)


def true_explanations(problem: Problem, source: str) -> list[str]:
    """One for each wrong part, in order."""
    meanings = dialect.meanings_of(problem)
    written = dialect.operations_of(source, len(meanings)) or meanings
    return [
        f"Part {1 << i} is x {meaning}, not x {said}."
        for i, (meaning, said) in enumerate(zip(meanings, written, strict=True))
        if meaning != said
    ]
