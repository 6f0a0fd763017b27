"""Flags of a dataclass: each field is one."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any


def parse_flags(kind: type, argv: list[str], prog: str, default: Any) -> Any:
    """An instance of the dataclass `kind`: `default` with the flags' values."""
    import tyro

    from stepcoder_jax.config import ConfigError

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind, default=default, args=argv, prog=prog, use_underscores=True
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ConfigError(unbox(complaint.getvalue())) from None


def unbox(text: str) -> str:
    """The sections of tyro's boxed complaint in one line, without its closing advice."""
    sections = re.split(r"─{3,}", re.sub(r"╭[^╮]*╮|╰[^╯]*╯|│", " ", text))
    said = [" ".join(section.split()) for section in sections[: max(1, len(sections) - 1)]]
    return "; ".join([*said, "--help lists all flags"])


def fill_in(argv: list[str], flag: str, value: str) -> list[str]:
    """The flags, with `value` after each `flag` that stands without one."""
    filled = []
    for word, follower in zip(argv, [*argv[1:], "--"]):
        filled.append(word)
        if word == flag and follower.startswith("-"):
            filled.append(value)
    return filled
