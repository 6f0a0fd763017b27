"""Rollouts for a browser: columns for the table, and the rest in compressed chunks.

A chunk is JSON, gzipped, in base64; the page opens one when a rollout of it is looked at.
Numbers of tokens are whole: thousandths of values and advantages, hundredths of a nat of
logprobs. Text is capped.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepcoder_jax.records import Verdict, order_difficulties

CHUNK = 128  # rollouts
MOST_TEXT = 1 << 16  # characters of one text; a run's own are far shorter
_MOST_TURNS, _MOST_SHOWN, _MOST_TESTS = 16, 16, 256
_COLUMNS = (
    *("run", "step", "problem", "stage", "verdict", "reward", "tokens", "masked"),
    *("passed", "tests", "valid", "truncated"),
)
VERDICTS = [str(verdict) for verdict in Verdict]


def pack(value: Any) -> str:
    """A JSON value, gzipped, in base64; equal values give equal texts.

    nan and inf, which Python reads and no browser does, become null.
    """
    try:
        data = _to_json(value)
    except ValueError:
        whole = json.dumps(value)
        data = _to_json(json.loads(whole, parse_constant=lambda name: None))
    return base64.b64encode(gzip.compress(_encode(data), 6, mtime=0)).decode()


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _encode(text: str) -> bytes:
    """UTF-8, with U+FFFD for the halves of pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


class Packer:
    """Takes rollouts in one after the other; `index` and `chunks` are what came of them."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self.problems: dict[str, int] = {}
        self.difficulties: list[str] = []
        self.chunks: list[str] = []
        self._open: list[dict[str, Any]] = []

    def add(self, run: int, step: int, row: Mapping[str, Any]) -> None:
        """One rollout of a run, as `reading.check_row` gives it."""
        problem = self.problems.setdefault(row["problem"], len(self.problems))
        if problem == len(self.difficulties):
            self.difficulties.append(_difficulty(row))
        executed = row.get("executed", ())
        tests = row["tests"]
        cells = {
            **{"run": run, "step": step, "problem": problem, "stage": row["stage"]},
            "verdict": VERDICTS.index(row["verdict"]),
            "reward": round(row["reward"], 3),
            "tokens": len(row["spans"]),
            "masked": sum(not flag for flag in executed),
            "passed": tests.count("pass"),
            "tests": len(tests),
            "valid": int(row.get("valid", True) is True),
            "truncated": int(row.get("truncated", False) is True),
        }
        for name, cell in cells.items():
            self.columns[name].append(cell)
        self._open.append(_details(row))
        if len(self._open) == CHUNK:
            self._close()

    def _close(self) -> None:
        self.chunks.append(pack(self._open))
        self._open = []

    def finish(self) -> dict[str, Any]:
        """Close the last chunk; what the table of rollouts needs."""
        if self._open:
            self._close()
        return {
            **{"chunk": CHUNK, "columns": self.columns, "verdicts": VERDICTS},
            "problems": list(self.problems),
            "difficulties": self.difficulties,
            "order": order_difficulties(self.difficulties),
        }

    @property
    def count(self) -> int:
        return len(self.columns["run"])


def _difficulty(row: Mapping[str, Any]) -> str:
    """Older rows have it in the problem's name at most."""
    if isinstance(row.get("difficulty"), str):
        return str(row["difficulty"])[:MOST_TEXT]
    parts = row["problem"].split("/")
    return next((part for part in parts if part in _KNOWN), "unknown")


_KNOWN = ("introductory", "interview", "competition", "easy", "medium", "hard")


def _details(row: Mapping[str, Any]) -> dict[str, Any]:
    """What one rollout's page shows beside its cells in the table."""
    tests = row["tests"][:_MOST_TESTS]
    found = {
        "head": _text(row["head"]),
        "completion": _text(row["completion"]),
        "tests": [_text(test)[:10] for test in tests],
        "message": _text(row.get("message")),
        **_spans(row["spans"]),
        "executed": "".join("01"[bool(x)] for x in row.get("executed", ())),
    }
    for name, scale in (("logprobs", 100), ("advantages", 1000), ("values", 1000)):
        if row.get(name):
            found[name] = [round(x * scale) for x in row[name]]
    if explanation := _text(row.get("explanation")):
        explained = row.get("explained")
        found["explanation"] = explanation
        found["explained"] = explained if type(explained) is int else 0
    rewards = row.get("rewards")
    found["rewards"] = rewards if _is_pairs(rewards) else _at_the_end(row)
    found["shown"] = _records(row.get("shown"), _MOST_SHOWN)
    found["turns"] = _records(row.get("turns"), _MOST_TURNS)
    return found


def _text(value: Any) -> str:
    return str(value)[:MOST_TEXT] if isinstance(value, str) else ""


def _spans(spans: Sequence[Sequence[int] | None]) -> dict[str, Any]:
    """The first byte of the first token, and of each how many bytes it has.

    -1 stands for a token outside the code. Where a token does not begin where the one
    before it ends, "gaps" has its number and the bytes between.
    """
    begin = next((span[0] for span in spans if span is not None), 0)
    end, sizes, gaps = begin, [], []
    for number, span in enumerate(spans):
        if span is None:
            sizes.append(-1)
            continue
        if span[0] != end:
            gaps.append([number, span[0] - end])
        sizes.append(span[1] - span[0])
        end = span[1]
    return {"begin": begin, "sizes": sizes, "gaps": gaps}


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and type(pair[0]) is int
        and isinstance(pair[1], (int, float))
        for pair in value
    )


def _at_the_end(row: Mapping[str, Any]) -> list[list[Any]]:
    """Of an older row: all of its reward was on its last token."""
    return [[len(row["spans"]) - 1, row["reward"]]] if row["spans"] else []


def _records(value: Any, most: int) -> list[dict[str, Any]]:
    """Flat objects of texts and numbers; anything else is left out."""
    rows: Iterable[Any] = value if isinstance(value, list) else ()
    return [
        {
            str(name)[:64]: _text(x) if isinstance(x, str) else x
            for name, x in row.items()
            if x is None or isinstance(x, (str, int, float))
        }
        for row in list(rows)[:most]
        if isinstance(row, dict)
    ]
