"""What the syntax of a program says: its sub-trees, and which value goes where.

Without recursion. Both are multisets, so that the same twice counts twice.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections import Counter
from collections.abc import Iterable

from stepcoder_jax import syntax

Edge = tuple[int, str]  # the name that is read, and where its value goes

_IGNORED = ("ctx", "kind", "type_comment", "type_ignores")
_SIGNS = (ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
_BARE = (ast.Name, ast.Constant)  # nothing is below them
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
_BINDING = {ast.alias, *_BINDINGS}
_SINKING = {  # what a value that is read below them goes into
    *(ast.Assign, ast.AugAssign, ast.AnnAssign, ast.NamedExpr),
    *(ast.For, ast.AsyncFor, ast.comprehension, ast.withitem),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
}
_MOST_SINKS = 4  # names; of what binds more, the first


_A_NAME = hashlib.blake2b(repr(["Name", "_"]).encode(), digest_size=16).digest()
Below = dict[ast.AST, list[ast.AST]]


def nodes_below(tree: ast.Module) -> Below:
    """The nodes just below each node, breadth first: the module is the first key.

    Without the signs and the contexts, of which each is one object for the whole tree.
    """
    below: Below = {}
    nodes: list[ast.AST] = [tree]
    for node in nodes:  # grows while it is read
        below[node] = children = [] if isinstance(node, _BARE) else _below(node)
        nodes += children
    return below


def subtrees(below: Below) -> Counter[bytes]:
    """The sub-trees below the module that have a node below them; all names are blanked.

    A sub-tree is known by a digest of its class, its signs (`+`, `<`, `not`), its
    constants and the sub-trees in each of its fields. Of a name, an attribute or a keyword
    it is known that there is one.
    """
    digests: dict[ast.AST, bytes] = {}
    known: dict[str, bytes] = {}  # most of a program's sub-trees are there twice
    found: Counter[bytes] = Counter()
    for node, children in reversed(below.items()):  # what is below comes first
        if isinstance(node, ast.Name):
            digests[node] = (
                _A_NAME  # as it would come out below: half of a program is names
            )
            continue
        parts: list[object] = [type(node).__name__]
        for field in _kept(node._fields):
            value = getattr(node, field, None)
            if isinstance(value, list):
                parts.append(len(value))  # of a class whose fields are known
            for item in value if isinstance(value, list) else (value,):
                if not isinstance(item, ast.AST):
                    parts.append(_leaf(node, item))
                elif isinstance(item, _SIGNS):
                    parts.append(type(item).__name__)
                else:
                    parts.append(digests[item])
        text = repr(parts)
        digest = known.get(text) or hashlib.blake2b(text.encode(), digest_size=16).digest()
        known[text] = digests[node] = digest
        if children and not isinstance(node, ast.Module):
            found[digest] += 1
    return found


@functools.cache
def _kept(fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in fields if name not in _IGNORED)


def _below(node: ast.AST) -> list[ast.AST]:
    """The nodes just below a node that are no signs and no contexts, in their order."""
    found: list[ast.AST] = []
    for field in _kept(node._fields):
        value = getattr(node, field, None)
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return [item for item in found if not isinstance(item, _SIGNS)]


def _leaf(node: ast.AST, value: object) -> str:
    if isinstance(node, ast.Constant):
        return f"{type(value).__name__} {syntax.show_leaf(value)}"
    return "_" if isinstance(value, str) else syntax.show_leaf(value)


def def_use(below: Below) -> Counter[Edge]:
    """One edge for each time that a name of the program's own is read: (name, sink).

    The sink is what the value goes into: the names that the statement, the comprehension or
    `:=` around it binds, or else the class of the statement. Names that the program binds
    have the numbers of their first appearance in the tree, whatever the scope.
    """
    names: dict[str, int] = {}
    bound: set[str] = set()
    reads: list[tuple[str, tuple[str, ...]]] = []
    pending: list[tuple[ast.AST, tuple[str, ...]]] = [(next(iter(below)), ())]
    while pending:
        node, sink = pending.pop()
        kind = type(node)
        own = _bound(node) if kind in _BINDING else ()
        bound.update(own)
        if isinstance(node, ast.Name):
            own = (node.id,)
            if isinstance(node.ctx, ast.Load):
                reads.append((node.id, sink))
            else:
                bound.add(node.id)
        for name in own:
            names.setdefault(name, len(names))
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            reads.append((node.target.id, (node.target.id,)))
        if kind in _SINKING:
            sink = _sink(node, sink)
        elif issubclass(kind, ast.stmt):
            sink = (kind.__name__ + ":",)  # no name has a colon
        for child in reversed(below[node]):
            pending.append((child, sink))
    numbers = {name: number for number, name in enumerate(n for n in names if n in bound)}

    def number_of(name: str) -> str:
        return str(numbers.get(name, name))

    return Counter(
        (numbers[name], " ".join(map(number_of, sink)))
        for name, sink in reads
        if name in bound
    )


def _bound(node: ast.AST) -> tuple[str, ...]:
    """The names that a node binds by a field of its own."""
    if isinstance(node, ast.alias):
        return (node.asname or node.name.partition(".")[0],)
    name = getattr(node, _BINDINGS[type(node)])
    return (name,) if name else ()


def _sink(node: ast.AST, outer: tuple[str, ...]) -> tuple[str, ...]:
    """Where the values that are read below a node of _SINKING go."""
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
