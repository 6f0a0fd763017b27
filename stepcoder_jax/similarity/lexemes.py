"""Tokens of a program, whole or broken, in time linear in its length.

Those of the `tokenize` module without comments, white space, line ends and indentation. It
refuses broken text and cuts formatted strings by the version of Python; here each is one
token, any text has tokens, and they are the same everywhere.
"""

from __future__ import annotations

import re
from collections import Counter

from stepcoder_jax.syntax import MAX_BYTES

# What one alternative has taken it never gives back. A string that nothing closes ends with
# its line, one of three quotes with the text.
_LEXEME = re.compile(
    r"""
    (?: \s | \\\r?\n | \#[^\r\n]*+ )++
    | (?P<token>
        (?: [rRuUbBfFtT]{1,2} )? (?:
            \"{3} (?: [^"\\]++ | \\. | \"(?!\"\") )*+ (?: \"{3} | \\?\Z )
            | '{3} (?: [^'\\]++ | \\. | '(?!'') )*+ (?: '{3} | \\?\Z )
            | " (?: [^"\\\r\n]++ | \\(?:\r\n|.) )*+ "?
            | ' (?: [^'\\\r\n]++ | \\(?:\r\n|.) )*+ '?
        )
        | 0 [xXoObB] \w++
        | (?: \d[\d_]*+ (?: \.[\d_]*+ )? | \.\d[\d_]*+ ) (?: [eE][+-]?\d[\d_]*+ )? [jJ]?
        | \w++
        | \*\*= | //= | >>= | <<= | \.\.\. | \*\* | // | >> | << | -> | :=
        | [-+*/%&|^@=!<>]=
        | .
    )
    """,
    re.VERBOSE | re.DOTALL,
)


def tokens(text: str) -> list[str]:
    """The tokens of a text, of its first MAX_BYTES characters."""
    return [text[start:end] for start, end in spans(text)]


def spans(text: str) -> list[tuple[int, int]]:
    """Where they stand."""
    found = _LEXEME.finditer(text[:MAX_BYTES])
    return [match.span("token") for match in found if match["token"]]


def share(one: Counter, other: Counter) -> float:
    """What two multisets have in common: 2 |A and B| / (|A| + |B|), of two empty ones 1."""
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 1.0


def overlap(a: str, b: str) -> float:
    """How much of two programs is the same, from 0 to 1, whatever the order.

    2 |A and B| / (|A| + |B|) over the multisets of their tokens. Linear, where difflib is
    quadratic.
    """
    return share(Counter(tokens(a)), Counter(tokens(b)))
