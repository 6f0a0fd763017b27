"""What can be told of a command before anything that takes time is loaded.

Without JAX: it, weights and problems come after these checks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from stepcoder_jax.config import Config, ConfigError, is_url
from stepcoder_jax.config.paths import SHIPPED, has_problems, meant
from stepcoder_jax.data.problems import FOLDERS, WANTED
from stepcoder_jax.feedback.rewards.table import load_terms
from stepcoder_jax.models import hf_config, hf_folder

NEW_RUN = "add --run.resume to go on with the run in it, or choose another --run.folder"
_URL_FLAGS = ("--execution.url",)  # all other flags that could hold one take paths


def refuse_urls(argv: Sequence[str]) -> None:
    """Refuse `scheme://...` wherever a command takes a path; ConfigError names the flag."""
    flag = ""
    for word in argv:
        value = word
        if word.startswith("-"):
            flag, _, value = word.partition("=")
        if is_url(value) and flag not in _URL_FLAGS:
            raise ConfigError(
                f"{flag or 'argument'}: expected a path of this machine, got the URL "
                f"{value!r}; copy or mount what is there, and give the path"
            )


def check_config(config: Config) -> None:
    """Refuse files and folders of a config that cannot be read, or written to."""
    data, model = config.data, config.model
    if config.run.resume == "no":
        require_new_folder("run.folder", config.run.folder, NEW_RUN)
    if data.path not in SHIPPED:
        for name in ("path", "validation", "test"):
            require_problems(f"data.{name}", getattr(data, name))
    for name in ("samples", "records"):
        for file in getattr(config.sft, name):
            require_file(f"sft.{name}", file)
    for file in data.contexts:
        require_file("data.contexts", file)
    load_terms(config.reward.terms, config.execution.tests)
    if config.reward.encoder:
        require_folder("reward.encoder", config.reward.encoder)
    if model.checkpoint not in ("", *SHIPPED):
        folder = require_folder("model.checkpoint", model.checkpoint)
        hf_config.read_shape(folder)
        hf_folder.find_weights(folder)
    check_tokenizer("model.tokenizer", model.tokenizer or model.checkpoint)
    python = config.execution.python
    if python and shutil.which(python) is None:
        raise ConfigError(f"execution.python: {python} is no program that can be run")


def check_tokenizer(name: str, path: str) -> None:
    """Refuse a tokenizer that is not there; "" is none."""
    if path not in ("", *SHIPPED):
        hf_folder.require_tokenizer(name, require_folder(name, path))


def require_problems(name: str, path: str) -> None:
    """Refuse a problem set that is not there: a file, a folder, or FOLDER:SPLIT."""
    if path and not has_problems(path):
        said = f"{name}: {path} does not exist; {meant(path)}expected {WANTED}, {FOLDERS}"
        raise ConfigError(said)
    if os.path.isfile(path):
        require_file(name, path)


def require_file(name: str, path: str) -> None:
    """Refuse what is no readable file."""
    if os.path.isdir(path):
        raise ConfigError(f"{name}: {path} is a folder; expected a file")
    if not os.path.exists(path):
        raise ConfigError(f"{name}: {path} does not exist; expected a file")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{name}: {path} may not be read; change its mode (chmod u+r)")


def require_folder(name: str, path: str) -> Path:
    """The folder; ConfigError where there is none."""
    if not os.path.isdir(path):
        got = "is a file" if os.path.exists(path) else "does not exist"
        raise ConfigError(
            f"{name}: {path} {got}; {meant(path)}expected a folder (nothing is downloaded)"
        )
    return Path(path)


def require_new_folder(
    name: str, path: str | Path, mend: str = "give a new or an empty folder"
) -> None:
    """Refuse a folder that holds anything, or that cannot be made; makes nothing."""
    path = Path(path)
    if path.is_dir() and os.access(path, os.R_OK) and any(path.iterdir()):
        raise ConfigError(f"{name}: {path} is not empty; {mend}")
    parent = path if path.exists() else find_parent(path)
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return
    why = "may not be written to" if parent.is_dir() else "is a file, no folder"
    raise ConfigError(
        f"{name}: cannot write to {path} ({parent} {why}); choose another "
        f"--{name.removeprefix('--')}"
    )


def find_parent(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    return next(parent for parent in path.absolute().parents if parent.exists())
