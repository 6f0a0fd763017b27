"""Fine-grained optimisation: which completion tokens the policy loss keeps.

"We mask actions that are not executed in unit tests when computing the loss for updating
the policy model" (arXiv:2402.01391, section 3.2) is the paper's whole specification. Here
every byte of a program gets a label from its syntax tree and the statements that ran:

    statement             kept iff it, or anything inside it, ran
    compound statement    owns its header alone, decorators included
    suite                 kept iff one of its statements ran; with it go `else:`,
                          `finally:`, headers of `except` and `case`, docstrings and other
                          constants, `pass`, `global`, `nonlocal`, bare annotations, `;`
    comment on its own    belongs to the innermost open suite at its indentation or less
    comment after code    goes with the code before it

and a token is dropped iff it holds a non-space byte that is dropped and none that is kept.
With the coverage of expressions, in code that is kept so far

    expression            goes with the smallest instruction that spans it, by whether that
                          ran; what none spans stays kept

which drops the right side of an `and` never come to, arms of `a if b else c`, bodies of
comprehensions and lambdas, and what comes after the call that raised. What the compiler
folded away has no instruction. The instruction that spans a whole `return`, `assert` or
other statement does not count, for that has begun; a bare expression's own does.
Positions are UTF-8 bytes, and lines end at \\n, \\r\\n and \\r alone, as in `ast`.
"""

from __future__ import annotations

import ast
import bisect
import codecs
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.config import FGOConfig
from stepcoder_jax.records import Position, Program, Report, Span, Verdict

BYTE_ORDER_MARK = "\ufeff"  # positions of `ast` count from behind it
NEWLINE = re.compile(rb"\r\n|\n|\r")
# What may stand between the last expression of a header and its colon.
TO_COLON = re.compile(rb"(?:#[^\r\n]*|[^#:])*:")
# What may stand between two statements, or before `else:`, `except E:` and their like.
BETWEEN = re.compile(rb"(?:[\s;\\]|#[^\r\n]*)*")
TO_LINE_END = re.compile(rb"[^\r\n]*")
IS_SPACE = np.isin(np.arange(256), list(b" \t\n\r\f\v"))
RANDOM_STREAM = 3  # last word of default_rng([seed, step, row, stream])


class Suite(NamedTuple):
    """A block of statements with its place in the source, in bytes."""

    statements: list[ast.stmt]
    header: int  # where `if a:`, `else:`, `except E:`, `case 1:` begins
    opens: int  # after the header's colon
    closes: int  # where the next code behind the suite begins
    owns_header: bool  # False: the header is a statement's own


def parse(source: str) -> ast.Module | None:
    """Return the syntax tree, or None when this interpreter cannot parse the source."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(source.removeprefix(BYTE_ORDER_MARK))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class Layout:
    """Where the nodes of one source stand, in bytes."""

    def __init__(self, data: bytes):
        self.data = data
        start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
        self.line_starts = [start, *(match.end() for match in NEWLINE.finditer(data))]

    def start(self, node: Any) -> int:
        """Return where a node begins, the `@` of its first decorator included."""
        decorators = getattr(node, "decorator_list", None)
        if decorators:
            return self.data.rfind(b"@", 0, self.start(decorators[0]))
        return self.line_starts[node.lineno - 1] + node.col_offset

    def end(self, node: Any) -> int:
        """Return where a node ends."""
        return self.line_starts[node.end_lineno - 1] + node.end_col_offset

    def colon(self, start: int, parts: Iterable[ast.AST]) -> int:
        """Return the byte after the colon of the header that begins at `start`.

        `parts` are the nodes in the header: a colon inside one of them is not the header's.
        """
        last = max([start, *(self.end(node) for node in positioned(parts))])
        match = TO_COLON.match(self.data, last)
        assert match is not None, "the parser saw a colon here"
        return match.end()

    def next_code(self, offset: int) -> int:
        """Return where the next code after `offset` begins; comments are no code."""
        match = BETWEEN.match(self.data, offset)
        return match.end() if match else offset

    def line_end(self, offset: int) -> int:
        """Return where the line of `offset` ends, its newline excluded."""
        match = TO_LINE_END.match(self.data, offset)
        return match.end() if match else offset

    def line_start(self, offset: int) -> int:
        """Return where the line of `offset` begins."""
        return self.line_starts[bisect.bisect_right(self.line_starts, offset) - 1]


def positioned(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the outermost nodes with a position: `arguments` and `withitem` have none."""
    for node in nodes:
        if hasattr(node, "end_lineno"):
            yield node
        else:
            yield from positioned(ast.iter_child_nodes(node))


def has_no_code(node: ast.stmt) -> bool:
    """Say whether a statement leaves no trace when it runs, or none to be relied on."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, (ast.Pass, ast.Global, ast.Nonlocal))


def clauses(node: ast.stmt) -> list[tuple[list[ast.AST], list[ast.stmt]]]:
    """Return (nodes in the header, statements) of each clause of a compound statement.

    The first is the statement's own header; `match` has no statements under its own. None
    for a simple statement.
    """
    found: list[tuple[list[ast.AST], list[ast.stmt]]] = []
    inside = (ast.stmt, ast.ExceptHandler, ast.match_case)
    parts = [child for child in ast.iter_child_nodes(node) if not isinstance(child, inside)]
    if isinstance(node, ast.Match):
        found.append((parts, []))
        for case in node.cases:
            guard = [case.guard] if case.guard else []
            found.append(([case.pattern, *guard], case.body))
        return found
    if not hasattr(node, "body"):
        return []
    found.append((parts, node.body))
    for handler in getattr(node, "handlers", []):
        found.append(([handler.type] if handler.type else [], handler.body))
    found.append(([], getattr(node, "orelse", [])))
    found.append(([], getattr(node, "finalbody", [])))
    return [found[0], *(clause for clause in found[1:] if clause[1])]


def suites_of(node: ast.stmt, layout: Layout, closes: int) -> list[Suite]:
    """Return the clauses of a compound statement as suites, in order.

    `closes` is where the next code behind the whole statement begins. An `elif` is a suite
    of one `If`, which then labels its header itself.
    """
    suites: list[Suite] = []
    for place, (parts, statements) in enumerate(clauses(node)):
        header = layout.start(node) if place == 0 else layout.next_code(suites[-1].closes)
        opens = layout.colon(header, parts)
        # Until the next clause is met, the suite reaches to the end of its statements.
        end = layout.end(statements[-1]) if statements else opens
        suites.append(Suite(statements, header, opens, end, place > 0))
    ends = [suite.header for suite in suites[1:]] + [closes]
    return [suite._replace(closes=end) for suite, end in zip(suites, ends)]


class Painter:
    """Labels each byte of a source, outer blocks first, so that inner ones overwrite."""

    def __init__(
        self,
        source: str,
        executed: Iterable[tuple[int, int]],
        expressions: Mapping[Position, bool],
    ):
        self.data = source.encode()
        self.layout = Layout(self.data)
        lines = self.layout.line_starts
        self.executed = sorted(
            lines[line - 1] + column for line, column in executed if line <= len(lines)
        )
        self.expressions = sorted(
            (lines[line - 1] + column, lines[end_line - 1] + end_column, ran)
            for (line, column, end_line, end_column), ran in expressions.items()
            if end_line <= len(lines)
        )
        self.kept = bytearray(b"\x01") * len(self.data)
        self.in_code = bytearray(len(self.data))  # 1 inside statements and headers
        self.blocks: list[tuple[int, int, int, bool]] = []  # opens, closes, indent, ran
        self.begun: list[tuple[int, int, bool]] = []  # start, stop, is it one expression

    def ran(self, start: int, stop: int) -> bool:
        """Say whether a statement that begins in these bytes ran."""
        place = bisect.bisect_left(self.executed, start)
        return place < len(self.executed) and self.executed[place] < stop

    def paint(self, start: int, stop: int, keep: bool, is_code: bool) -> None:
        self.kept[start:stop] = (b"\x01" if keep else b"\x00") * (stop - start)
        if is_code:
            self.in_code[start:stop] = b"\x01" * (stop - start)

    def run(self, tree: ast.Module) -> bytearray:
        """Return the label of each byte: 1 kept, 0 dropped."""
        whole = len(self.data)
        self.blocks.append((0, whole, 0, bool(self.executed)))
        # A stack in place of recursion: a chain of `elif` nests as deep as it is long.
        pending = [Suite(tree.body, 0, 0, whole, False)]
        while pending:
            suite = pending.pop()
            if suite.statements:
                pending.extend(self.suite(suite))
        self.comments()  # first: a comment goes with its statement, not with a part of it
        for start, stop, is_expression in self.begun:
            self.refine(start, stop, is_expression)
        return self.kept

    def suite(self, suite: Suite) -> list[Suite]:
        """Label a suite and its statements; return the suites inside them."""
        layout, statements = self.layout, suite.statements
        first, last = layout.start(statements[0]), layout.end(statements[-1])
        ran = self.ran(first, last)
        # What stands between the statements, and behind the last, is the suite's.
        self.paint(suite.opens, layout.line_end(last), ran, is_code=False)
        if suite.owns_header:
            self.paint(suite.header, suite.opens, ran, is_code=True)
            if ran:
                self.begun.append((suite.header, suite.opens, False))
        margin = layout.line_start(first)
        if margin >= suite.opens:  # neither an `elif` nor a suite on its header's line
            self.blocks.append((suite.opens, suite.closes, first - margin, ran))
        inner: list[Suite] = []
        for node, following in zip(statements, [*statements[1:], None]):
            closes = suite.closes if following is None else layout.start(following)
            inner.extend(self.statement(node, closes, ran))
        return inner

    def statement(self, node: ast.stmt, closes: int, suite_ran: bool) -> list[Suite]:
        """Label one statement by whether it ran; return its suites."""
        start, end = self.layout.start(node), self.layout.end(node)
        is_bare = has_no_code(node)
        keep = suite_ran if is_bare else self.ran(start, end)
        suites = suites_of(node, self.layout, closes)
        stop = suites[0].opens if suites else end
        self.paint(start, stop, keep, is_code=True)
        if keep and not is_bare:
            self.begun.append((start, stop, isinstance(node, ast.Expr)))
        return suites

    def refine(self, start: int, stop: int, is_expression: bool) -> None:
        """Label the expressions in a statement or header that was begun.

        An instruction counts only where it belongs: that of a `def` spans its body too.
        """
        place = bisect.bisect_left(self.expressions, (start, start, False))
        end = bisect.bisect_left(self.expressions, (stop, stop, False))
        inside = [
            (first, last, ran)
            for first, last, ran in self.expressions[place:end]
            if last <= stop and (is_expression or (first, last) != (start, stop))
        ]
        # The smallest that spans a byte has the last word.
        for first, last, ran in sorted(inside, key=lambda found: found[0] - found[1]):
            self.paint(first, last, ran, is_code=True)

    def comments(self) -> None:
        """Label the comments that stand outside statements and headers."""
        place = self.data.find(b"#")
        while place >= 0:
            stop = place + 1
            if not self.in_code[place]:
                stop = self.layout.line_end(place)
                self.paint(place, stop, self.keeps_comment(place), is_code=False)
            place = self.data.find(b"#", stop)

    def keeps_comment(self, place: int) -> bool:
        margin = self.layout.line_start(place)
        if self.data[margin:place].strip():  # after code on its line
            return bool(self.kept[self.in_code.rfind(b"\x01", 0, place)])
        fitting = [
            ran
            for opens, closes, indent, ran in self.blocks
            if opens <= place < closes and indent <= place - margin
        ]
        return fitting[-1]  # blocks are noted from the outside in; the module fits always


def byte_mask(source: str, report: Report, keep_uncompiled: bool) -> np.ndarray:
    """Return bool[bytes of the source]: True where executed, or not judged.

    A program that does not compile has run nothing, and the paper is silent on it: with
    `keep_uncompiled` all of it is kept, so that the reward of -1 can teach. The same holds
    for a source that this interpreter, older than the judge's, cannot parse.
    """
    size = len(source.encode())
    if report.verdict is Verdict.INFRA:
        return np.ones(size, bool)
    tree = None if report.verdict is Verdict.COMPILE else parse(source)
    if tree is None:
        return np.full(size, keep_uncompiled)
    painter = Painter(source, report.executed, report.expressions)
    return np.frombuffer(painter.run(tree), bool)


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


def executed_tokens(
    program: Program, report: Report, config: FGOConfig, draw: tuple[int, int, int]
) -> np.ndarray:
    """Return bool[T], T = len(program.token_spans): the completion tokens to keep.

    m_t = 1 if token t was executed in a unit test, else 0 (arXiv:2402.01391, Algorithm 1).
    Controls, by `config.mask`: `none` keeps all; `random` keeps as many tokens of the code
    as `executed` does, at places drawn from `draw` = (seed, step, row); `inverse` keeps the
    others. Tokens outside the code are kept by all.
    """
    spans = program.token_spans
    if config.mask == "none":
        return np.ones(len(spans), bool)
    kept = byte_mask(program.source, report, config.keep_uncompiled)
    tokens = tokens_of_bytes(program.source, kept, spans)
    if config.mask == "executed" or report.verdict in (Verdict.COMPILE, Verdict.INFRA):
        return tokens
    code = np.array([span is not None for span in spans], bool)
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
