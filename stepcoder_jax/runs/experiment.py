"""An experiment: a Python file whose `get_config(arg="")` returns a Config.

It may have OF_TEXT, the args (without what stands behind an @) that learn supervised text:
these are for `stepcoder sft` alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
        module = _run(path)
        if not hasattr(module, "get_config"):
            raise ConfigError(f'{path} has no get_config(arg=""); add one')
        arm = arg.partition("@")[0]
        if command == "train" and arm in getattr(module, "OF_TEXT", ()):
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


def _run(path: Path) -> ModuleType:
    """The file as a module, under a name that no package has."""
    spec = importlib.util.spec_from_file_location("stepcoder_experiment", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # a dataclass of the file looks itself up there
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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
        raise ConfigError(f"EXPERIMENT: {_describe(error, path)}") from error


def _describe(error: BaseException, path: Path) -> str:
    """File, line and what went wrong, in one line."""
    file, line = _place(error, path)
    said = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, SyntaxError):
        said = f"{type(error).__name__}: {error.msg}"
    elif isinstance(error, ConfigError):
        said = str(error).removeprefix("EXPERIMENT: ")
        if line is None:
            return said
    elif isinstance(error, SystemExit):
        said = f"it ended the program (SystemExit {error.code!r})"
    where = f"{file}, line {line}" if line else str(file)
    return f"{where}: {' '.join(said.split())}"


def _place(error: BaseException, path: Path) -> tuple[Path | str, int | None]:
    """The innermost line in the experiment's folder: its own, or one of its parent."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    home = path.resolve().parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).resolve().parent == home:
            return frame.filename, frame.lineno
    return path, None
