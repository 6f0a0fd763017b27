"""What the syntax of a program says: its sub-trees, and which value goes where.

Without recursion. Both are multisets, so that the same twice counts twice.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from stepcoder_jax import syntax

Edge = tuple[int, str]  # the name that is read, and where its value goes

_IGNORED = ("ctx", "kind", "type_comment", "type_ignores")
_SIGNS = (ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
_NO_NODES = (*_SIGNS, ast.expr_context)
_BINDINGS = {  # fields that hold a name which the node binds
    ast.FunctionDef: "name",
    ast.AsyncFunctionDef: "name",
    ast.ClassDef: "name",
    ast.arg: "arg",
    ast.ExceptHandler: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
    ast.MatchMapping: "rest",
}
_MOST_SINKS = 4  # names; of what binds more, the first


def subtrees(tree: ast.Module) -> Counter[bytes]:
    """The sub-trees below the module that have a node below them; all names are blanked.

    A sub-tree is known by a digest of its class, its signs (`+`, `<`, `not`), its
    constants and the sub-trees in each of its fields. Of a name, an attribute or a keyword
    it is known that there is one.
    """
    digests: dict[ast.AST, bytes] = {}
    found: Counter[bytes] = Counter()
    for node in reversed(list(ast.walk(tree))):  # what is below comes first
        if isinstance(node, _NO_NODES):
            continue
        has_nodes, parts = False, [type(node).__name__]
        for field, value in _fields(node):
            items = value if isinstance(value, list) else [value]
            parts.append(f"{field}:{len(items)}")
            for item in items:
                if not isinstance(item, ast.AST):
                    parts.append(_leaf(node, item))
                elif isinstance(item, _SIGNS):
                    parts.append(type(item).__name__)
                else:
                    parts.append(digests[item].hex())
                    has_nodes = True
        text = "\n".join(parts).encode("utf-8", "surrogatepass")
        digests[node] = hashlib.blake2b(text, digest_size=16).digest()
        if has_nodes and node is not tree:
            found[digests[node]] += 1
    return found


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    return (pair for pair in ast.iter_fields(node) if pair[0] not in _IGNORED)


def _leaf(node: ast.AST, value: object) -> str:
    if isinstance(node, ast.Constant):
        return f"{type(value).__name__} {syntax.show_leaf(value)}"
    return "_" if isinstance(value, str) else syntax.show_leaf(value)


def def_use(tree: ast.Module) -> Counter[Edge]:
    """One edge for each time that a name of the program's own is read: (name, sink).

    The sink is what the value goes into: the names that the statement, the comprehension or
    `:=` around it binds, or else the class of the statement. Names that the program binds
    have the numbers of their first appearance in the tree, whatever the scope.
    """
    names: dict[str, int] = {}
    bound: set[str] = set()
    reads: list[tuple[str, tuple[str, ...]]] = []
    pending: list[tuple[ast.AST, tuple[str, ...]]] = [(tree, ())]
    while pending:
        node, sink = pending.pop()
        own = list(_bound(node))
        bound.update(own)
        if isinstance(node, ast.Name):
            own.append(node.id)
            if isinstance(node.ctx, ast.Load):
                reads.append((node.id, sink))
            else:
                bound.add(node.id)
        for name in own:
            names.setdefault(name, len(names))
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            reads.append((node.target.id, (node.target.id,)))
        sink = _sink(node, sink)
        pending += [(child, sink) for child in reversed(list(ast.iter_child_nodes(node)))]
    numbers = {name: number for number, name in enumerate(n for n in names if n in bound)}

    def number_of(name: str) -> str:
        return str(numbers.get(name, name))

    return Counter(
        (numbers[name], " ".join(map(number_of, sink)))
        for name, sink in reads
        if name in bound
    )


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a node binds by a field of its own."""
    if isinstance(node, ast.alias):
        yield node.asname or node.name.partition(".")[0]
    elif (field := _BINDINGS.get(type(node))) and (name := getattr(node, field)):
        yield name


def _sink(node: ast.AST, outer: tuple[str, ...]) -> tuple[str, ...]:
    """Where the values that are read below a node go."""
    match node:
        case ast.Assign(targets=targets):
            return _targets(targets)
        case (
            ast.AugAssign(target=target)
            | ast.AnnAssign(target=target)
            | ast.NamedExpr(target=target)
            | ast.For(target=target)
            | ast.AsyncFor(target=target)
            | ast.comprehension(target=target)
        ):
            return _targets([target])
        case ast.withitem(optional_vars=ast.expr() as target):
            return _targets([target])
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return (node.name,)
        case ast.stmt():
            return (f"{type(node).__name__}:",)  # no name has a colon
    return outer


def _targets(targets: Iterable[ast.expr]) -> tuple[str, ...]:
    """The first names that are bound, or whose items or attributes are."""
    pending, found = list(targets)[::-1], list[str]()
    while pending and len(found) < _MOST_SINKS:
        match pending.pop():
            case ast.Name(id=name):
                found.append(name)
            case ast.Tuple(elts=items) | ast.List(elts=items):
                pending += reversed(items)
            case (
                ast.Starred(value=value)
                | ast.Subscript(value=value)
                | ast.Attribute(value=value)
            ):
                pending.append(value)
    return tuple(found)
