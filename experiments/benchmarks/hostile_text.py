"""What a hostile text costs outside the sandbox, for each function that is given one.

python experiments/benchmarks/hostile_text.py [--large BYTES] [--all]

Prints a Markdown row per function: CPU milliseconds of this thread for 10 kB and for 40 kB
of the text that is the slowest for it, the ratio, and the text. Linear work has a ratio of
4; a text beyond a limit (syntax.MAX_LINE ...) costs nothing more. Texts repeat a unit of
digits, signs, dots, quotes, `#`, `:`, brackets and line ends up to their size; programs are
units that parse. Expected: about 50 ms per 10 kB at most, ratios of 8 at most.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator

import numpy as np

from stepcoder_jax import syntax
from stepcoder_jax.config import FGOConfig, ModelConfig
from stepcoder_jax.execution.crossing import values
from stepcoder_jax.execution.judging import grading, verdicts
from stepcoder_jax.execution.pool import cache
from stepcoder_jax.feedback import answers, evidence, fgo, painting, prompts, turns
from stepcoder_jax.records import (
    Attempt,
    Mode,
    Position,
    Problem,
    Program,
    Report,
    Task,
    TestCase,
    TestResult,
    Verdict,
)
from stepcoder_jax.results import report, taxonomy
from stepcoder_jax.runs.disk.sources import load_tokenizer
from stepcoder_jax.similarity.codebleu import _count, codebleu
from stepcoder_jax.similarity.embedders import fit_tfidf
from stepcoder_jax.similarity.lexemes import overlap

SMALL = 10_000  # bytes
ATOMS = [*"1+-.e'\"#:;()[]{}\n\\@ _x", "'''", "1.", "0x", "\\\n", "# : '\n", "é", "\x1b["]
WORDS = ["takes ", "argument ", "Error: ", "```\n", "\r", "\u2028", "1.5 ", "-1e9\n"]
# Each parses however often it is repeated.
STATEMENTS = [
    "x\n",
    "# c\n",
    "x = '#'; y = ':'\n",
    "if a == '#':\n    # : '\n    b\n# c\nelif a:\n    pass  # d\nelse: c; d\n",
    "@a(  # @\n)\n# @\ndef f(a={':': '#'}): return lambda: '#'\n",
    "x = [\n'#', # ]\n':' , (1), {1: 2}[1:],\n]\n",
    "try: a\nexcept (A  # :\n): b\nfinally: c\n",
    "x = '''\n# :\n'''\n",
    "a = b + c - d * e / f ** g(h, i[j:k], l.m)\n",
    "x = é = '日#' # 日\n",
    "if a: b = 1 if c else 2; d\n",
    "x = " + "-" * 100 + "1\n",
    "x = " + "(" * 60 + "1" + ")" * 60 + "\n",
]
REFERENCE = "def f(a, b):\n    return [a + c for c in b]\n"  # canonical: it is not hostile
TESTS = (TestCase("", "1.5"),)
PROBLEM = Problem(*("p", "", "", "", None, Mode.STDIN_MAIN, TESTS, ""), visible_tests=TESTS)
Case = Callable[[str], Callable[[], object]]


def texts() -> Iterator[tuple[str, str, str]]:
    """(opening, unit, end) of texts that need not mean anything."""
    rng = random.Random(0)
    for unit in [*ATOMS, *WORDS]:
        yield "", unit, "x"
    for _ in range(30):
        parts = rng.choices(ATOMS + WORDS, k=rng.randint(2, 4))
        yield rng.choice(ATOMS), "".join(parts), rng.choice(ATOMS)


def programs() -> Iterator[tuple[str, str, str]]:
    """The same of texts that are programs."""
    for unit in STATEMENTS:
        yield "", unit, ""
    chain = "elif a == '#':\n    # : \"\n    b\n"
    yield "if a: b\n", chain * 12 + "else: c\nif a: b\n", "pass\n"
    nested = "".join(f"{' ' * i}if a:  # {i}\n" for i in range(40)) + " " * 40 + "b\n"
    yield "", nested + "".join(f"{' ' * i}# {i}\n" for i in reversed(range(40))), ""


def make_text(shape: tuple[str, str, str], size: int) -> str:
    """About `size` bytes: the unit as often as it fits."""
    opening, unit, end = shape
    count = size // len(unit.encode())
    return opening + unit * count + end


def grade(text: str) -> Callable[[], object]:
    return lambda: grading.stdout_matches(text, "1.5\n" * 3)


def grade_alike(text: str) -> Callable[[], object]:
    return lambda: grading.stdout_matches(text, text + ".5")


def decode_value(text: str) -> Callable[[], object]:
    data = text.encode()

    def run() -> None:
        for wrapped in (data, b'["l",' + data + b"]", b"[" * len(data)):
            with contextlib.suppress(values.ValueCodecError):
                values.decode(wrapped)

    return run


def name_bug(text: str) -> Callable[[], object]:
    result = TestResult(Verdict.RUNTIME, "TypeError", stderr=f"TypeError: {text}")
    seen = Report(Verdict.RUNTIME, (result,), frozenset())
    return lambda: (taxonomy.bug_of(seen), taxonomy.differ_in_form(text, text + "1"))


def decode_tokens(text: str) -> Callable[[], object]:
    data = b"".join(bytes([byte, 0xFF][: 1 + byte % 2]) for byte in text.encode())
    pieces = [data[i : i + 3] for i in range(0, len(data), 3)]
    task = Task(PROBLEM, 0, 0, "")
    return lambda: prompts.program_of(task, pieces, b"```")


def find_fence(text: str) -> Callable[[], object]:
    data = text.encode()
    return lambda: prompts.closing_fence(data, b"```")


def tokenize(text: str) -> Callable[[], object]:
    return lambda: prompts.completion_ids(text, TOKENIZER, TABLE)


def judge_key(text: str) -> Callable[[], object]:
    return lambda: cache.ProgramKeys().of(Program(PROBLEM, text, 0, ()))


def read_syntax(text: str) -> Callable[[], object]:
    def run() -> None:
        tree = syntax.parse(text)
        if tree is not None:
            syntax.tokens(text.encode(), tree)

    return run


def judged(text: str) -> tuple[Program, Report]:
    """A program of which every other statement and expression ran."""
    tree = syntax.parse(text)
    nodes = list(ast.walk(tree)) if tree else []
    places = [(n.lineno, n.col_offset) for n in nodes if isinstance(n, ast.stmt)]
    expressions: dict[Position, bool] = {}
    for number, node in enumerate(nodes):
        if isinstance(node, ast.expr) and node.end_lineno and node.end_col_offset:
            place = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
            expressions[place] = number % 2 == 0
    size = len(text.encode())
    spans = tuple((i, min(i + 3, size)) for i in range(0, size, 3))
    seen = Report(Verdict.WRONG, (), frozenset(places[::2]), expressions=expressions)
    return Program(PROBLEM, text, 0, spans), seen


def label(text: str) -> Callable[[], object]:
    program, seen = judged(text)
    return lambda: fgo.label(program, seen, FGOConfig())


def paint(text: str) -> Callable[[], object]:
    _, seen = judged(text)
    return lambda: painting.label_bytes(text, seen)


def check_labels(text: str) -> Callable[[], object]:
    _, seen = judged(text)
    return lambda: evidence.bytes_that_ran(text, seen)


def show(text: str) -> Callable[[], object]:
    program, seen = judged(text)
    kept = np.arange(len(text.encode())) % 7 < 3
    return lambda: [report.show(program, seen, kept, 1.0, ansi) for ansi in (True, False)]


def read_note(text: str) -> Callable[[], object]:
    return lambda: verdicts._read_note(text.encode())


def read_answer(text: str) -> Callable[[], object]:
    ids = list(text.encode())
    table = [bytes([byte]) for byte in range(256)]
    before = (Attempt("", Verdict.WRONG, 0, ""),)
    task = Task(PROBLEM, 0, 0, "", before)
    return lambda: answers.read(task, ids, table, "```")


def tell_failures(text: str) -> Callable[[], object]:
    program = Program(PROBLEM, text, 0, ())
    reports = [
        Report(
            verdict,
            (TestResult(verdict, "E", 1, stdout=text, stderr=f"E: {text}", got=text),),
            frozenset(),
            text,
        )
        for verdict in (Verdict.WRONG, Verdict.RUNTIME, Verdict.COMPILE)
    ]
    return lambda: [turns.attempt_of(program, seen, 1.0) for seen in reports]


def compare_programs(text: str) -> Callable[[], object]:
    return lambda: syntax.is_same(text, text + "\n")


def score_programs(text: str) -> Callable[[], object]:
    def run() -> None:
        _count.cache_clear()
        codebleu(text, REFERENCE)

    return run


def compare_tokens(text: str) -> Callable[[], object]:
    return lambda: overlap(text, text + "\n")


def find_literals(text: str) -> Callable[[], object]:
    wanted = [ast.parse("['0', {1: -2}]", mode="eval").body]
    return lambda: syntax.holds_one_of(text, wanted)


def embed_text(text: str) -> Callable[[], object]:
    return lambda: fit_tfidf([text])([text])


CASES: dict[str, tuple[Case, bool]] = {  # with: does it want programs too
    "grading, what is expected is short": (grade, False),
    "grading, what is expected is alike": (grade_alike, False),
    "values.decode": (decode_value, False),
    "verdicts, note of an error": (read_note, False),
    "taxonomy.bug_of": (name_bug, False),
    "prompts.program_of": (decode_tokens, False),
    "prompts.closing_fence": (find_fence, False),
    "prompts.completion_ids": (tokenize, True),
    "cache.ProgramKeys": (judge_key, False),
    "syntax.parse and tokens": (read_syntax, True),
    "painting.label_bytes": (paint, True),
    "evidence.bytes_that_ran": (check_labels, True),
    "fgo.label": (label, True),
    "report.show": (show, True),
    "answers.read": (read_answer, False),
    "turns.attempt_of": (tell_failures, False),
    "syntax.is_same": (compare_programs, True),
    "codebleu": (score_programs, True),
    "lexemes.overlap": (compare_tokens, False),
    "embedders.fit_tfidf": (embed_text, False),
    "syntax.holds_one_of": (find_literals, True),
}
TOKENIZER = load_tokenizer(ModelConfig(tokenizer="builtin"))
TABLE = prompts.token_bytes(TOKENIZER)


def seconds(run: Callable[[], object], rounds: int) -> float:
    """CPU time of this thread, the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        started = time.thread_time()
        run()
        best = min(best, time.thread_time() - started)
    return best


def growth(
    case: Case, shape: tuple[str, str, str], large: int, rounds: int = 3
) -> tuple[float, float]:
    """Seconds for the small text and for the large one."""
    first, second = (
        seconds(case(make_text(shape, size)), rounds) for size in (SMALL, large)
    )
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--large", type=int, default=4 * SMALL, help="bytes")
    parser.add_argument("--all", action="store_true", help="a row for every text")
    args = parser.parse_args()
    gc.freeze()  # what the imports made is no garbage; to look it through is not this work
    print(f"| function | ms, {SMALL} B | ms, {args.large} B | ratio | unit of the text |")
    print("|---|---:|---:|---:|---|")
    for name, (case, wants_programs) in CASES.items():
        shapes = [*texts(), *(programs() if wants_programs else ())]
        rows = [(*growth(case, shape, args.large), shape[1][:30]) for shape in shapes]
        for small, large, unit in rows if args.all else [max(rows, key=lambda row: row[1])]:
            numbers = f"{1e3 * small:.2f} | {1e3 * large:.2f} | {large / small:.1f}"
            print(f"| {name} | {numbers} | {unit!r} |")


if __name__ == "__main__":
    main()
