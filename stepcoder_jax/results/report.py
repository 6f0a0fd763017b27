"""Programs for a terminal, in colour where it has any."""

from __future__ import annotations

import os
import re
from typing import TextIO

import numpy as np

from stepcoder_jax.records import Program, Report, Verdict

RESET = "\x1b[0m"
# What the model was given, what its code ran, what it never ran.
GIVEN, RAN, IDLE = "\x1b[2m", "\x1b[32m", "\x1b[9;90m"
LEGEND = (
    f"{GIVEN}given{RESET}  {RAN}written, executed{RESET}  "
    f"{IDLE}written, never executed{RESET} (FGO drops it from the policy loss)"
)
WORDS = re.compile(r"\S(?:[^\n]*\S)?")
PLAIN_LEGEND = "| given   + executed   - never executed (FGO drops it)   ~ partly"


def wants_colour(stream: TextIO) -> bool:
    """Say whether to colour: a terminal, and NO_COLOR unset (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def verdict_line(report: Report, reward: float) -> str:
    """Return the verdict, the tests passed and the reward in one line."""
    passed = sum(test.verdict is Verdict.PASS for test in report.tests)
    told = next((f", {test.error}" for test in report.tests if test.error), "")
    message = f" ({report.message})" if report.message else told
    return (
        f"verdict: {report.verdict}{message}   "
        f"tests: {passed}/{len(report.tests)}   reward: {reward:+.2f}"
    )


# Control characters by their pictures; those that turn the direction of text, or end a line
# elsewhere than we do, by U+FFFD.
_HIDDEN = [0x7F, *range(0x80, 0xA0), 0x061C, *range(0x200B, 0x2010), 0xFEFF]
_HIDDEN += [*range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_HIDDEN += range(0xD800, 0xE000)  # halves of pairs, which no terminal takes
CONTROLS = dict.fromkeys(_HIDDEN, 0xFFFD) | {code: 0x2400 + code for code in range(0x20)}
CONTROLS |= {ord("\n"): ord("\n"), ord("\t"): ord("\t")}


def show_controls(text: str) -> str:
    """Return the text with control characters made visible: a program written by a model
    must not drive the terminal, nor show other code than it has.
    """
    return text.translate(CONTROLS)


def colour(program: Program, kept: np.ndarray, ansi: bool) -> str:
    """Return the program's source with given, executed and unexecuted code told apart.

    `kept` is bool per byte of the source (`fgo.byte_mask`). With `ansi` by colour, else by
    a mark before each line.
    """
    data = program.source.encode()
    style = np.where(np.arange(len(data)) < program.generated_from, 0, np.where(kept, 1, 2))
    if not ansi:
        return marked(data, style)
    parts = []
    for run in np.split(np.arange(len(data)), np.flatnonzero(np.diff(style)) + 1):
        if run.size:
            code = (GIVEN, RAN, IDLE)[style[run[0]]]
            text = show_controls(data[run[0] : run[-1] + 1].decode(errors="replace"))
            # Word to word within a line: no style on indentations, none left open.
            parts.append(WORDS.sub(rf"{code}\g<0>{RESET}", text))
    return "".join(parts)


def marked(data: bytes, style: np.ndarray) -> str:
    """Return the source with one mark before each line, by what its non-space bytes are."""
    lines, start = [], 0
    for line in data.split(b"\n"):
        kinds = {
            int(kind)
            for byte, kind in zip(line, style[start : start + len(line)])
            if not chr(byte).isspace()
        }
        mark = " " if not kinds else "~" if {1, 2} <= kinds else "|+-"[max(kinds)]
        lines.append(f"{mark} {show_controls(line.decode(errors='replace'))}".rstrip())
        start += len(line) + 1
    return "\n".join(lines)


def show(
    program: Program, report: Report, kept: np.ndarray, reward: float, ansi: bool
) -> str:
    """Return one rollout for a terminal: the program, its verdict line and the legend."""
    verdict = show_controls(verdict_line(report, reward))
    return "\n".join(
        [
            colour(program, kept, ansi).rstrip("\n"),
            verdict,
            LEGEND if ansi else PLAIN_LEGEND,
        ]
    )
