"""What canonical solutions return for given arguments, found in the sandbox and kept.

EvalPlus publishes inputs without results: the canonical solution says them. All arguments
of a problem are one run of it, in which a driver behind the solution prints each result as
an encoded value (execution/crossing/values.py). They are kept beside the problem file, in
FILE.expected.json, by the problem's id and a digest of solution and arguments, so that what
was found for another version of either is never used. Of a very long text only length and
SHA-256 are kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.execution import PoolSettings, open_pool
from stepcoder_jax.execution.crossing import values
from stepcoder_jax.records import Mode, Problem, Program, Report, TestCase, Verdict

LONG_TEXT = 1 << 16  # characters
CPU_SECONDS = 60.0  # of one solution on all of its arguments
_DRIVER = """

def _print_results():
    import contextlib, hashlib, io, sys
    codec = {{"__name__": "codec"}}
    exec({codec!r}, codec)
    for arguments in codec["decode"](sys.stdin.read().encode()):
        with contextlib.redirect_stdout(io.StringIO()):
            result = {entry_point}(*arguments)
        if type(result) is str and len(result) > {long_text}:
            text = result.encode("utf-8", "surrogatepass")
            print('{{"sha256":"' + hashlib.sha256(text).hexdigest() + '"}}')
        else:
            print(codec["encode"]({result}).decode())

_print_results()
"""


class LongText(NamedTuple):
    """What is known of a very long text that is expected."""

    sha256: str  # of its UTF-8, lone surrogates included


class Asked(NamedTuple):
    """A canonical solution and the arguments of each call."""

    name: str  # the problem's id
    solution: str
    entry_point: str
    arguments: list[Any]  # a list or tuple of arguments per call
    is_none: bool = False  # whether the result is None is asked, not what it is

    def digest(self) -> str:
        about = (self.solution, self.entry_point, self.arguments, self.is_none)
        return hashlib.sha256(values.encode(about)).hexdigest()


def side_file(problem_file: str) -> Path:
    """Where results are kept: FILE.expected.json, beside the problem file."""
    return Path(f"{problem_file}.expected.json")


def find_results(
    problem_file: str, asked: Sequence[Asked], settings: PoolSettings
) -> dict[str, list[Any] | DataError]:
    """The results of each solution by the problem's id, or why it has none.

    From beside the file, else from a run of the solutions, which is kept there. Where that
    cannot be written it is said, and found again next time.
    """
    path = side_file(problem_file)
    kept = _read(path)
    found: dict[str, list[Any] | DataError] = {}
    missing = []
    for one in asked:
        entry = kept.get(one.name, {})
        if entry.get("of") == one.digest():
            found[one.name] = _decode(path, one, entry["results"])
        else:
            missing.append(one)
    if not missing:
        return found
    fresh = _run(missing, settings)
    for one in missing:
        answer = _read_results(one, fresh[one.name])
        found[one.name] = answer
        if not isinstance(answer, DataError):
            encoded = [json.loads(_encode(result)) for result in answer]
            kept[one.name] = {"of": one.digest(), "results": encoded}
    _write(path, kept)
    return found


def _run(asked: Sequence[Asked], settings: PoolSettings) -> dict[str, Report]:
    settings = dataclasses.replace(
        settings,
        coverage="none",
        cache_size=0,
        text_kept=settings.output_mb << 20,
    )
    programs = [_program(one) for one in asked]
    reports: dict[str, Report] = {}
    with (
        open_pool(settings) as pool,
        tqdm(total=len(asked), desc="expected values", unit="solution") as bar,
    ):
        for index, report in pool.stream(programs):
            reports[asked[index].name] = report
            bar.update()
    return reports


def _program(asked: Asked) -> Program:
    codec = Path(values.__file__).read_text(encoding="utf-8")
    driver = _DRIVER.format(
        codec=codec,
        entry_point=asked.entry_point,
        long_text=LONG_TEXT,
        result="result is not None" if asked.is_none else "result",
    )
    given = values.encode(asked.arguments).decode()
    problem = Problem(
        id=asked.name,
        statement="",
        starter_code="",
        solution=asked.solution,
        entry_point=None,
        mode=Mode.STDIN_MAIN,
        tests=(TestCase(given, ""),),
        difficulty="",
        cpu_seconds=CPU_SECONDS,
    )
    return Program(problem, asked.solution + driver, 0, ())


def _read_results(asked: Asked, report: Report) -> list[Any] | DataError:
    """What a solution printed; an error that names the call that it broke off in."""
    (test,) = report.tests
    lines = test.stdout.splitlines()
    if report.verdict in (Verdict.PASS, Verdict.WRONG) and len(lines) == len(
        asked.arguments
    ):
        try:
            return [decode_result(line) for line in lines]
        except values.ValueCodecError as error:
            return DataError(f"field canonical_solution: {error}")
    if report.verdict is Verdict.INFRA:
        return DataError(
            f"field canonical_solution: the sandbox failed on it ({report.message}); try "
            "again, `stepcoder doctor` tells what is missing"
        )
    why = " ".join(filter(None, [str(report.verdict), test.error, report.message]))
    return DataError(
        f"field canonical_solution: gives no expected value for input {len(lines)} of "
        f"{len(asked.arguments)} ({why}), so the inputs judge nothing; mend it, or "
        "take the row out"
    )


def _encode(result: Any) -> bytes:
    if isinstance(result, LongText):
        return json.dumps(result._asdict()).encode()
    return values.encode(result)


def decode_result(line: str) -> Any:
    """A result as it is printed and kept; ValueCodecError for anything else."""
    if not line.startswith("{"):
        return values.decode(line.encode())
    found = re.fullmatch(r'\{"sha256": ?"([0-9a-f]{64})"\}', line)
    if found is None:
        raise values.ValueCodecError("an object that is no digest of a text")
    return LongText(found[1])


def _decode(path: Path, asked: Asked, results: Any) -> list[Any]:
    try:
        found = [decode_result(json.dumps(result)) for result in results]
    except (values.ValueCodecError, TypeError) as error:
        raise DataError(f"{path}: {asked.name}: {error}; remove the file") from None
    if len(found) != len(asked.arguments):
        raise DataError(
            f"{path}: {asked.name}: expected {len(asked.arguments)} results, got "
            f"{len(found)}; remove the file"
        )
    return found


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it") from None
    good = isinstance(kept, dict) and all(
        isinstance(entry, dict) and entry.keys() == {"of", "results"}
        for entry in kept.values()
    )
    if not good:
        raise DataError(
            f"{path}: expected {{problem id: {{of, results}}}}; remove the file, and the "
            "results are found again"
        )
    return dict(kept)


def _write(path: Path, kept: dict[str, dict[str, Any]]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(kept) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        print(f"{path}: expected values not kept ({error.strerror})", file=sys.stderr)
