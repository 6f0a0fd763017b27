"""Tokens of any text, and how much of two texts is the same."""

import io
import tokenize
from pathlib import Path

import pytest

from stepcoder_jax.similarity.lexemes import overlap, tokens
from stepcoder_jax.syntax import MAX_BYTES

PACKAGE = Path(__file__).parents[2] / "stepcoder_jax"
SPACING = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT),
    *(tokenize.DEDENT, tokenize.ENDMARKER),
)


def without_formatted_strings(source):
    """Those are one token for us, and of Python 3.12 on many."""
    lines = source.splitlines(keepends=True)
    return "".join(line for line in lines if 'f"' not in line and "f'" not in line)


def of_tokenize(source):
    read = io.StringIO(source).readline
    found = tokenize.generate_tokens(read)
    return [token.string for token in found if token.type not in SPACING]


def test_tokens_are_those_of_the_tokenize_module():
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 100
    for path in paths:
        source = path.read_text()
        whole = 'f"' not in source and "f'" not in source
        if whole and len(source) < MAX_BYTES:
            assert tokens(source) == of_tokenize(source), path
    odd = (
        "x = 1_000.5e-3 + 0xFF_f + .5j - 1. ** 0b1\nx //= y >>= 2 != 3 -> 4 := 5 ... ~6\n"
        "s = rb'a\\'b' + '''c'\n'd''' + \"#\" + u\"e\\\nf\"  # '\n@a\ndef é(a, *b): a.b\n"
    )
    assert tokens(odd) == of_tokenize(odd)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n# a\n", []),
        ("a 'open\nb", ["a", "'open", "b"]),
        ("'''a\nb", ["'''a\nb"]),
        ("'a\\", ["'a", "\\"]),
        ("$?\0é", ["$", "?", "\0", "é"]),
        ('f"{a["c"]}"', ['f"{a["', "c", '"]}"']),  # of Python 3.12 on one string
        ("0x", ["0", "x"]),
        ("1__0 1..2", ["1__0", "1.", ".2"]),
    ],
)
def test_broken_text_has_tokens(text, expected):
    assert tokens(text) == expected


def test_overlap_is_of_multisets():
    assert overlap("a = b", "b = a") == 1.0  # the order does not count
    # {a, =, b, +, c} and {a, =, b}: three of each
    assert overlap("a = b + c", "a = b") == 2 * 3 / (5 + 3)
    # {a, a, +} and {a, +, +}: one `a` and one `+`
    assert overlap("a a +", "a + +") == 2 * 2 / (3 + 3)
    assert overlap("a", "b") == overlap("a", "") == 0.0
    assert overlap("", "# nothing\n") == 1.0


def test_what_stands_behind_the_limit_is_not_read():
    assert tokens("a" * MAX_BYTES + " b") == ["a" * MAX_BYTES]
