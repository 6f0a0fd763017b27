"""Which bytes of a program ran: a label for each, from its syntax and the judge's record.

    statement             kept iff it, or anything inside it, ran
    compound statement    owns its header alone, decorators included
    suite                 kept iff one of its statements ran; with it go `else:`,
                          `finally:`, headers of `except` and `case`, docstrings and other
                          constants, `pass`, `global`, `nonlocal`, bare annotations, `;`
    comment on its own    belongs to the innermost open suite at its indentation or less
    comment after code    goes with the code before it

With the coverage of expressions, in code that is kept so far

    expression            goes with the smallest instruction that spans it, by whether that
                          ran; what none spans stays kept

What the compiler folded away has no instruction. The instruction that spans a whole
`return`, `assert` or other statement does not count, for that has begun; a bare
expression's own does. What stands between the nodes of the tree, headers' colons and
comments among it, is found by tokens: nothing looks for a character in the text.
"""

from __future__ import annotations

import ast
import bisect
import heapq
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax import syntax
from stepcoder_jax.records import Position, Report

TO_LINE_END = re.compile(rb"[^\r\n]*")


class Suite(NamedTuple):
    """A block of statements with its place in the source, in bytes."""

    statements: list[ast.stmt]
    header: int  # where `if a:`, `else:`, `except E:`, `case 1:` begins
    opens: int  # after the header's colon
    closes: int  # where the next code behind the suite begins
    owns_header: bool  # False: the header is a statement's own
    is_elif: bool = False  # one `if`, whose place is that of its parent's clauses


class Block(NamedTuple):
    """A suite on lines of its own, as comments see it."""

    opens: int
    closes: int
    indent: int
    ran: bool


class Layout:
    """Where the nodes and tokens of one source stand, in bytes."""

    def __init__(self, data: bytes, tokens: syntax.Tokens):
        self.data = data
        self.line_starts = syntax.line_starts(data)
        self.code, self.colons, self.ats = tokens.code, tokens.colons, tokens.ats
        self.code_starts = [start for start, _ in self.code]

    def start(self, node: Any) -> int:
        """Return where a node begins, the `@` of its first decorator included."""
        decorators = getattr(node, "decorator_list", None)
        if decorators:
            return self.ats[bisect.bisect_left(self.ats, self.start(decorators[0])) - 1]
        return self.line_starts[node.lineno - 1] + node.col_offset

    def end(self, node: Any) -> int:
        """Return where a node ends."""
        return self.line_starts[node.end_lineno - 1] + node.end_col_offset

    def colon(self, start: int, parts: Iterable[ast.AST]) -> int:
        """Return the byte after the colon of the header that begins at `start`.

        `parts` are the nodes in the header: a colon inside one of them is not the header's,
        and behind the last of them there is no other.
        """
        last = max([start, *(self.end(node) for node in positioned(parts))])
        return self.colons[bisect.bisect_right(self.colons, last)]

    def next_code(self, offset: int) -> int:
        """Return where the next code at or after `offset` begins; `;` is none."""
        place = bisect.bisect_left(self.code_starts, offset)
        return self.code_starts[place] if place < len(self.code) else len(self.data)

    def code_before(self, offset: int) -> int:
        """Return where the last code before `offset` ends; 0 where there is none."""
        place = bisect.bisect_left(self.code_starts, offset)
        return self.code[place - 1][1] if place else 0

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


def clauses(node: ast.stmt) -> list[tuple[list[ast.AST], list[ast.stmt]]]:
    """Return (nodes in the header, statements) of each clause of a compound statement.

    The first is the statement's own header; `match` has no statements under its own.
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
    found.append((parts, getattr(node, "body", [])))
    for handler in getattr(node, "handlers", []):
        found.append(([handler.type] if handler.type else [], handler.body))
    found.append(([], getattr(node, "orelse", [])))
    found.append(([], getattr(node, "finalbody", [])))
    return [found[0], *(clause for clause in found[1:] if clause[1])]


def is_compound(node: ast.stmt) -> bool:
    """Say whether a statement has suites inside it."""
    return hasattr(node, "body") or isinstance(node, ast.Match)


def suites_of(node: ast.stmt, layout: Layout, closes: int) -> list[Suite]:
    """Return the clauses of a compound statement as suites, in order.

    `closes` is where the next code behind the whole statement begins. An `elif` is a suite
    of one `If`, which labels its header itself.
    """
    suites: list[Suite] = []
    for place, (parts, statements) in enumerate(clauses(node)):
        header = layout.start(node) if place == 0 else layout.next_code(suites[-1].closes)
        if place and is_elif(node, statements, layout, header):
            suites.append(Suite(statements, header, header, header, False, is_elif=True))
            continue
        opens = layout.colon(header, parts)
        # Until the next clause is met, the suite reaches to the end of its statements.
        end = layout.end(statements[-1]) if statements else opens
        suites.append(Suite(statements, header, opens, end, place > 0))
    ends = [suite.header for suite in suites[1:]] + [closes]
    return [suite._replace(closes=end) for suite, end in zip(suites, ends)]


def is_elif(
    node: ast.stmt, statements: list[ast.stmt], layout: Layout, header: int
) -> bool:
    """Say whether a clause is an `elif`: the `if` in it stands where its header does."""
    return isinstance(node, ast.If) and layout.start(statements[0]) == header


class Painter:
    """Labels each byte of a source, outer blocks first, so that inner ones overwrite."""

    def __init__(self, data: bytes, layout: Layout, report: Report):
        self.data = data
        self.layout = layout
        lines = layout.line_starts
        self.executed = sorted(
            lines[line - 1] + column
            for line, column in report.executed
            if line <= len(lines)
        )
        self.expressions = place_expressions(report.expressions, lines)
        self.first_bytes = [first for first, _, _ in self.expressions]
        self.statements: set[tuple[int, int]] = set()  # (line, column) of those met
        self.kept = bytearray(b"\x01") * len(data)
        self.code: list[tuple[int, int]] = []  # spans of statements and headers
        self.blocks: list[Block] = []
        self.begun: list[tuple[int, int, bool]] = []  # start, stop, is it one expression

    def ran(self, start: int, stop: int) -> bool:
        """Say whether a statement that begins in these bytes ran."""
        place = bisect.bisect_left(self.executed, start)
        return place < len(self.executed) and self.executed[place] < stop

    def paint(self, start: int, stop: int, keep: bool) -> None:
        self.kept[start:stop] = (b"\x01" if keep else b"\x00") * (stop - start)

    def run(self, tree: ast.Module, comments: Sequence[tuple[int, int]]) -> bytearray:
        """Return the label of each byte: 1 kept, 0 dropped."""
        whole = len(self.data)
        self.blocks.append(Block(0, whole, 0, bool(self.executed)))
        # A stack in place of recursion: a chain of `elif` nests as deep as it is long.
        pending = [Suite(tree.body, 0, 0, whole, False)]
        while pending:
            suite = pending.pop()
            if suite.statements:
                pending.extend(self.suite(suite))
        # Comments first: one goes with its statement, not with a part of it.
        if comments:
            self.comments(comments)
        if self.expressions:
            for start, stop, is_expression in self.begun:
                self.refine(start, stop, is_expression)
        return self.kept

    def suite(self, suite: Suite) -> list[Suite]:
        """Label a suite and its statements; return the suites inside them."""
        layout, statements = self.layout, suite.statements
        starts = list(map(layout.start, statements))
        first, last = starts[0], layout.end(statements[-1])
        ran = self.ran(first, last)
        if not suite.is_elif:
            # What stands between the statements, and behind the last, is the suite's.
            self.paint(suite.opens, layout.line_end(last), ran)
        if suite.owns_header:
            self.paint(suite.header, suite.opens, ran)
            self.code.append((suite.header, suite.opens))
            if ran:
                self.begun.append((suite.header, suite.opens, False))
        margin = layout.line_start(first)
        if margin >= suite.opens and not suite.is_elif:  # nor on its header's line
            self.blocks.append(Block(suite.opens, suite.closes, first - margin, ran))
        inner: list[Suite] = []
        for node, start, closes in zip(statements, starts, [*starts[1:], suite.closes]):
            inner += self.statement(node, start, closes, ran)
        return inner

    def statement(
        self, node: ast.stmt, start: int, closes: int, suite_ran: bool
    ) -> list[Suite]:
        """Label one statement by whether it ran; return its suites."""
        stop = self.layout.end(node)
        self.statements.add((node.lineno, node.col_offset))
        is_bare = syntax.has_no_code(node)
        keep = suite_ran if is_bare else self.ran(start, stop)
        suites: list[Suite] = []
        if is_compound(node):
            suites = suites_of(node, self.layout, closes)
            stop = suites[0].opens
        self.paint(start, stop, keep)
        self.code.append((start, stop))
        if keep and not is_bare:
            self.begun.append((start, stop, isinstance(node, ast.Expr)))
        return suites

    def refine(self, start: int, stop: int, is_expression: bool) -> None:
        """Label the expressions in a statement or header that was begun.

        An instruction counts only where it belongs: that of a `def` spans its body too.
        """
        place = bisect.bisect_left(self.first_bytes, start)
        end = bisect.bisect_left(self.first_bytes, stop, place)
        inside = [
            (first, last, ran)
            for first, last, ran in self.expressions[place:end]
            if last <= stop and (is_expression or (first, last) != (start, stop))
        ]
        for first, last, ran in smallest(inside) if len(inside) > 1 else inside:
            self.paint(first, last, ran)

    def comments(self, comments: Sequence[tuple[int, int]]) -> None:
        """Label the comments that stand outside statements and headers."""
        blocks = sorted(self.blocks, key=lambda block: (block.opens, -block.closes))
        in_code = bytearray(len(self.data))
        for start, stop in self.code:
            in_code[start:stop] = b"\x01" * (stop - start)
        opened: list[Block] = []
        taken = 0
        for place, stop in comments:
            while taken < len(blocks) and blocks[taken].opens <= place:
                leave(opened, blocks[taken].opens)
                opened.append(blocks[taken])
                taken += 1
            leave(opened, place)
            if not in_code[place]:
                self.paint(place, stop, self.keeps_comment(place, opened))

    def keeps_comment(self, place: int, opened: list[Block]) -> bool:
        """Say whether a comment is kept; `opened` are the blocks around, outermost first.

        They are a hundred at most, as CPython has no deeper indentation.
        """
        margin, before = self.layout.line_start(place), self.layout.code_before(place)
        if before > margin:  # after code on its line
            return bool(self.kept[before - 1])
        return next(
            block.ran for block in reversed(opened) if block.indent <= place - margin
        )


def leave(opened: list[Block], place: int) -> None:
    """Take off the blocks that are closed at `place`."""
    while opened and opened[-1].closes <= place:
        opened.pop()


def place_expressions(
    expressions: Mapping[Position, bool], lines: list[int]
) -> list[tuple[int, int, bool]]:
    """Return (start, stop, whether it ran) of each position, in bytes and in order."""
    placed = [
        (lines[line - 1] + column, lines[end_line - 1] + end_column, ran)
        for (line, column, end_line, end_column), ran in expressions.items()
        if line <= end_line <= len(lines)
    ]
    return sorted(span for span in placed if span[0] < span[1])


def smallest(spans: list[tuple[int, int, bool]]) -> Iterator[tuple[int, int, bool]]:
    """Cut spans, given in order, into pieces that do not overlap: the smallest wins.

    One pass over their borders with a heap of the spans that are open.
    """
    borders = sorted({border for first, last, _ in spans for border in (first, last)})
    opened: list[tuple[int, int, int, bool]] = []
    taken = 0
    for border, following in itertools.pairwise(borders):
        while taken < len(spans) and spans[taken][0] <= border:
            first, last, ran = spans[taken]
            heapq.heappush(opened, (last - first, -first, last, ran))
            taken += 1
        while opened and opened[0][2] <= border:
            heapq.heappop(opened)
        if opened:
            yield border, following, opened[0][3]


def label_bytes(source: str, report: Report) -> np.ndarray | None:
    """Return bool[bytes of the source]: True where executed.

    None where that is uncertain: the source is beyond the limits of `syntax`, this
    interpreter cannot read it, or it reads other statements than those that ran.
    """
    tree = syntax.parse(source)
    if tree is None:
        return None
    data = source.encode()
    tokens = syntax.tokens(data, tree)
    if tokens is None:
        return None
    painter = Painter(data, Layout(data, tokens), report)
    kept = painter.run(tree, tokens.comments)
    if not report.executed <= painter.statements:
        return None
    return np.frombuffer(kept, bool)
