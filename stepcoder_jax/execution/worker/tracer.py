"""Coverage in one shared byte per statement or expression, which a SIGKILL cannot undo.

A probe is put before every statement. On interpreters with `sys.monitoring` (3.12 and
newer) it is a `pass` on a line number of its own: it compiles to a NOP whose event is
switched off after the first time, so that a hot loop pays next to nothing. (INSTRUCTION
events, for a LINE event looks its line up, which is quadratic in a long module.) On 3.11
the probe stores into the map, once. Placement is the same, hence so are the statements
reported. Real nodes keep their positions: line numbers and tracebacks are those of the
source; columns of line 1 count from behind a byte order mark, as in `ast` of a file.

Expressions need `sys.monitoring`: each distinct position of an instruction in the source is
an entry of the map, behind those of the statements.

The map lies in the program's own memory: one that looks for it can write to it, and so say
of its own tokens that they ran. That reaches neither its verdict nor any other program.
"""

from __future__ import annotations

import ast
import marshal
import mmap
import opcode
import sys
import types
from array import array
from collections.abc import Iterator
from itertools import compress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # records loads dataclasses, see worker.py
    from stepcoder_jax.records import Position

HAS_MONITORING = hasattr(sys, "monitoring")
_FILENAME = "<program>"
# Stands for the map until the map is known; no source compiles to a set in a set.
_MAP: Any = frozenset({frozenset()})
# Likewise for the list of what has not run yet: a text that no source has. The entries are
# those behind its length, else the compiler would put one of its letters in their place.
_PENDING = "\ue000stepcoder: not run yet\ue000"
_RECURSION_FOR_COMPILER = 20_000
_BYTE_ORDER_MARK = "\ufeff"  # files may begin with it, strings may not
_TOOL = 1  # sys.monitoring.COVERAGE_ID
# Jumps evaluate nothing: in `[a for b in c if d]` one at the place of `a` passes it over.
# Caches and prefixes of long arguments may be a jump's.
_NO_EVIDENCE = frozenset(
    code
    for name, code in opcode.opmap.items()
    if "JUMP" in name or name in ("CACHE", "EXTENDED_ARG")
)
_MOST_POSITIONS = 1 << 14  # some 3000 lines of code; what lies beyond is not noted


class Instrumented:
    """A compiled program with probes.

    `table` holds the (line, byte column) pairs of the statements that are reported, flat;
    byte i of the map is 1 once statement i has begun. A `try` has no code of its own: its
    probe runs exactly when the first statement of its body begins. Docstrings, `global`
    and `nonlocal` are not reported. `positions` numbers the positions of instructions,
    whose bytes come next; it is empty unless `coverage` is "expression".
    """

    def __init__(self, source: str, coverage: str) -> None:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(_RECURSION_FOR_COMPILER)  # for long elif chains
        try:
            text: str | ast.Module = source.removeprefix(_BYTE_ORDER_MARK)
            self.first_line = len(source) + 2  # past every line of the source
            self.table = array("I")
            if coverage != "none":
                text = ast.parse(text, _FILENAME)
                self._probe_all(text)
            self.code = compile(text, _FILENAME, "exec", dont_inherit=True)
        finally:
            sys.setrecursionlimit(limit)
        self.probe_count = len(self.table) // 2
        self.positions: dict[Position, int] = {}
        self.slots: list[tuple[types.CodeType, dict[int, int]]] = []
        if HAS_MONITORING and self.probe_count:
            self._find_slots(coverage == "expression")

    def pack(self) -> bytes:
        """All that `start` needs; ValueError for code that is nested too deeply.

        With it the second test of a program need not compile anything. It is made before
        the program's first line, and `unpack` is called in the same program's sandbox.
        """
        slots = [of_code for _, of_code in self.slots]
        return marshal.dumps((self.code, self.probe_count, slots))

    @classmethod
    def unpack(cls, packed: bytes) -> Instrumented:
        """The program that was packed, but for what its legend tells."""
        program = cls.__new__(cls)
        program.code, program.probe_count, slots = marshal.loads(packed)
        program.slots = list(zip(_code_objects(program.code), slots))
        return program

    def _probe_all(self, tree: ast.Module) -> None:
        """Put probes into every suite; an explicit stack, for suites nest deeply."""
        pending: list[tuple[ast.AST, str]] = [(tree, "body")]
        while pending:
            owner, field = pending.pop()
            suite: list[ast.stmt] = getattr(owner, field)
            documented = field == "body" and isinstance(owner, _MAY_HAVE_DOCSTRING)
            setattr(owner, field, self._probe_suite(suite, documented))
            for statement in suite:
                pending += _suites(statement)

    def _probe_suite(self, suite: list[ast.stmt], documented: bool) -> list[ast.stmt]:
        """Interleave one suite with probes; the docstring and `__future__` stay first."""
        result: list[ast.stmt] = []
        late: list[ast.stmt] = []
        for position, statement in enumerate(suite):
            if position == 0 and documented and _is_string(statement):
                result.append(statement)
                continue
            probe = [] if _is_unreported(statement) else [self._probe(statement)]
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                late += probe
                result.append(statement)
                continue
            result += [*late, *probe, statement]
            late = []
        return result + late

    def _probe(self, statement: ast.stmt) -> ast.stmt:
        slot = len(self.table) // 2
        self.table.extend((statement.lineno, statement.col_offset))
        return _make_probe(statement, slot, self.first_line)

    def _find_slots(self, with_positions: bool) -> None:
        """Say for every code object which instruction (by offset) sets which byte."""
        for code in _code_objects(self.code):
            slots = self._number_positions(code) if with_positions else {}
            self.slots.append((code, slots | self._find_probes(code)))

    def _number_positions(self, code: types.CodeType) -> dict[int, int]:
        """Give each position a byte of the map, but for those of probes and of no text."""
        slots: dict[int, int] = {}
        first_slot, units = len(self.table) // 2, code.co_code[::2]  # of two bytes each
        for index, (line, end_line, column, end_column) in enumerate(code.co_positions()):
            if line is None or end_line is None or column is None or end_column is None:
                continue
            if units[index] in _NO_EVIDENCE:
                continue
            position = (line, column, end_line, end_column)
            is_probe, is_empty = line >= self.first_line, position[:2] == position[2:]
            if is_probe or is_empty or line == 0:  # line 0: where a module's code begins
                continue
            if position in self.positions or len(self.positions) < _MOST_POSITIONS:
                number = self.positions.setdefault(position, len(self.positions))
                slots[2 * index] = first_slot + number
        return slots

    def legend(self) -> bytes:
        """What `read_map` needs to read the map: its entries, in order."""
        flat = array("I", [len(self.table) // 2]) + self.table
        for position in self.positions:
            flat.extend(position)
        return flat.tobytes()

    def start(self, hits: mmap.mmap) -> None:
        """Begin recording into `hits`; the code must be run after this."""
        if not self.probe_count:
            return
        if not HAS_MONITORING:
            pending = [True] * (len(_PENDING) + self.probe_count)
            self.code = _bind(self.code, {_MAP: hits, _PENDING: pending})
            return
        monitoring = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        event, disable = monitoring.events.INSTRUCTION, monitoring.DISABLE
        slots = {id(code): of_code for code, of_code in self.slots}

        def on_instruction(code: types.CodeType, offset: int) -> object:
            slot = slots[id(code)].get(offset)
            if slot is not None:
                hits[slot] = 1
            return disable

        monitoring.use_tool_id(_TOOL, "stepcoder")
        monitoring.register_callback(_TOOL, event, on_instruction)
        for code, _ in self.slots:
            monitoring.set_local_events(_TOOL, code, event)

    def _find_probes(self, code: types.CodeType) -> dict[int, int]:
        first = self.first_line
        return {
            start: line - first
            for start, _, line in code.co_lines()
            if line is not None and line >= first
        }


def rehearse(source: str, coverage: str) -> None:
    """Do for a source what is done for a program, but for running it."""
    program = Instrumented(source, coverage)
    program.legend()
    program = Instrumented.unpack(program.pack())
    if not HAS_MONITORING:  # else it would begin for this process
        program.start(mmap.mmap(-1, map_size(source, coverage)))


def _code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and all those in it."""
    pending = [code]
    while pending:
        code = pending.pop()
        yield code
        pending += [c for c in code.co_consts if isinstance(c, types.CodeType)]


def map_size(source: str, coverage: str) -> int:
    """Bytes that the map of a source needs at most."""
    return len(source) + 1 + (_MOST_POSITIONS if coverage == "expression" else 0)


def read_map(
    legend: bytes, hits: bytes
) -> tuple[frozenset[tuple[int, int]], dict[Position, bool]]:
    """The statements that ran, and of each position whether it did."""
    numbers = array("I")
    # The output limit cuts the legend of a source with very many statements.
    numbers.frombytes(legend[: len(legend) // numbers.itemsize * numbers.itemsize])
    count = numbers[0] if numbers else 0
    table, rest = numbers[1 : 2 * count + 1], numbers[2 * count + 1 :]
    statements = zip(table[0::2], table[1::2])
    executed = frozenset(compress(statements, hits))
    if not rest:
        return executed, {}
    positions = zip(rest[0::4], rest[1::4], rest[2::4], rest[3::4])
    return executed, {place: bool(hit) for place, hit in zip(positions, hits[count:])}


_LOAD, _STORE = ast.Load(), ast.Store()
_MAY_HAVE_DOCSTRING = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_unreported(statement: ast.stmt) -> bool:
    return isinstance(statement, (ast.Global, ast.Nonlocal))


def _suites(statement: ast.stmt) -> list[tuple[ast.AST, str]]:
    """The (node, field) pairs that hold the statement's suites."""
    found: list[tuple[ast.AST, str]] = [
        (statement, field)
        for field in ("body", "orelse", "finalbody")
        if getattr(statement, field, None)
    ]
    holders = [*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]
    return found + [(holder, "body") for holder in holders]


def _bind(code: types.CodeType, meant: dict[Any, Any]) -> types.CodeType:
    """Put objects in their stand-ins' places: a constant loads faster than a name."""
    constants: list[object] = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            constants.append(_bind(constant, meant))
        elif isinstance(constant, (str, frozenset)):
            constants.append(meant.get(constant, constant))
        else:
            constants.append(constant)
    return code.replace(co_consts=tuple(constants))


def _make_probe(statement: ast.stmt, slot: int, first_line: int) -> ast.stmt:
    if HAS_MONITORING:
        line = first_line + slot
        return ast.Pass(lineno=line, end_lineno=line, col_offset=0, end_col_offset=4)
    place: dict[str, Any] = {
        "lineno": statement.lineno,
        "end_lineno": statement.lineno,
        "col_offset": statement.col_offset,
        "end_col_offset": statement.col_offset,
    }
    # if pending[slot]: map[slot] = 1; pending[slot] = False
    # The interpreter has an instruction of its own for a list's item, not for the map's.
    index = ast.Constant(value=len(_PENDING) + slot, **place)
    pending = ast.Constant(value=_PENDING, **place)
    done = ast.Subscript(value=pending, slice=index, ctx=_STORE, **place)
    hit = ast.Subscript(
        value=ast.Constant(value=_MAP, **place),
        slice=ast.Constant(value=slot, **place),
        ctx=_STORE,
        **place,
    )
    return ast.If(
        test=ast.Subscript(value=pending, slice=index, ctx=_LOAD, **place),
        body=[
            ast.Assign(targets=[hit], value=ast.Constant(value=1, **place), **place),
            ast.Assign(targets=[done], value=ast.Constant(value=False, **place), **place),
        ],
        orelse=[],
        **place,
    )
