"""RLCF's hybrid reward: the compiler's word where it has one, else a discriminator's.

    it does not compile   -1 on the first token of the error
    it compiles           tanh(s(program) - s(canonical)) on the last token, in (-1, 1)

Source: arXiv:2305.18341. What could be read of it (abstract, reviews, a re-implementation)
says that the compiler's error is located and that a discriminator tells which of two
programs was generated, by g = tanh(MLP(y0) - MLP(y1)). It does not say how they are put
together; ours is that the compiler's -1 takes the discriminator's place, since what does
not compile is not compared. Where it is silent we also decide: that both weigh 1 (the term
has one weight); that the penalty stands on one token, so that PPO's GAE leaves what follows
the error unpunished; that an error without a place, or in text that is not finished, has it
on the last token. Differs: s is a head on the frozen reference, not a CodeBERT of its own;
"compiles" is Python's compile(), where the paper has Java's static checks; a generated
program that is too long to be read has -1, and where the solution does not go on behind the
given head there is nothing to compare: 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from stepcoder_jax.feedback.rewards.located import find_span
from stepcoder_jax.feedback.rewards.terms import Extras, Term, tokens_on
from stepcoder_jax.records import Program, Report, Verdict

COMPILE = -1.0

Found = Mapping[tuple[str, str], float]  # (problem's id, source) -> g


def rlcf(
    program: Program, report: Report, extras: Extras, found: Found | None = None
) -> np.ndarray:
    """Values f64[tokens]; `found` is what the discriminator said, see `bind`.

    With `reward.rlcf_locate` False the -1 stands on the last token: a control.
    """
    values = np.zeros(extras.tokens)
    if report.verdict is not Verdict.COMPILE:
        if found is None:
            raise ValueError("rlcf: nobody has asked the discriminator; see `bind`")
        values[-1] = found[program.problem.id, program.source]
        return values
    place = extras.tokens - 1
    span = find_span(program, report) if extras.reward.rlcf_locate else None
    source = program.source.encode("utf-8", "surrogatepass")
    if span is not None and span != (program.generated_from, len(source)):
        chosen = np.flatnonzero(tokens_on(program, span))
        place = int(chosen[0]) if chosen.size else place
    values[place] = COMPILE
    return values


def is_asked(term: Term) -> bool:
    """Whether a term wants the discriminator's word."""
    return term.reward is rlcf


def bind(terms: Sequence[Term], found: Found) -> tuple[Term, ...]:
    """The terms, with the discriminator's word on the programs that they will be given."""
    known = partial(rlcf, found=found)
    return tuple(t._replace(reward=known) if is_asked(t) else t for t in terms)
