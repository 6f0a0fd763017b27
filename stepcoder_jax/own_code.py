"""Python files of the user's own: run as modules, and what goes wrong, in one line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from stepcoder_jax.records import InputError


def run(path: Path, name: str) -> ModuleType:
    """The file as a module, under a name that no package has.

    Raises InputError for what is no Python file, and whatever its code raises.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # a dataclass of the file looks itself up there
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def describe(error: BaseException, path: str | Path, field: str = "") -> str:
    """File, line and what went wrong, in one line; our own errors keep their words.

    These may open with the `field` that the caller names again.
    """
    file, line = _place(error, Path(path))
    said = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, SyntaxError):
        said = f"{type(error).__name__}: {error.msg}"
    elif isinstance(error, InputError):
        said = str(error).removeprefix(f"{field}: ")
        if line is None:
            return said
    elif isinstance(error, SystemExit):
        said = f"it ended the program (SystemExit {error.code!r})"
    where = f"{file}, line {line}" if line else str(file)
    return f"{where}: {' '.join(said.split())}"


def _place(error: BaseException, path: Path) -> tuple[Path | str, int | None]:
    """The innermost line in the file's folder: its own, or one of a file beside it."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    home = path.resolve().parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).resolve().parent == home:
            return frame.filename, frame.lineno
    return path, None
