"""Fine-grained optimisation: which completion tokens the policy loss keeps.

"We mask actions that are not executed in unit tests when computing the loss for updating
the policy model" (arXiv:2402.01391, section 3.2) is the paper's whole specification. Here
`painting` labels every byte of a program, and a token is dropped iff it holds a non-space
byte that is dropped and none that is kept. With coverage of expressions more is dropped
where it never ran: the right side of an `and`, an arm of `a if b else c`, the body of a
comprehension or a lambda, and what comes after the call that raised.

A program whose labels are uncertain (`painting.label_bytes`) keeps all of its tokens, and
is counted: a token too many is the paper's baseline, a dropped token that ran is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stepcoder_jax.config import FGOConfig
from stepcoder_jax.feedback import evidence
from stepcoder_jax.feedback.painting import label_bytes
from stepcoder_jax.records import Program, Report, Span, Verdict

IS_SPACE = np.isin(np.arange(256), list(b" \t\n\r\f\v"))
RANDOM_STREAM = 3  # last word of default_rng([seed, step, row, stream])


class Labels(NamedTuple):
    """What is said of the tokens of one program, before any control."""

    kept: np.ndarray  # bool[T]
    is_uncertain: bool = False  # all are kept, since nobody can tell
    dropped_but_ran: int = 0  # tokens that the judge's record contradicts: 0 or a fault


def byte_mask(source: str, report: Report, keep_uncompiled: bool) -> np.ndarray:
    """Return bool[bytes of the source]: True where executed, or not judged.

    A program that does not compile has run nothing, and the paper is silent on it: with
    `keep_uncompiled` all of it is kept, so that the reward of -1 can teach.
    """
    kept = _byte_mask(source, report, keep_uncompiled)
    return np.ones(_size(source), bool) if kept is None else kept


def _byte_mask(source: str, report: Report, keep_uncompiled: bool) -> np.ndarray | None:
    """As `byte_mask`; None where the labels are uncertain."""
    if report.verdict is Verdict.INFRA:
        return np.ones(_size(source), bool)
    if report.verdict is Verdict.COMPILE:
        return np.full(_size(source), keep_uncompiled)
    return label_bytes(source, report)


def _size(source: str) -> int:
    return len(source.encode())


def tokens_of_bytes(
    source: str, kept: np.ndarray, spans: Sequence[Span | None]
) -> np.ndarray:
    """Return bool[T]: the tokens that hold a kept non-space byte, or no dropped one.

    A token of spaces alone follows the next token of the code, the last ones the previous.
    Tokens outside the code (span None) are kept.
    """
    solid = ~IS_SPACE[np.frombuffer(source.encode(), np.uint8)]
    # Totals up to each byte, so that a span's count is one difference.
    total_solid = np.concatenate([[0], np.cumsum(solid)])
    total_kept = np.concatenate([[0], np.cumsum(solid & kept)])
    result = np.ones(len(spans), bool)
    places = [place for place, span in enumerate(spans) if span is not None]
    if not places:
        return result
    starts, stops = np.array([spans[place] for place in places]).T
    has_kept = total_kept[stops] > total_kept[starts]
    has_solid = np.flatnonzero(total_solid[stops] > total_solid[starts])
    if has_solid.size:
        # For each token, the first solid one at or after it, else the last.
        source_of = np.searchsorted(has_solid, np.arange(len(places)))
        result[places] = has_kept[has_solid[np.minimum(source_of, has_solid.size - 1)]]
    return result


def label(program: Program, report: Report, config: FGOConfig) -> Labels:
    """Return which tokens were executed in a unit test, and how sure that is."""
    spans, source = program.token_spans, program.source
    if config.mask == "none":
        return Labels(np.ones(len(spans), bool))
    kept = _byte_mask(source, report, config.keep_uncompiled)
    if kept is None:
        return Labels(np.ones(len(spans), bool), is_uncertain=True)
    tokens = tokens_of_bytes(source, kept, spans)
    wrong = evidence.ran_but_dropped(source, report, spans, tokens)
    return Labels(tokens, dropped_but_ran=wrong)


def executed_tokens(
    program: Program, report: Report, config: FGOConfig, draw: tuple[int, int, int]
) -> np.ndarray:
    """Return bool[T], T = len(program.token_spans): the completion tokens to keep.

    m_t = 1 if token t was executed in a unit test, else 0 (arXiv:2402.01391, Algorithm 1).
    `control` says what else `config.mask` can ask for.
    """
    return control(label(program, report, config), program, report, config, draw)


def control(
    labels: Labels,
    program: Program,
    report: Report,
    config: FGOConfig,
    draw: tuple[int, int, int],
) -> np.ndarray:
    """Return bool[T]: the tokens that `config.mask` keeps of a program with these labels.

    `none` keeps all; `random` keeps as many tokens of the code as `executed` does, at
    places drawn from `draw` = (seed, step, row); `inverse` keeps the others. Tokens outside
    the code are kept by all, and so are those of a program that nobody labelled.
    """
    tokens, is_unknown = labels.kept, report.verdict in (Verdict.COMPILE, Verdict.INFRA)
    if config.mask in ("executed", "none") or is_unknown or labels.is_uncertain:
        return tokens
    code = np.array([span is not None for span in program.token_spans], bool)
    if config.mask == "inverse":
        tokens[code] = ~tokens[code]
    elif config.mask == "random":
        rng = np.random.default_rng([*draw, RANDOM_STREAM])
        tokens[code] = rng.permutation(tokens[code])
    else:
        raise ValueError(
            "fgo.mask: expected executed, random, inverse or none, got " + repr(config.mask)
        )
    return tokens
