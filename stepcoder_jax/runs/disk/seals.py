"""A digest of every file of a folder, written last: what was torn or flipped is told.

The seal is FOLDER/digests.json, {"path of a file": its SHA-256}; of a folder whose seal
holds, every byte is the one that was written. Hashing is the kernel of both ways and lets
other threads run, so files are hashed side by side.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from stepcoder_jax.records import InputError

SEAL = "digests.json"


class DamagedError(InputError):
    """A folder whose files are not those that were written."""


def seal(folder: Path, names: Iterable[str] | None = None) -> None:
    """Write the digests of files of `folder`; without `names` of all that is in it."""
    files = _files(folder) if names is None else sorted(names)
    text = json.dumps(_digests(folder, files), indent=1, sort_keys=True)
    (folder / SEAL).write_text(text + "\n")


def is_sealed(folder: Path) -> bool:
    """Whether the seal is there; it is written when all else is."""
    return (folder / SEAL).is_file()


def find_damage(folder: Path) -> str:
    """The first thing that is not as it was sealed, in words; "" where all is.

    A file that was not sealed is damage too.
    """
    try:
        known = _read(folder)
    except DamagedError as error:
        return str(error)
    strange = set(_files(folder)) - known.keys()
    if strange and known.keys() <= set(_files(folder)):
        return f"{min(strange)} is not one of its files"
    return _find_change(folder, known)


def find_damage_of(folder: Path, is_meant: Callable[[str], bool]) -> str:
    """As `find_damage`, of the sealed files that are meant; of others nothing is said.

    "" of a folder without a seal.
    """
    if not is_sealed(folder):
        return ""
    try:
        known = _read(folder)
    except DamagedError as error:
        return str(error)
    return _find_change(folder, {n: digest for n, digest in known.items() if is_meant(n)})


def _read(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / SEAL).read_text()))
    except (OSError, ValueError, TypeError):
        raise DamagedError(f"{SEAL} cannot be read") from None


def _find_change(folder: Path, known: dict[str, str]) -> str:
    missing = [name for name in sorted(known) if not (folder / name).is_file()]
    if missing:
        return f"{missing[0]} is missing"
    try:
        found = _digests(folder, list(known))
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    changed = sorted(name for name in known if found[name] != known[name])
    return f"{changed[0]} is not what was written" if changed else ""


def _files(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    return sorted(str(path.relative_to(folder)) for path in files)


def _digests(folder: Path, names: list[str]) -> dict[str, str]:
    def digest(name: str) -> str:
        with open(folder / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with concurrent.futures.ThreadPoolExecutor() as threads:
        return dict(zip(names, threads.map(digest, names)))
