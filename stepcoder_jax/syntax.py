"""The syntax of a program that a model wrote, in time linear in its length.

Whoever reads such a text outside the sandbox reads it through here. The limits are counts,
never clocks, so that a text is read on every host and after every resume, or on none:

    MAX_BYTES   of the text
    MAX_LINE    bytes of one line
    MAX_DEPTH   nested nodes; CPython's own limit depends on the caller's stack (3.11)

Beyond them, and where this interpreter cannot read the text (one of Python 3.12, read by
3.11), there is no syntax: None. Positions are UTF-8 bytes; lines end at \\n, \\r\\n and \\r
alone, as in `ast`.
"""

from __future__ import annotations

import ast
import codecs
import itertools
import operator
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from stepcoder_jax.records import Span

MAX_BYTES = 1 << 16
MAX_LINE = 1 << 12
MAX_DEPTH = 500
WINDOW = 256  # bytes that are decoded at a time
BYTE_ORDER_MARK = "\ufeff"  # positions of `ast` count from behind it
NEWLINE = re.compile(rb"\r\n|\n|\r")
# A statement has at most so many levels more than bytes: `*a,` has five.
_LEVELS_BEYOND_BYTES = 8
# In code that has been parsed. What one alternative has taken it never gives back.
_LEXEME = re.compile(
    rb"""
    (?P<comment> \#[^\r\n]*+)
    | (?P<code>  # a stretch on one line, or a string without its prefix
        [^\s\#'":;@\\]++ (?: [ \t\f]++ [^\s\#'":;@\\]++ )*+
        | \"{3} (?: [^"\\]++ | \\. | \"(?!\"\") )*+ \"{3}
        | '{3} (?: [^'\\]++ | \\. | '(?!'') )*+ '{3}
        | " (?: [^"\\\r\n]++ | \\(?:\r\n|.) )*+ "
        | ' (?: [^'\\\r\n]++ | \\(?:\r\n|.) )*+ '
        | [:@]= )
    | (?P<colon> : )
    | (?P<at> @ )
    | (?P<other> [^\s;\\] )
    """,
    re.VERBOSE | re.DOTALL,
)
# From Python 3.12 on a formatted string may hold its own quotes.
_HAS_NESTED_QUOTES = sys.version_info >= (3, 12)
_FORMATTED = tuple(
    getattr(ast, name) for name in ("JoinedStr", "TemplateStr") if hasattr(ast, name)
)


class Tokens(NamedTuple):
    """Where the tokens of a source stand, in its bytes."""

    code: list[Span]  # all but comments, white space and `;`; neighbours may be one
    colons: list[int]  # the byte behind each; of slices, dicts and annotations too
    ats: list[int]  # where each stands
    comments: list[Span]


def line_starts(data: bytes) -> list[int]:
    """Return the offset of each line; that of the first is behind a byte order mark."""
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    lines = data[start:].splitlines(keepends=True)
    starts = list(itertools.accumulate(map(len, lines), initial=start))
    if lines and not lines[-1].endswith((b"\n", b"\r")):
        starts.pop()
    return starts


def parse(source: str) -> ast.Module | None:
    """Return the syntax tree; None beyond the limits, or when it cannot be parsed."""
    if len(source) > MAX_BYTES:
        return None
    try:
        data = source.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no source
        return None
    starts = line_starts(data)
    bounds = [*starts, len(data)]
    longest = max(map(operator.sub, bounds[1:], bounds))
    if len(data) > MAX_BYTES or longest > MAX_LINE:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the model's text
            tree = ast.parse(source.removeprefix(BYTE_ORDER_MARK))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None if _is_deep(tree, starts) else tree


def _is_deep(tree: ast.Module, starts: list[int]) -> bool:
    """Say whether nodes nest deeper than MAX_DEPTH.

    Level by level, without recursion, in the statements that are long enough for it.
    """
    ends = [_end_of(each, starts) for each in tree.body]
    least = MAX_DEPTH - _LEVELS_BEYOND_BYTES
    level: list[ast.AST] = [
        each for each, begin, end in zip(tree.body, [0, *ends], ends) if end - begin > least
    ]
    for _ in range(MAX_DEPTH - 1):  # below the module
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

    Without recursion: level by level, each node with its class and, field by field, what it
    holds that is no node and how many items a list has.
    """
    shape: list[object] = []
    nodes = [tree]
    for node in nodes:  # grows while it is read
        shape.append(type(node))
        for name in type(node)._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                shape.append(len(value))
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, ast.AST):
                    nodes.append(item)
                shape.append(ast.AST if isinstance(item, ast.AST) else show_leaf(item))
    return shape


def show_leaf(value: object) -> str:
    """What a tree holds that is no node, as text.

    A long integer in base 16: its decimal digits take quadratic time, and Python refuses
    more than 4300 of them.
    """
    return hex(value) if type(value) is int else repr(value)


def holds_one_of(source: str, wanted: Sequence[ast.expr]) -> bool:
    """Say whether a source writes out one of these literals, alone or in another one."""
    tree = parse(source) if wanted else None
    if tree is None:
        return False
    known: dict[object, int] = {}
    held = set(_number_literals(tree, known).values())
    return any(_number_literals(each, known).get(id(each)) in held for each in wanted)


def _number_literals(tree: ast.AST, known: dict[object, int]) -> dict[int, int]:
    """Return a number for each literal, by the id of its node; equal literals have one.

    Each is `known` by its class and the numbers of its parts, so that none is read twice.
    """
    numbers: dict[int, int] = {}
    for node in reversed(list(ast.walk(tree))):  # parts stand before what they are part of
        parts: Sequence[ast.AST | None] = ()
        value: object = None
        match node:
            case ast.Constant(value):
                value = (type(value), value)
            case ast.UnaryOp(ast.USub(), operand):
                parts = [operand]
            case ast.List(parts) | ast.Tuple(parts) | ast.Set(parts):
                pass
            case ast.Dict(keys, values):
                parts = [*keys, *values]
            case _:
                continue
        inside = [numbers.get(id(part)) for part in parts]
        if None not in inside:
            shape = (type(node), value, *inside)
            numbers[id(node)] = known.setdefault(shape, len(known))
    return numbers


def _end_of(node: Any, starts: list[int]) -> int:
    end: int = starts[node.end_lineno - 1] + node.end_col_offset
    return end


def tokens(data: bytes, tree: ast.Module) -> Tokens | None:
    """Return the tokens of a source that `parse` has read; None where they are uncertain.

    A parsed source needs no more than a regular expression, at a fifth of the time that
    the `tokenize` module takes.
    """
    found = Tokens([], [], [], [])
    add_code, begin = found.code.append, line_starts(data)[0]
    for start, stop in [*_formatted_strings(data, tree), (len(data), len(data))]:
        for match in _LEXEME.finditer(data, begin, start):
            kind, span = match.lastgroup, match.span()
            if kind == "comment":
                found.comments.append(span)
                continue
            add_code(span)
            if kind == "colon":
                found.colons.append(span[1])
            elif kind == "at":
                found.ats.append(span[0])
            elif kind == "other":  # a quote that nothing closes
                return None
        if start < stop:
            add_code((start, stop))
        begin = stop
    return found


def _formatted_strings(data: bytes, tree: ast.Module) -> list[Span]:
    """Return the outermost strings that only a parser can read, in order."""
    if not _HAS_NESTED_QUOTES:
        return []
    starts, found = line_starts(data), []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, _FORMATTED):
            begin = starts[node.lineno - 1] + node.col_offset
            found.append((begin, _end_of(node, starts)))
        else:
            pending += ast.iter_child_nodes(node)
    return sorted(found)


def has_no_code(node: ast.stmt) -> bool:
    """Say whether a statement leaves no trace when it runs, or none to be relied on."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, (ast.Pass, ast.Global, ast.Nonlocal))


def decode_lossy(data: bytes) -> tuple[str, list[Span]]:
    """Return the text of `data` and, for each of its bytes, its range in the text's UTF-8.

    Bytes that are no UTF-8 become U+FFFD, as `errors="replace"` does; each such byte then
    has the range of the whole replacement, so spans stay in order and inside the text. Read
    by windows, since the error of a decoder holds a copy of all that it was given.
    """
    parts: list[str] = []
    ranges: list[Span] = []
    start = size = 0
    while start < len(data):
        window = data[start : start + WINDOW]
        is_last = start + len(window) == len(data)
        try:
            good, length = codecs.utf_8_decode(window, "strict", is_last)
            bad = 0
        except UnicodeDecodeError as error:
            good, length = window[: error.start].decode(), error.start
            bad = error.end - error.start
        ranges += [(i, i + 1) for i in range(size, size + length)]
        size += length
        parts.append(good)
        if bad:
            ranges += [(size, size + 3)] * bad
            size += 3
            parts.append("\ufffd")
        start += length + bad
    return "".join(parts), ranges
