"""A check on the labels of tokens that shares nothing with their painter.

It knows no syntax: a statement that the judge saw begin holds the bytes from there to the
first one that could end it or begin another, or could be inside something that does. So it
says little, but what it says is sure: none of these bytes may be dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from stepcoder_jax.records import Position, Report, Span

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The first byte of a statement, and on to what may end it or lead into another.
_STRETCH = re.compile(rb"(?s:.)[^;:#\\\r\n\"'(\[{]*")
_IS_BLANK = np.isin(np.arange(256), list(b" \t\n\r\f\v"))


def bytes_that_ran(source: str, report: Report) -> np.ndarray:
    """Return bool[bytes of the source]: True where the record alone says that it ran.

    With the coverage of expressions these bytes are in an instruction that ran as well,
    one with no other in it.
    """
    data = source.encode()
    begin = len(_BYTE_ORDER_MARK) if data.startswith(_BYTE_ORDER_MARK) else 0
    lines = [begin, *(match.end() for match in _LINE_END.finditer(data))]
    held = bytearray(len(data))
    for line, column in report.executed:
        if line <= len(lines) and (match := _STRETCH.match(data, lines[line - 1] + column)):
            start, stop = match.span()
            held[start:stop] = b"\x01" * (stop - start)
    ran = np.frombuffer(held, bool)
    if report.expressions:
        ran = ran & _leaves(report, lines, len(data))
    return ran & ~_IS_BLANK[np.frombuffer(data, np.uint8)]


def _leaves(report: Report, lines: Sequence[int], size: int) -> np.ndarray:
    """Return bool[size]: the instructions that ran and span no other."""

    def place(position: Position) -> tuple[int, int]:
        line, column, end_line, end_column = position
        return lines[line - 1] + column, -(lines[end_line - 1] + end_column)

    known = [p for p in report.expressions if p[0] <= p[2] <= len(lines)]
    # The longer first of two that begin together: each is followed by what it spans.
    spans = sorted((*place(position), report.expressions[position]) for position in known)
    following = [start for start, _, _ in spans[1:]] + [size]
    ran = bytearray(size)
    for (start, minus_stop, has_run), after in zip(spans, following):
        if has_run and after >= -minus_stop > start:
            ran[start:-minus_stop] = b"\x01" * (-minus_stop - start)
    return np.frombuffer(ran, bool)


def ran_but_dropped(
    source: str, report: Report, spans: Sequence[Span | None], kept: np.ndarray
) -> int:
    """Return how many tokens are dropped, of bool[T] `kept`, though a byte of them ran."""
    inside = [span for span, keep in zip(spans, kept) if span is not None and not keep]
    if not inside:
        return 0
    total = np.concatenate([[0], np.cumsum(bytes_that_ran(source, report))])
    starts, stops = np.array(inside).T
    return int(np.count_nonzero(total[stops] > total[starts]))
