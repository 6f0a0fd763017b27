"""What runs were made from, by digests: runs of another digest do not stand beside them.

Parts: the sources of the package, those of the experiment (its file and the folders of its
runner), the warm start, the problems of the tier, and each arm's config. Results, logs and
documents are in none of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ablation_runner.study import Study
from stepcoder_jax.config import Config, flatten
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.models.hf_config import checkpoint_folder
from stepcoder_jax.records import InputError, Problem
from stepcoder_jax.runs.disk import sources

FILE = "digest.json"
# Supervised text is in what was made of it, the warm start.
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Parts = dict[str, dict[str, str]]  # part -> what it consists of -> its digest
# Where a run is and how it is kept changes nothing that it computes.
OUTSIDE = (
    *("run.folder", "run.seed", "run.resume", "run.step", "run.keep"),
    *("run.compilation_cache", "run.track", "sft.samples"),
)
_MOST_NAMED = 8


def parts_of(study: Study, configs: Collection[Config]) -> Parts:
    """The digests of all that the runs of these configs are made from."""
    texts: dict[str, str] = {}
    starts = dict.fromkeys(config.model.checkpoint for config in configs)
    for config in configs:
        if f"{config.data.path} {SPLITS[0]}" not in texts:
            texts |= digest_splits(config)
    return assemble(study, starts, texts)


def assemble(study: Study, starts: Iterable[str], texts: dict[str, str]) -> Parts:
    """All parts: of the models `starts`, and of problems whose digests are `texts`."""
    package, home = study.root / "stepcoder_jax", study.file.parent
    runner = [x for name in study.runners for x in sorted((home / name).glob("*.py"))]
    models: dict[str, str] = {}
    for name in starts:
        folder = checkpoint_folder(name)
        models |= digest_files(folder, sorted(folder.glob("*")))
    return {
        "package": digest_files(package, sorted(package.rglob("*.py"))),
        "experiment": digest_files(home, [study.file, *runner]),
        "warm start": models,
        "problems": texts,
    }


def digest_files(root: Path, files: Iterable[Path]) -> dict[str, str]:
    """Path below `root` -> digest."""
    return {
        str(path.relative_to(root)): short(path.read_bytes())
        for path in files
        if path.is_file()
    }


def digest_splits(config: Config) -> dict[str, str]:
    """Split -> digest of its problems."""
    return {
        f"{config.data.path} {split}": digest_problems(
            sources.load_problems(config.data, split)
        )
        for split in SPLITS
    }


def digest_problems(problems: Iterable[Problem]) -> str:
    """Of texts and tests."""
    return short(json.dumps([own.to_row(x) for x in problems], sort_keys=True).encode())


def short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def combine(part: Mapping[str, Any]) -> str:
    """One digest of a part."""
    return short(json.dumps(part, sort_keys=True).encode())


def fields_of(config: Config) -> dict[str, Any]:
    """The fields of a config that change what a run computes, as JSON knows them."""
    flat = json.loads(json.dumps(flatten(dataclasses.asdict(config))))
    return {name: value for name, value in flat.items() if name not in OUTSIDE}


def describe(parts: Parts, fields: Mapping[str, Any]) -> dict[str, str]:
    """What one run says of its making: a digest for each part, its config among them."""
    said = {name: combine(part) for name, part in parts.items()}
    return {**said, "config": combine(fields)}


def open_folder(results: Path, parts: Parts) -> None:
    """Begin a folder of results, or make sure that it is of these digests."""
    path = results / FILE
    if path.is_file():
        differs = compare(read(results), parts)
        if differs:
            raise InputError(
                f"--results: the runs in {results} were made from something else: "
                f"{differs}; check out the commit that they name, or choose another folder"
            )
        return
    strange = sorted(results.glob("*.json"))
    if strange:
        raise InputError(
            f"--results: {strange[0]} is there, and no {FILE} that says what it was made "
            "from; choose an empty folder"
        )
    make_folder("--results", results)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(parts, indent=1, sort_keys=True) + "\n")
    part.replace(path)


def make_folder(flag: str, path: Path) -> None:
    """A folder, if it is not there; InputError where something else is."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{flag}: {path} cannot be made ({error.strerror}); choose a folder"
        ) from None


def read(results: Path) -> Parts:
    """The digests of a folder of results; InputError where it has none that can be read."""
    try:
        tree = json.loads((results / FILE).read_text())
        return {part: dict(names) for part, names in dict(tree).items()}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--results: {results} has no readable {FILE} ({error}); is it a folder of "
            "results?"
        ) from None


def compare(then: Parts, now: Parts) -> str:
    """The parts and files that differ, in words; "" where none does."""
    said = []
    for part in sorted(then.keys() | now.keys()):
        old, new = then.get(part, {}), now.get(part, {})
        names = [
            name
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if names:
            more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
            said.append(f"{part} ({', '.join(names[:_MOST_NAMED])}{more})")
    return ", ".join(said)


def check_record(record: Mapping[str, Any], parts: Parts, config: Config | None) -> None:
    """Refuse a run that is not of the folder's digests, or of another config of its arm.

    Without `config` its own is taken as it stands.
    """
    name = f"{record['arm']}-{record['seed']}"
    known = describe(parts, record["config"])
    differ = [part for part in known if record["digest"].get(part) != known[part]]
    if differ:
        raise InputError(
            f"--results: {name} was made from another {', '.join(differ)} than {FILE} of "
            "its folder says; move its file away, and run it again"
        )
    if config is None:
        return
    then, now = record["config"], fields_of(config)
    fields = [x for x in sorted(then.keys() | now.keys()) if then.get(x) != now.get(x)]
    if fields:
        changes = ", ".join(f"{x} {then.get(x)!r}, now {now.get(x)!r}" for x in fields)
        raise InputError(
            f"--results: {name} was run with another config: {changes}; choose another "
            "folder"
        )
