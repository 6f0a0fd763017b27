"""An experiment: a Python file whose `get_config(arg="")` returns a Config.

It may have OF_TEXT, the args (without what stands behind an @) that learn supervised text:
these are for `stepcoder sft` alone.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from stepcoder_jax import own_code
from stepcoder_jax.config import Config, ConfigError


def load_experiment(name: str, command: str = "") -> Config:
    """The config of `FILE.py` or `FILE.py:arg`, for this command.

    Raises ConfigError, one line with file and line, for whatever goes wrong in the file,
    and for an arg that is for another command.
    """
    file, _, arg = name.partition(":")
    path = Path(file)
    if not path.is_file():
        got = "is a folder" if path.is_dir() else "is no file"
        raise ConfigError(
            f"EXPERIMENT: expected a Python file with get_config(), got {file!r}, which "
            f"{got}; the repository's are in experiments/"
        )
    with _told_in_one_line(path), _its_folder_importable(path):
        module = own_code.run(path, "stepcoder_experiment")
        if not hasattr(module, "get_config"):
            raise ConfigError(f'{path} has no get_config(arg=""); add one')
        arm = arg.partition("@")[0]
        if command in ("train", "plan") and arm in getattr(module, "OF_TEXT", ()):
            raise ConfigError(
                f"{arm} learns text, not by rewards; use `stepcoder sft {name}`"
            )
        config = module.get_config(arg)
    if not isinstance(config, Config):
        raise ConfigError(
            f"EXPERIMENT: get_config() of {path} must return a Config, got "
            f"{type(config).__name__}"
        )
    return config


@contextlib.contextmanager
def _its_folder_importable(path: Path) -> Iterator[None]:
    """An experiment may import its parent, which lies beside it."""
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # where the file removed it
            sys.path.remove(folder)


@contextlib.contextmanager
def _told_in_one_line(path: Path) -> Iterator[None]:
    """Any error of the file as a ConfigError that says where; ours keep their words."""
    try:
        yield
    except (Exception, SystemExit) as error:
        said = own_code.describe(error, path, "EXPERIMENT")
        raise ConfigError(f"EXPERIMENT: {said}") from error
