"""The syntax of a program that a model wrote, in time linear in its length.

Whoever reads such a text outside the sandbox reads it through here. The limits are counts,
never clocks, so that a text is read on every host and after every resume, or on none:

    MAX_BYTES   of the text
    MAX_LINE    bytes of one line; Python 3.12.0 to 3.12.3 read the line again per token
    MAX_DEPTH   nested nodes; CPython's own limit depends on the caller's stack (3.11)

Beyond them, and where this interpreter cannot read the text (one of Python 3.12, read by
3.11), there is no syntax: None. Positions are UTF-8 bytes; lines end at \\n, \\r\\n and \\r
alone, as in `ast`.
"""

from __future__ import annotations

import ast
import codecs
import io
import itertools
import re
import tokenize
import warnings
from typing import NamedTuple

from stepcoder_jax.records import Span

MAX_BYTES = 1 << 16
MAX_LINE = 1 << 12
MAX_DEPTH = 500
BYTE_ORDER_MARK = "\ufeff"  # positions of `ast` count from behind it
NEWLINE = re.compile(rb"\r\n|\n|\r")
_NEWLINE_OF_TEXT = re.compile(r"\r\n?")
_WHITE = {
    tokenize.NEWLINE,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
# From Python 3.12 on a formatted string is many tokens.
_OPENS = {getattr(tokenize, name, -1) for name in ("FSTRING_START", "TSTRING_START")}
_CLOSES = {getattr(tokenize, name, -1) for name in ("FSTRING_END", "TSTRING_END")}


class Tokens(NamedTuple):
    """Where the tokens of a source stand, in its bytes."""

    code: list[Span]  # all but comments and white space; of a formatted string its ends
    words: list[str]  # the text of each of them
    comments: list[Span]


def line_starts(data: bytes) -> list[int]:
    """Return the offset of each line; that of the first is behind a byte order mark."""
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    return [start, *(match.end() for match in NEWLINE.finditer(data))]


def parse(source: str) -> ast.Module | None:
    """Return the syntax tree; None beyond the limits, or when it cannot be parsed."""
    if not _is_small(source):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the model's text
            tree = ast.parse(source.removeprefix(BYTE_ORDER_MARK))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None if _is_deep(tree) else tree


def _is_small(source: str) -> bool:
    if len(source) > MAX_BYTES:
        return False
    try:
        data = source.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no source
        return False
    bounds = [*line_starts(data), len(data)]
    longest = max(stop - start for start, stop in itertools.pairwise(bounds))
    return len(data) <= MAX_BYTES and longest <= MAX_LINE


def _is_deep(tree: ast.AST) -> bool:
    """Say whether nodes nest deeper than MAX_DEPTH; level by level, without recursion."""
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        below: list[ast.AST] = []
        for node in level:
            for value in node.__dict__.values():
                if isinstance(value, list):
                    below += [item for item in value if isinstance(item, ast.AST)]
                elif isinstance(value, ast.AST):
                    below.append(value)
        if not below:
            return False
        level = below
    return True


def is_same(one: str, other: str) -> bool:
    """Say whether two sources have one syntax tree, or, where one has none, one text."""
    first, second = parse(one), parse(other)
    if first is None or second is None:
        return one.strip() == other.strip()
    return _shape(first) == _shape(second)


def _shape(tree: ast.AST) -> list[object]:
    """Return what two trees have in common if and only if they are the same.

    Without recursion: level by level, each node with its class, what it holds that is no
    node, and how many nodes in each of its fields.
    """
    shape: list[object] = []
    for node in ast.walk(tree):
        shape.append(type(node))
        for name, value in ast.iter_fields(node):
            items = value if isinstance(value, list) else [value]
            shape += [name, len(items), isinstance(value, list)]
            for item in items:
                shape.append(ast.AST if isinstance(item, ast.AST) else repr(item))
    return shape


def tokens(source: str) -> Tokens | None:
    """Return the tokens of a source that `parse` has read; None when `tokenize` cannot."""
    data = source.encode()
    starts = line_starts(data)
    text = _NEWLINE_OF_TEXT.sub("\n", source.removeprefix(BYTE_ORDER_MARK))
    offsets = [_byte_offsets(line) for line in text.split("\n")]

    def place(row: int, column: int) -> int:
        known = offsets[row - 1]
        return starts[row - 1] + (known[column] if known else column)

    found = Tokens([], [], [])
    inside = 0  # formatted strings around
    try:
        for kind, word, begin, end, _ in tokenize.generate_tokens(
            io.StringIO(text).readline
        ):
            if kind in _WHITE:
                continue
            inside -= kind in _CLOSES
            if not inside:
                span = place(*begin), place(*end)
                is_here = begin[0] < end[0] or data[slice(*span)] == word.encode()
                if not is_here:  # a fault of the library: what else is misplaced?
                    return None
                if kind == tokenize.COMMENT:
                    found.comments.append(span)
                else:
                    found.code.append(span)
                    found.words.append(word)
            inside += kind in _OPENS
    except (tokenize.TokenError, SyntaxError, IndexError):
        return None
    return found


def _byte_offsets(line: str) -> list[int] | None:
    """Return the byte offset of each character of a line, and its end; None of ASCII."""
    if line.isascii():
        return None
    offsets = [0]
    for character in line:
        offsets.append(offsets[-1] + len(character.encode()))
    return offsets


def has_no_code(node: ast.stmt) -> bool:
    """Say whether a statement leaves no trace when it runs, or none to be relied on."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, (ast.Pass, ast.Global, ast.Nonlocal))
