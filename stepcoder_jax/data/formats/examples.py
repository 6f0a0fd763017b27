"""The examples that a problem's statement shows, as tests that the model may be shown.

Of docstrings they are doctests, and lines as `f(1) == 2`, `f(1) => 2` or `f(1) returns 2`:
each becomes `assert f(1) == 2`, whose values nothing here works out. Of stories with a
sample input and output, and of LeetCode's `Input: nums = [1], k = 2`, they are those tests
of the problem that stand there.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from stepcoder_jax.records import Mode, TestCase

_LONGEST = 2000  # characters of one example that is looked at
_MOST_BRACKETS = 50  # of a line, each of which may end the call
_PROMPT, _MORE = ">>>", "..."
_LEAD = re.compile(r"(?:[*-]|for|assert|>>>)\s+")  # before a call
_SIGN = "(?:==>|=>|->|➞|→|==|=(?!=)|(?:should )?returns?)"
_ARROW = re.compile(rf"(?:#\s*{_SIGN}?|{_SIGN})\s*(?P<value>\S.*)")
_NAMED = re.compile(r"(^|,)\s*[A-Za-z_]\w*\s*=\s*|\n\s*[A-Za-z_]\w*\s*=\s*")
_PAIR = re.compile(r"\binput:(?P<given>.*?)\boutput:\s*(?P<wanted>[^\n]+)", re.I | re.S)
_WORDS = {"true": "True", "false": "False", "null": "None"}


def docstring_tests(docstring: str, entry_point: str) -> tuple[TestCase, ...]:
    """The examples of a function's docstring, as test code, in order."""
    found = dict.fromkeys(
        f"assert {ast.unparse(ast.Compare(call, [ast.Eq()], [value]))}\n"
        for call, value in _examples(docstring.split("\n"), entry_point)
    )
    return tuple(TestCase(code, None) for code in found)


def asserts_of(text: str) -> tuple[TestCase, ...]:
    """The lines of a text that are an assert statement, as test code."""
    lines = [line.strip() for line in text.split("\n")]
    return tuple(
        TestCase(f"{line}\n", None)
        for line in lines
        if line.startswith("assert ") and _parse(line, "exec") is not None
    )


def _examples(lines: Sequence[str], name: str) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The call, or what is made of it, and the value of each example."""
    place = 0
    while place < len(lines):
        line = lines[place].strip()
        place += 1
        pair = None
        if line.startswith(_PROMPT):
            source, wanted, place = _read_doctest(lines, place, line)
            pair = _doctest(source, wanted)
        pair = pair or _comparison(_LEAD.sub("", line, count=1), name)
        if pair is not None:
            yield pair


def _read_doctest(lines: Sequence[str], place: int, line: str) -> tuple[str, str, int]:
    """The source behind `>>>`, what is printed, and the line after both."""
    source, wanted = [line.removeprefix(_PROMPT)], []
    while place < len(lines) and lines[place].strip().startswith(_MORE):
        source.append(lines[place].strip().removeprefix(_MORE))
        place += 1
    while place < len(lines):
        said = lines[place].strip()
        if not said or said.startswith(_PROMPT):
            break
        wanted.append(said)
        place += 1
    return "\n".join(source), "\n".join(wanted), place


def _doctest(source: str, wanted: str) -> tuple[ast.expr, ast.expr] | None:
    call = _expression(source)
    if isinstance(call, ast.Compare) and not wanted:
        is_equality = len(call.ops) == 1 and isinstance(call.ops[0], ast.Eq)
        return (call.left, call.comparators[0]) if is_equality else None
    if not wanted:  # None prints nothing
        return (call, ast.Constant(None)) if isinstance(call, ast.Call) else None
    value = _expression(wanted)
    return (call, value) if call is not None and value is not None else None


def _comparison(line: str, name: str) -> tuple[ast.expr, ast.expr] | None:
    """A line that calls the function on literals, an arrow, and a literal."""
    if not line.startswith(f"{name}("):
        return None
    ends = [place + 1 for place, letter in enumerate(line[:_LONGEST]) if letter == ")"]
    for end in ends[:_MOST_BRACKETS]:
        call = _expression(line[:end])
        if isinstance(call, ast.Call):
            arrow = _ARROW.match(line[end:].strip())
            value = _literal(arrow["value"]) if arrow else None
            is_plain = all(map(_is_literal, call.args)) and not call.keywords
            return (call, value) if value is not None and is_plain else None
    return None


def _literal(text: str) -> ast.expr | None:
    """The value in front of a remark, if it is a literal."""
    before_remark = text.partition(" #")[0], text.partition(" (")[0]
    for part in (text, text.rstrip(" .;"), *before_remark):
        value = _expression(_WORDS.get(part, part))
        if value is not None and _is_literal(value):
            return value
    return None


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _expression(text: str) -> ast.expr | None:
    tree = _parse(f"(\n{text}\n)", "eval")
    return tree.body if isinstance(tree, ast.Expression) else None


def _parse(text: str, mode: str) -> ast.AST | None:
    if len(text) > _LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes, in other people's strings
            return ast.parse(text, mode=mode)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def shown_in(
    statement: str, tests: Sequence[TestCase], mode: Mode, entry_point: str | None
) -> tuple[TestCase, ...]:
    """Those of the tests whose input and output both stand in the statement."""
    if mode is Mode.CALL:
        pairs = [*_called_pairs(statement, entry_point), *_named_pairs(statement)]
        return tuple(test for test in tests if _is_among(test, pairs))
    lines = _lines_of(statement)
    heads = [place for place, line in enumerate(lines) if "input" in line.lower()]
    return tuple(test for test in tests if _is_sample(test, lines, heads))


def _lines_of(text: str) -> list[str]:
    """Without the white space at their ends; blank ones left out."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def _is_sample(test: TestCase, lines: list[str], heads: list[int]) -> bool:
    """Whether the input stands below a line that says "input", and the output below that,
    behind a line that says "output"."""
    given, wanted = _lines_of(test.inputs), _lines_of(test.expected)
    for head in heads:
        middle = head + 1 + len(given)
        if (
            lines[head + 1 : middle] == given
            and "output" in " ".join(lines[middle : middle + 1]).lower()
            and lines[middle + 1 : middle + 1 + len(wanted)] == wanted
        ):
            return True
    return False


def _called_pairs(statement: str, name: str | None) -> Iterator[tuple[list[Any], Any]]:
    """The arguments and the result of each line that calls the function on literals."""
    for call, value in _examples(statement.split("\n"), name or ""):
        if isinstance(call, ast.Call) and all(map(_is_literal, [*call.args, value])):
            yield list(map(ast.literal_eval, call.args)), ast.literal_eval(value)


def _named_pairs(statement: str) -> Iterator[tuple[list[Any], Any]]:
    """The arguments and the result of each `Input: ... Output: ...`."""
    for pair in _PAIR.finditer(statement):
        given = _NAMED.sub(",", pair["given"].strip()).lstrip(",")
        values, wanted = _value(f"[{given}]"), _value(pair["wanted"].strip())
        if values and wanted:
            yield values[0], wanted[0]


def _value(text: str) -> list[Any]:
    """The value that a text spells, in Python's words or JSON's, in a list; else []."""
    if len(text) <= _LONGEST:
        for word, ours in _WORDS.items():
            text = re.sub(rf"\b{word}\b", ours, text)
        try:
            return [ast.literal_eval(text)]
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
    return []


def _is_among(test: TestCase, pairs: list[tuple[list[Any], Any]]) -> bool:
    given = list(test.inputs)
    return any(
        given == shown and test.expected in (wanted, [wanted]) for shown, wanted in pairs
    )
