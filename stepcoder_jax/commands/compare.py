"""`stepcoder compare RESULTS_A RESULTS_B ...`: paired differences over the same problems.

RESULTS is a folder of `stepcoder evaluate --out` or a file of results of `stepcoder judge`:
one object per sample, with `task_id`, `passed`, and, where ours, `result`, `difficulty` and
`weak`. Rows of another grader that has the first two will do: only who passed is asked. Or
it is a run: its after.json, the greedy verdicts on test problems at its end; before.json
of the same form can be named.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from stepcoder_jax.data.formats.rows import (
    DataError,
    require_object,
    stream_lines,
)
from stepcoder_jax.records import InputError
from stepcoder_jax.results import outcomes
from stepcoder_jax.results.estimates import (
    RESAMPLES,
    Difference,
    mcnemar,
    paired_difference,
)
from stepcoder_jax.results.judged import read_graded, read_outcome
from stepcoder_jax.results.outcomes import Outcome, Table, finite
from stepcoder_jax.results.refinement import Pair, pair, pair_table

RESULTS_FILE, RUN_FILE = "results.jsonl", "after.json"
SUMMARY_FILE, RUN_FILES = "results.json", ("after.json", "before.json")
RUN_CONFIGS = (
    "sft.json",
    "config.json",
)  # a finished SFT run has a model's config.json too
LENGTHS = ("max_prompt_length", "max_completion_length")
WANTED = "results of `stepcoder judge` or `stepcoder evaluate`, one JSON object per line"
_MOST_NAMED = 3
ResultsArg = Annotated[
    tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RESULTS")
]


@dataclasses.dataclass
class CompareOptions:
    """Compare judged samples of the same problems, each with the first: the paired
    differences of pass@k in points, their 95 % intervals and p-values (bootstrap over
    problems), and McNemar's exact p-value where each problem has one sample. Of results
    with --rounds also each round, and what was mended of what both failed first.

    stepcoder compare eval/before eval/after
    stepcoder compare runs/a/before.json runs/a runs/b
    stepcoder compare a_results.jsonl b_results.jsonl c_results.jsonl --k 1 10 --out table
    """

    results: ResultsArg
    """Folders of `stepcoder evaluate --out`, result files of `stepcoder judge`, or runs."""
    k: tuple[int, ...] = ()
    """Which pass@k; default: 1, 5, 10, 100 as far as the samples go."""
    unlike: bool = False
    """Compare although samples were drawn unlike, or tests are others."""
    common: bool = False
    """Compare on the problems that all have, where some are not in all."""
    seed: int = 0
    """Of the bootstrap."""
    out: str = ""
    """Also write OUT.md and OUT.json."""
    force: bool = False
    """Overwrite them."""


class Compared(NamedTuple):
    """One side against the first."""

    rows: list[Row]
    rounds: list[Pair]  # empty where there are none


class Row(NamedTuple):
    """One pass@k of one difficulty, before and after."""

    difficulty: str
    problems: int
    k: int
    before: float
    after: float
    difference: Difference
    mcnemar: float  # nan where problems have several samples


def compare(options: CompareOptions) -> int:
    """`stepcoder compare`; returns the exit code."""
    if len(options.results) < 2:
        raise InputError("RESULTS: expected two or more, to compare with the first")
    if options.seed < 0:
        raise InputError(f"--seed: expected 0 or more, got {options.seed}")
    check_out(options)
    sides = {path: read_side(path) for path in options.results}
    if len(sides) < len(options.results):
        raise InputError("RESULTS: the same file is given twice")
    sides = on_same_problems(sides, options.common)
    if not options.unlike:
        known = {path: read_decoding(Path(path)) for path in options.results}
        require_alike(known, () if options.common else ("problems_sha256",))
    ks = outcomes.choose_ks(fewest_samples(sides.values()), options.k)
    first, *others = sides
    compared = {
        path: Compared(
            compare_sides(sides[first], sides[path], ks, options.seed),
            pair(sides[first], sides[path], options.seed),
        )
        for path in others
    }
    text = describe(outcomes.names_of(list(sides)), compared)
    print(text)
    write(options, text, as_json(first, compared, options.seed))
    return 0


def check_out(options: CompareOptions) -> None:
    for path in out_files(options):
        if path.exists() and not options.force:
            raise InputError(
                f"--out: {path} exists; give another name, or --force to overwrite it"
            )


def out_files(options: CompareOptions) -> list[Path]:
    return [Path(options.out + suffix) for suffix in (".md", ".json") if options.out]


def read_side(name: str) -> list[Outcome]:
    """The outcomes of one RESULTS; DataError naming file, line and field."""
    path = find_file(Path(name))
    found: list[Outcome] = []
    for row in stream_lines(str(path), WANTED):
        try:
            if isinstance(row.value, list):
                found += [read_graded(value) for value in row.value]
            else:
                found.append(read_outcome(require_object(row)))
        except DataError as error:
            raise DataError(f"{path}: {row.place}: {error}; expected {WANTED}") from None
    if not found:
        raise DataError(f"{path}: has no rows; expected {WANTED}")
    try:
        outcomes.require_judged(found)
    except InputError as error:
        raise DataError(f"{path}: {error}") from None
    return found


def find_file(path: Path) -> Path:
    """The file of results that a folder stands for, of an evaluation or of a run."""
    if not path.is_dir():
        return path
    for name in (RUN_FILE, RESULTS_FILE):
        if (path / name).exists():
            return path / name
    if any((path / name).is_file() for name in RUN_CONFIGS):
        raise DataError(
            f"{path}: is a run that has no results yet: {RUN_FILE} comes at its end, with "
            f"evaluation.test_problems; or `stepcoder evaluate {path} --out DIR`"
        )
    return path / RESULTS_FILE


def read_decoding(path: Path) -> dict[str, Any]:
    """How the samples of one RESULTS were drawn, as far as it is kept beside them."""
    folder = path if path.is_dir() else path.parent
    if find_file(path).name == RESULTS_FILE:
        tree = _load(folder / SUMMARY_FILE)
        names = (*LENGTHS, "problems_sha256", "variant", "refine_all")
        found = {name: tree[name] for name in names if name in tree}
        found |= {"rounds": tree.get("rounds", 0)} if tree else {}
        return found | {
            f"sampling.{name}": value for name, value in tree.get("sampling", {}).items()
        }
    if find_file(path).name not in RUN_FILES:
        return {}
    config = next(filter(None, (_load(folder / name) for name in RUN_CONFIGS)), {})
    sections = config.get("config", {})
    lengths = {
        name: sections.get(section, {}).get(name)
        for name, section in zip(LENGTHS, ("prompt", "sampling"))
    }
    return {"sampling.temperature": 0.0, "rounds": 0} | {
        k: v for k, v in lengths.items() if v
    }


def _load(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    return tree if isinstance(tree, dict) else {}


def require_alike(known: Mapping[str, Mapping[str, Any]], about: Sequence[str]) -> None:
    """Refuse sides that are known to differ in how samples were drawn, or in `about`."""
    first, *others = known
    for path in others:
        shared = known[first].keys() & known[path].keys()
        drawn = sorted(name for name in shared if name != "problems_sha256")
        for name in (*drawn, *(name for name in about if name in shared)):
            ours, theirs = known[first][name], known[path][name]
            if ours != theirs:
                raise InputError(
                    f"RESULTS: drawn unlike: {name} is {ours} in {first} and {theirs} in "
                    f"{path}; --unlike compares them all the same"
                )


def on_same_problems(
    sides: Mapping[str, list[Outcome]], common: bool
) -> dict[str, list[Outcome]]:
    """The strong outcomes of the problems that all have; InputError for other ones."""
    kept = {path: outcomes.strong(found) for path, found in sides.items()}
    tasks = {path: dict.fromkeys(row.task for row in found) for path, found in kept.items()}
    first, *others = tasks
    for path in others:
        ours, theirs = tasks[first].keys(), tasks[path].keys()
        if ours != theirs and not common:
            raise InputError(
                f"RESULTS: the problems differ: {named(first, ours - theirs)}, "
                f"{named(path, theirs - ours)}; --common compares those that all have"
            )
    shared = set.intersection(*(set(found) for found in tasks.values()))
    if not shared:
        raise InputError("RESULTS: no problem is in all of them")
    return {
        path: [row for row in found if row.task in shared] for path, found in kept.items()
    }


def named(path: str, tasks: set[str]) -> str:
    """How many problems a side has alone, and some of them."""
    some = sorted(tasks)[:_MOST_NAMED]
    more = ", ..." if len(tasks) > len(some) else ""
    return f"{len(tasks)} only in {path}" + (f" ({', '.join(some)}{more})" if some else "")


def fewest_samples(sides: Any) -> dict[str, int]:
    """The least number of samples that each problem has on any side."""
    found: dict[str, int] = {}
    for side in sides:
        for task, (samples, _) in outcomes.counts(side).items():
            found[task] = min(samples, found.get(task, samples))
    return found


def compare_sides(
    before: Sequence[Outcome], after: Sequence[Outcome], ks: Sequence[int], seed: int
) -> list[Row]:
    """All pass@k by difficulty, "all" last; the first side's rows name the difficulty."""
    later = collections.defaultdict(list)
    for outcome in after:
        later[outcome.task].append(outcome)
    rows = []
    for name, chosen in outcomes.groups(before).items():
        tasks = outcomes.counts(chosen)
        new = [outcome for task in tasks for outcome in later[task]]
        for k in ks:
            old_scores = list(outcomes.problem_scores(chosen, k).values())
            new_scores = list(outcomes.problem_scores(new, k).values())
            rows.append(
                Row(
                    difficulty=name,
                    problems=len(tasks),
                    k=k,
                    before=sum(old_scores) / len(tasks),
                    after=sum(new_scores) / len(tasks),
                    difference=paired_difference(old_scores, new_scores, seed),
                    mcnemar=exact_p(chosen, new, old_scores, new_scores),
                )
            )
    return rows


def exact_p(
    before: Sequence[Outcome],
    after: Sequence[Outcome],
    old_scores: Sequence[float],
    new_scores: Sequence[float],
) -> float:
    """McNemar's p-value; nan unless each problem has one sample on both sides."""
    if len(before) != len(old_scores) or len(after) != len(new_scores):
        return math.nan
    changes = [new - old for old, new in zip(old_scores, new_scores, strict=True)]
    return mcnemar(gained=changes.count(1.0), lost=changes.count(-1.0))


def describe(names: Mapping[str, str], compared: Mapping[str, Compared]) -> str:
    """The tables, as Markdown; `names` has the first side first."""
    first = next(iter(names))
    parts = []
    for path, found in compared.items():
        rows = outcomes.markdown(table(found.rows, names[first], names[path]))
        parts.append(f"{path} compared with {first}:\n\n{rows}")
        if found.rounds:
            pairs = pair_table(found.rounds, names[first], names[path])
            parts.append(outcomes.markdown(pairs))
    if any(found.rounds for found in compared.values()):
        parts.append(
            "mended: of samples that both failed first, paired in their order; p exact of "
            "rounds by a sign test over problems, McNemar's where each has one sample."
        )
    closing = (
        "Intervals of 95 % and p by bootstrap over problems, p exact by McNemar; each row "
        "stands alone, with no correction for their number."
    )
    return "\n\n".join([*parts, closing])


def table(rows: Sequence[Row], before: str, after: str) -> Table:
    """Shares in percent, changes in points; "-" where something cannot be told."""
    head = ["", "problems", before, after, *outcomes.CHANGE]
    return [head] + [
        [
            f"pass@{row.k}, {row.difficulty}",
            str(row.problems),
            f"{100 * row.before:.1f}",
            f"{100 * row.after:.1f}",
            *outcomes.change_cells(row.difference, row.mcnemar),
        ]
        for row in rows
    ]


def as_json(first: str, compared: Mapping[str, Compared], seed: int) -> dict[str, Any]:
    """The same as numbers, shares in 0..1; null where something cannot be told."""
    return {
        "baseline": first,
        "seed": seed,
        "resamples": RESAMPLES,
        "comparisons": [
            {
                "results": path,
                "rows": [row_json(row) for row in found.rows],
                "rounds": [row_json(row) for row in found.rounds],
            }
            for path, found in compared.items()
        ],
    }


def row_json(row: Row | Pair) -> dict[str, Any]:
    fields = row._asdict() | row.difference._asdict()
    del fields["difference"]
    return {
        name: finite(value) if isinstance(value, float) else value
        for name, value in fields.items()
    }


def write(options: CompareOptions, text: str, tree: dict[str, Any]) -> None:
    """OUT.md and OUT.json."""
    try:
        for path, content in zip(out_files(options), (text, json.dumps(tree, indent=2))):
            path.write_text(content + "\n", encoding="utf-8")
            print(f"wrote {path}")
    except OSError as error:
        raise InputError(
            f"--out: {options.out}: cannot be written ({error.strerror})"
        ) from None
