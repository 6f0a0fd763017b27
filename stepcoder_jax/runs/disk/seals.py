"""A digest of every file of a folder, written last: what was torn or flipped is told.

The seal is FOLDER/digests.json, {"path of a file": its SHA-256}; of a folder whose seal
holds, every byte is the one that was written. Hashing is the kernel of both ways and lets
other threads run, so files are hashed side by side.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
from pathlib import Path

SEAL = "digests.json"


def seal(folder: Path) -> None:
    """Write the digests of all that is in `folder`."""
    text = json.dumps(_digests(folder, _files(folder)), indent=1, sort_keys=True)
    (folder / SEAL).write_text(text + "\n")


def is_sealed(folder: Path) -> bool:
    """Whether the seal is there; it is written when all else is."""
    return (folder / SEAL).is_file()


def find_damage(folder: Path) -> str:
    """The first thing that is not as it was sealed, in words; "" where all is."""
    try:
        known = dict(json.loads((folder / SEAL).read_text()))
    except (OSError, ValueError, TypeError):
        return f"{SEAL} cannot be read"
    present = _files(folder)
    missing, strange = known.keys() - set(present), set(present) - known.keys()
    if missing:
        return f"{min(missing)} is missing"
    if strange:
        return f"{min(strange)} is not one of its files"
    try:
        found = _digests(folder, present)
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
