"""The labels of bytes a second time: slowly, by characters, with no code of the package."""

import ast
import re


class Slow:
    """Labels read aloud from METHOD's rules, one character at a time.

    The text is first written over so that strings and comments hold no character that means
    anything: strings by the extents of the nodes that hold them, comments by what is left.
    Then a header ends at the first colon outside brackets and lambdas.
    """

    def __init__(self, source, executed):
        self.source, self.executed = source.removeprefix("\ufeff"), executed
        self.lines = re.split(r"\r\n|\r|\n", self.source)
        self.tree = ast.parse(self.source)
        self.starts, at = [], 0
        for line in self.lines:
            self.starts.append(at)
            at += len(line)
            at += 2 if self.source.startswith("\r\n", at) else 1
        self.plain = list(self.source)
        self.comments = []
        for node in ast.walk(self.tree):
            is_text = isinstance(node, ast.JoinedStr) or (
                isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
            )
            if is_text:
                for i in range(self.at(node), self.end(node)):
                    if self.plain[i] not in "\r\n":
                        self.plain[i] = "s"
        i = 0
        while i < len(self.plain):
            if self.plain[i] == "#":
                begin = i
                while i < len(self.plain) and self.plain[i] not in "\r\n":
                    self.plain[i] = " "
                    i += 1
                self.comments.append((begin, i))
            i += 1
        self.kept = [None] * len(self.source)

    def offset(self, line, column):
        text = self.lines[line - 1].encode()[:column].decode()
        return self.starts[line - 1] + len(text)

    def at(self, node):
        return self.offset(node.lineno, node.col_offset)

    def end(self, node):
        return self.offset(node.end_lineno, node.end_col_offset)

    def begin(self, node):
        """Where a node begins, its decorators included."""
        for decorator in getattr(node, "decorator_list", [])[:1]:
            start = self.at(decorator)
            while self.plain[start] != "@":
                start -= 1
            return start
        return self.at(node)

    def case(self, case):
        """Where the word `case` stands."""
        start = self.at(case.pattern)
        while "".join(self.plain[start : start + 4]) != "case":
            start -= 1
        return start

    def next_code(self, place):
        while self.plain[place].isspace() or self.plain[place] in ";\\":
            place += 1
        return place

    def ran(self, node):
        """It, or anything inside it."""
        return any(
            isinstance(inner, ast.stmt)
            and (inner.lineno, inner.col_offset) in self.executed
            for inner in ast.walk(node)
        )

    def set(self, start, stop, keep):
        for i in range(start, stop):
            self.kept[i] = keep

    def header_end(self, start):
        depth, lambdas, i = 0, [], start
        while True:
            text = self.plain[i]
            before = self.plain[i - 1] if i else " "
            is_word = not (before.isalnum() or before == "_")
            if is_word and re.match(r"lambda\b", "".join(self.plain[i : i + 7])):
                lambdas.append(depth)
            if text in "([{":
                depth += 1
            elif text in ")]}":
                depth -= 1
            elif text == ":" and lambdas and lambdas[-1] == depth:
                lambdas.pop()
            elif text == ":" and depth == 0:
                return i + 1
            i += 1

    def visit(self, suite, header):
        """A suite: its statements, then what is left of it."""
        ran = any(self.ran(node) for node in suite)
        if header is not None:
            self.set(*header, ran)
        for node in suite:
            self.statement(node, ran)
        return ran

    def statement(self, node, suite_ran):
        start = self.begin(node)
        bare = (
            isinstance(node, (ast.Pass, ast.Global, ast.Nonlocal))
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            or (isinstance(node, ast.AnnAssign) and node.value is None)
        )
        keep = suite_ran if bare else self.ran(node)
        if not hasattr(node, "body") and not isinstance(node, ast.Match):
            self.set(start, self.end(node), keep)
            return
        after_decorators = self.at(node)
        opens = self.header_end(after_decorators)
        self.set(start, opens, keep)
        if isinstance(node, ast.Match):
            for case in node.cases:
                begin = self.case(case)
                self.visit(case.body, (begin, self.header_end(begin)))
            return
        self.visit(node.body, None)
        last = node.body[-1]
        for handler in getattr(node, "handlers", []):
            place = self.at(handler)
            self.visit(handler.body, (place, self.header_end(place)))
            last = handler.body[-1]
        for suite, word in (
            (getattr(node, "orelse", []), "else"),
            (getattr(node, "finalbody", []), "finally"),
        ):
            if not suite:
                continue
            place = self.next_code(self.end(last))
            if "".join(self.plain[place : place + 4]) == "elif":
                self.statement(suite[0], False)
                return
            assert "".join(self.plain[place : place + len(word)]) == word
            self.visit(suite, (place, self.header_end(place)))
            last = suite[-1]

    def suites(self):
        """All lists of statements."""
        found = []
        for node in [self.tree, *ast.walk(self.tree)]:
            for field in ("body", "orelse", "finalbody"):
                suite = getattr(node, field, None)
                if isinstance(suite, list) and suite and isinstance(suite[0], ast.stmt):
                    found.append(suite)
        return found

    def labels(self):
        self.visit(self.tree.body, None)
        for i, text in enumerate(self.plain):
            if text == ";" and self.kept[i] is None:
                self.set(i, i + 1, self.separator(i))
        for start, stop in self.comments:
            if self.kept[start] is None:
                self.set(start, stop, self.comment(start))
        return self.kept

    def separator(self, i):
        """`;` goes with its suite: that of the statement before it."""
        best = None
        for suite in self.suites():
            for node in suite:
                if self.end(node) <= i and (best is None or self.end(node) >= best[0]):
                    # Of those that end together the innermost: it begins last.
                    key = (self.end(node), self.at(node))
                    if best is None or key >= best[:2]:
                        best = (*key, any(map(self.ran, suite)))
        return best[2]

    def comment(self, start):
        row = max(r for r, begin in enumerate(self.starts) if begin <= start)
        before = "".join(self.plain[self.starts[row] : start])
        if before.strip():
            i = start - 1
            while self.plain[i].isspace() or self.plain[i] in ";\\":
                i -= 1
            return self.kept[i]
        return self.innermost(start, len(before.encode()))

    def innermost(self, start, column):
        """Walk down: the open suite at this place that is indented the deepest, but not
        deeper than the comment."""
        found = any(self.ran(node) for node in self.tree.body)
        for opens, closes, indent, ran in sorted(self.open_blocks()):
            if opens <= start < closes and indent <= column:
                found = ran
        return found

    def open_blocks(self):
        blocks = []

        def look(suite, opens, closes, is_elif=False):
            first = self.begin(suite[0])
            row = max(r for r, begin in enumerate(self.starts) if begin <= first)
            before = self.plain[self.starts[row] : first]
            if not is_elif and not "".join(before).strip() and self.starts[row] >= opens:
                column = len("".join(before).encode())
                blocks.append((opens, closes, column, any(map(self.ran, suite))))
            for node, following in zip(suite, [*suite[1:], None]):
                end = closes
                if following is not None:
                    end = self.next_code(self.end(node))
                inside(node, end)

        def inside(node, closes):
            if isinstance(node, ast.Match):
                places = []
                for case in node.cases:
                    begin = self.case(case)
                    places.append((begin, self.header_end(begin), case.body))
            elif hasattr(node, "body"):
                begin = self.at(node)
                places = [(begin, self.header_end(begin), node.body)]
                for handler in getattr(node, "handlers", []):
                    begin = self.at(handler)
                    places.append((begin, self.header_end(begin), handler.body))
                for suite in (getattr(node, "orelse", []), getattr(node, "finalbody", [])):
                    if suite:
                        begin = self.next_code(self.end(places[-1][2][-1]))
                        places.append((begin, self.header_end(begin), suite))
            else:
                return
            ends = [begin for begin, _, _ in places[1:]] + [closes]
            for (begin, opens, suite), end in zip(places, ends):
                is_elif = (
                    "".join(self.plain[begin : begin + 4]) == "elif"
                    and isinstance(node, ast.If)
                    and begin == self.at(suite[0])
                )
                look(suite, begin if is_elif else opens, end, is_elif)

        look(self.tree.body, -1, len(self.source))
        return blocks


def slow_mask(source, executed):
    mark = [bool(executed)] * 3 if source.startswith("\ufeff") else []
    slow = Slow(source, executed)
    per_byte = [
        keep for text, keep in zip(slow.source, slow.labels()) for _ in text.encode()
    ]
    return mark + per_byte
