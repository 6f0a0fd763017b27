"""The fields that name files, folders or programs of this machine."""

from __future__ import annotations

import difflib
import functools
import os
import re
from typing import Any

from stepcoder_jax.config.ranges import Rules

# What ships with the package, by names in place of paths: problems and a warm start each.
SHIPPED = ("builtin", "guarded", "dialect")
PATHS = (
    *("run.folder", "run.compilation_cache", "model.checkpoint", "model.tokenizer"),
    *("data.path", "data.validation", "data.test", "sft.samples", "sft.records"),
    "evaluation.beside",
    *(
        "execution.python",
        "data.contexts",
        "data.profile",
        "reward.encoder",
        "reward.terms",
        "reward.rlcf_discriminator",
        "coderl.critic",
    ),
)


def is_url(text: str) -> bool:
    """Whether a text is `scheme://...`, which as a path makes a folder named `scheme:`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def has_problems(path: str) -> bool:
    """Whether a problem set is there: a file, a folder, or FOLDER:SPLIT."""
    folder, colon, _ = path.rpartition(":")
    return os.path.exists(path) or bool(colon and os.path.isdir(folder))


def meant(path: str) -> str:
    """What is said of a path that is not there, but nearly a name of SHIPPED."""
    near = difflib.get_close_matches(path, SHIPPED, 1)
    return f"did you mean {near[0]}? " if near else ""


def absolute_paths(tree: dict[str, Any]) -> dict[str, Any]:
    """The config as nested dicts with its paths made absolute, from the present folder."""
    found = dict(tree)
    for section, _, name in (path.partition(".") for path in PATHS):
        value = found.get(section, {}).get(name)
        if name == "terms" and value:  # those that are no FILE.py:FUNCTION are names
            found[section] = found[section] | {
                name: [_absolute(term) if ".py:" in term else term for term in value]
            }
        # an interpreter may be one on PATH
        elif value and (name != "python" or os.sep in value):
            found[section] = found[section] | {name: _absolute(value)}
    return found


def _absolute(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_absolute(item) for item in value]
    return value if value in SHIPPED or is_url(value) else os.path.abspath(value)


def look_up(config: Any, name: str) -> Any:
    """The value of the field with this dotted name."""
    return functools.reduce(getattr, name.split("."), config)


def put(config: Any, name: str, value: Any) -> None:
    """Set the field with this dotted name; a list, as JSON has it, becomes a tuple."""
    section, _, field = name.rpartition(".")
    owner = look_up(config, section) if section else config
    setattr(owner, field, tuple(value) if isinstance(value, list) else value)


def rules(config: Any) -> Rules:
    """Of each path: it is none of another machine."""
    for name in PATHS:
        value = look_up(config, name)
        texts = value if isinstance(value, tuple) else (value,)
        yield name, not any(map(is_url, texts)), "a path of this machine, and no URL"
