"""Rewards of a user's own: FILE.py:FUNCTION, run once at the start, kept with the run.

What such a file does is the user's: it runs in the trainer's process, with all its rights.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from stepcoder_jax import own_code
from stepcoder_jax.config import ConfigError, split_term
from stepcoder_jax.feedback.rewards.terms import Reward

_MARK = ".py:"


def is_own(name: str) -> bool:
    """Whether a name is FILE.py:FUNCTION."""
    return _MARK in name


def split(name: str) -> tuple[Path, str]:
    """The file and the function."""
    file, _, function = name.rpartition(":")
    return Path(file), function


def files_of(texts: Sequence[str]) -> list[Path]:
    """The files of `reward.terms`, each once, in their order."""
    names = [split_term(text)[0] for text in texts]
    return list(dict.fromkeys(split(name)[0] for name in names if is_own(name)))


def load(name: str, file: Path) -> Reward:
    """The function of `name`, from `file`, which runs; ConfigError in one line."""
    function = split(name)[1]
    _require(file)
    try:
        module = _run(file.resolve(), digest(file))
    except (Exception, SystemExit) as error:
        said = own_code.describe(error, file)
        raise ConfigError(f"reward.terms: {said}") from error
    found = getattr(module, function, None)
    if not callable(found):
        got = "has none" if found is None else f"holds a {type(found).__name__}"
        raise ConfigError(
            f"reward.terms: expected a function {function} of (program, report, extras) in "
            f"{file}, which {got}"
        )
    reward: Reward = found
    return reward


@functools.cache
def _run(file: Path, digested: str) -> ModuleType:
    """The file as a module: run once, whoever asks for a function of it and how often."""
    return own_code.run(file, f"stepcoder_reward_{digested[:16]}")


def _require(file: Path) -> None:
    if not file.is_file():
        got = "is a folder" if file.is_dir() else "does not exist"
        raise ConfigError(f"reward.terms: {file} {got}; expected a Python file")


def digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def digests(texts: Sequence[str]) -> dict[str, str]:
    """File -> digest of the files of `reward.terms`: what hosts have to agree on."""
    files = files_of(texts)
    for file in files:
        _require(file)
    return {str(file): digest(file) for file in files}


def copies(files: Sequence[Path], folder: Path) -> Mapping[Path, Path]:
    """File -> its copy in a run's folder, of those that have one."""
    found = {file: folder / f"{i}_{file.name}" for i, file in enumerate(files)}
    return {file: copy for file, copy in found.items() if copy.is_file()}


def keep(texts: Sequence[str], folder: Path) -> None:
    """Copy the files into a run's folder; makes none where there is no file."""
    for number, file in enumerate(files_of(texts)):
        folder.mkdir(exist_ok=True)
        shutil.copyfile(file, folder / f"{number}_{file.name}")


def check_kept(texts: Sequence[str], folder: Path) -> None:
    """ConfigError for a file that is not what the run was begun with."""
    files = files_of(texts)
    known = copies(files, folder)
    for file, now in zip(files, digests(texts).values()):
        if file not in known:
            raise ConfigError(
                f"reward.terms: the run has no copy of {file} in {folder} to compare it "
                "with; put the one that it was begun with there, or start another "
                "run.folder"
            )
        then = digest(known[file])
        if then != now:
            raise ConfigError(
                f"reward.terms: {file} has changed since the run was begun (SHA-256 "
                f"{then[:12]}, now {now[:12]}); give it back as it is in {known[file]}, or "
                "start another run.folder"
            )
