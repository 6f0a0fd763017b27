"""Reader of MBPP files: the whole set, the sanitized one (arXiv:2108.07732), and MBPP+.

Each item of `test_list` is one test, behind the problem's set-up code; the items of
`challenge_test_list` are left out, as by the benchmark itself. MBPP+ (arXiv:2305.01210), as
the hub has it, brings all its tests as one program in `test`, and that is its one test: its
`test_list` is MBPP's own, and is but shown in the statement. What the statement shows are
the problem's visible tests. A row does not name its
function: it is the first one of the reference code that the tests call. The statement is
posed as in the paper, the text followed by the tests, without which nobody could know that
name. Programs are whole files: there is no starter code.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from typing import Any

from stepcoder_jax.data.formats import rows
from stepcoder_jax.data.formats.rows import DataError, require, require_text, say
from stepcoder_jax.data.formats.source import parse
from stepcoder_jax.records import Mode, Problem, TestCase

MARKS = {"test_list", "test_setup_code", "test_imports"}  # fields no other format has
READ = {
    "task_id", "text", "prompt", "code", "test_list", "test", "test_setup_code",
    "test_imports", "source_file",
}  # fmt: skip
CHALLENGE = "challenge_test_list"  # not run, as by the benchmark itself
ID_PREFIX = "Mbpp/"


def read_problems(path: str, *, strict: bool) -> tuple[list[Problem], list[str]]:
    """Read a file; return the good rows' problems and one complaint per bad row.

    DataError for a file that cannot be read and, when `strict`, for the first bad row.
    """
    return rows.read_problems(path, read_row, "an MBPP file", strict=strict)


def read_row(row: dict[str, Any], number: int) -> Problem:
    """The problem of one object; DataError naming the field that is wrong."""
    del number
    rows.refuse_plus(row)
    text = require_text(row, "prompt" if "prompt" in row else "text")
    # Python reads "\r\n" as "\n", in string literals too.
    solution = require_text(row, "code").replace("\r\n", "\n")
    reference = parse("code", solution)
    shown = _read_asserts(row)
    asserts = [require_text(row, "test").replace("\r\n", "\n")] if "test" in row else shown
    setup = _read_setup(row)
    tests = parse("test" if "test" in row else "test_list", "\n".join([setup, *asserts]))
    setup = "\n".join([*_borrowed_imports(reference, tests), setup]).strip()
    scored, visible = (
        tuple(
            TestCase("\n".join(filter(None, [setup, code])) + "\n", None) for code in codes
        )
        for codes in (asserts, shown)
    )
    listed = "\n".join(shown)
    return Problem(
        id=f"{ID_PREFIX}{require(row, 'task_id', int)}",
        statement=f"{text.strip()}\nYour code should pass these tests:\n{listed}\n",
        starter_code="",
        solution=solution,
        entry_point=_entry_point(reference, tests),
        mode=Mode.ASSERT_INPROC if _needs_program(reference, tests) else Mode.ASSERT_PROXY,
        tests=scored,
        difficulty="mbpp",
        visible_tests=visible,
    )


def _read_asserts(row: dict[str, Any]) -> list[str]:
    items = require(row, "test_list", list)
    if not items:
        raise DataError("field test_list: expected at least 1 test, got none")
    for number, item in enumerate(items):
        if not isinstance(item, str) or not item.strip():
            raise DataError(
                f"field test_list[{number}]: expected a test's source, got {say(item)}"
            )
        parse(f"test_list[{number}]", item)
    return [item.replace("\r\n", "\n").strip() for item in items]


def _read_setup(row: dict[str, Any]) -> str:
    """The code that runs before each test; the two files name and shape it differently."""
    if "test_imports" not in row:
        setup: str = require(row, "test_setup_code", str).replace("\r\n", "\n")
        parse("test_setup_code", setup)
        return setup.strip()
    imports = require(row, "test_imports", list)
    if not all(isinstance(line, str) for line in imports):
        raise DataError(f"field test_imports: expected lines of source, got {say(imports)}")
    parse("test_imports", "\n".join(imports))
    return "\n".join(imports)


def _functions(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _entry_point(reference: ast.Module, tests: ast.Module) -> str:
    functions = _functions(reference)
    calls = [node for node in ast.walk(tests) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        if _called(call) in functions:
            return _called(call)
    raise DataError(
        "field test_list: expected a call of a function that field code defines "
        f"({', '.join(sorted(functions)) or 'it defines none'})"
    )


def _names(tree: ast.AST, context: type) -> set[str]:
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


def _borrowed_imports(reference: ast.Module, tests: ast.Module) -> Iterator[str]:
    """The reference's imports that the tests use without importing the same themselves."""
    own = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tests)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    wanted = _names(tests, ast.Load) - _names(tests, ast.Store) - own
    for node in reference.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                if (alias.asname or alias.name.partition(".")[0]) in wanted:
                    yield ast.unparse(_alone(node, alias))


def _alone(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(node, ast.Import):
        return ast.Import([alias])
    return ast.ImportFrom(node.module, [alias], node.level)


def _needs_program(reference: ast.Module, tests: ast.Module) -> bool:
    """Whether the tests must run beside the program, for values cannot carry what they use.

    Such are the program's own classes, and functions or types as arguments of a call of the
    program: `remove_datatype(items, int)`.
    """
    classes = {node.name for node in reference.body if isinstance(node, ast.ClassDef)}
    if classes & _names(tests, ast.Load):
        return True
    functions = _functions(reference)
    return any(
        _is_callable(node, functions)
        for call in ast.walk(tests)
        if isinstance(call, ast.Call) and _called(call) in functions
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]
        for node in _parts(argument)
    )


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what it is built of; a call inside stands for its value."""
    yield node
    if not isinstance(node, (ast.Call, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from _parts(child)


def _is_callable(node: ast.AST, functions: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in functions or callable(getattr(builtins, node.id, None))
    return isinstance(node, ast.Lambda)
