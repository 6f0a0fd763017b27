"""Who may import whom, a table of folders checked by parsing; other rules of the house."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepcoder_jax import config

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stepcoder_jax"

ARRAYS = ("jax", "flax", "optax", "numpy")
LEAVES = ("records", "pytrees", "config")
JUDGE = tuple(
    f"execution/{room}" for room in ("sandbox", "crossing", "worker", "judging", "pool")
)
MOST_FILES = 14  # of a folder
# These two export again what stands in their files: the names of the judge, and the knobs.
FACES = (PACKAGE / "execution", PACKAGE / "config")


class Room(typing.NamedTuple):
    """What the files of a folder may import when they run."""

    inside: tuple[str, ...]  # rooms of the package, beside itself
    outside: tuple[str, ...] | None  # beside the standard library; None: anything


# A folder is a layer, and a file at the top is a room of its own. A room may import those
# that stand before it and that it names, so no import can go uphill.
ROOMS = {
    "records": Room((), ()),
    "pytrees": Room((), ()),
    "syntax": Room(("records",), ()),
    "similarity": Room(
        ("records", "syntax"), ("numpy", "scipy", "safetensors", "tokenizers")
    ),
    "own_code": Room(("records",), ()),
    "progress": Room((), ("tqdm",)),
    # the one file that stands for itself: the judge is whole without the trainer's knobs,
    # and the config, a leaf but for this import, takes its defaults from there
    "execution/settings": Room(("records",), ()),
    "config": Room(("records", "execution/settings"), ()),
    "models": Room(
        ("config", "records"), ("jax", "flax", "numpy", "safetensors", "ml_dtypes")
    ),
    "learning": Room(("models", "pytrees"), ARRAYS),
    "learning/returns": Room(("learning", "pytrees"), ARRAYS),
    "sampling": Room(("models", "pytrees"), ARRAYS),
    "execution/crossing": Room((), ()),
    "feedback": Room((*LEAVES, "execution/crossing", "similarity", "syntax"), ("numpy",)),
    "feedback/rewards": Room(
        (*LEAVES, "feedback", "own_code", "similarity", "syntax"), ("numpy",)
    ),
    "strategies": Room(("feedback", "records", "syntax"), ()),
    "execution/sandbox": Room((), ()),
    "execution/worker": Room(JUDGE[:2], ()),
    "execution/judging": Room((*JUDGE[1:3], "execution/settings", "records"), ()),
    "execution/pool": Room((JUDGE[0], *JUDGE[2:4], "execution/settings", "records"), ()),
    "execution/remote": Room((*JUDGE, "execution/settings", "records", "syntax"), ()),
    "execution": Room(
        ("execution/pool", "execution/remote", "execution/settings", "records"), ()
    ),
    "data/formats": Room(
        ("records", "execution", "execution/crossing"), ("tensorflow_datasets",)
    ),
    "data/evalplus": Room(
        ("data/formats", "execution", "execution/crossing", "records"), ("tqdm",)
    ),
    "data": Room(
        ("data/formats", "data/evalplus", "execution", "records"),
        ("tokenizers", "transformers"),
    ),
    "data/generated": Room(("records",), ("numpy",)),
    "data/curation": Room(
        (
            *("data", "data/formats", "execution", "execution/judging", "feedback"),
            *("records", "progress", "syntax"),
        ),
        ("numpy",),
    ),
    "data/building": Room(
        ("data", "data/formats", "execution", "feedback", "records"),
        ("numpy", "tensorflow_datasets", "grain"),
    ),
    "tracking": Room(("config", "records"), ("tensorboardX", "wandb")),
    "results": Room(
        (
            *("config", "data/formats", "feedback", "records"),
            *("similarity", "strategies", "syntax", "tracking"),
        ),
        ("numpy", "scipy"),
    ),
    "results/drawing": Room(("config", "results"), ("numpy", "matplotlib")),
    "report": Room(
        ("config", "data/formats", "records", "results", "results/drawing"), ("numpy",)
    ),
    # a leaf: a watcher must be light, and devices may ask where this process stands
    "runs/hosts": Room(("records", "execution/sandbox"), ()),
    "devices": Room(
        (
            *("runs/hosts", "learning", "learning/returns", "sampling", "models"),
            *("records", "pytrees"),
        ),
        ARRAYS,
    ),
    "runs/shares": Room(
        ("devices", "execution", "pytrees", "config", "records"), ("jax", "numpy")
    ),
    "planning": Room(
        ("devices", "learning", "sampling", "models", "config", "records", "pytrees"),
        ARRAYS,
    ),
    "runs/disk": Room(
        (
            *("runs/hosts", "devices", "results", "data", "data/generated", "execution"),
            *("feedback", "feedback/rewards", "models", "progress", "similarity"),
            *("runs/shares", "tracking"),
            *LEAVES,
        ),
        (*ARRAYS, "orbax", "uvloop", "transformers", "tqdm"),
    ),
    "runs/posing": Room(
        ("config", "runs/shares", "feedback", "pytrees", "records"), ("numpy",)
    ),
    "heads": Room(
        (
            *("config", "models", "feedback", "records", "pytrees", "strategies"),
            *("devices", "runs/disk"),
        ),
        ("jax", "numpy", "optax", "safetensors"),
    ),
    "runs": Room(
        (
            *("planning", "runs/disk", "runs/hosts", "runs/shares", "data/formats"),
            *("heads", "runs/posing", "feedback/rewards", "own_code"),
            *("devices", "results", "results/drawing", "data/generated", "execution"),
            *("feedback", "learning", "sampling", "models", "progress", *LEAVES),
            "strategies",
        ),
        (*ARRAYS, "orbax", "transformers", "tqdm"),
    ),
}
ROOMS["runs/worth"] = Room(
    (
        *("runs", "runs/posing", "runs/hosts", "runs/shares", "heads", "sampling"),
        *("feedback", "feedback/rewards"),
        *("config", "pytrees", "records"),
    ),
    ("numpy",),
)
ROOMS["runs/profiling"] = Room(
    (
        *("runs", "runs/disk", "runs/posing", "devices", "feedback", "sampling"),
        *("config", "records"),
    ),
    ("numpy",),
)
ROOMS["runs/refining"] = Room(
    (
        *("runs", "runs/disk", "data", "data/formats", "data/generated", "execution"),
        *("devices", "feedback", "similarity", "strategies", "sampling", "progress"),
        *("config", "records"),
    ),
    ("jax", "numpy"),
)
ROOMS["runs/guards"] = Room(
    (
        *("runs", "runs/disk", "devices", "learning", "results"),
        *("pytrees", "config", "records"),
    ),
    ("jax", "numpy"),
)
# These join the sides: all rooms of the table are open to them, and the later to none.
ROOMS["train"] = Room(tuple(ROOMS), None)
ROOMS["commands"] = Room(tuple(room for room in ROOMS if room != "train"), None)
ROOMS["cli"] = Room(
    (
        *("train", "commands", "heads", "runs", "runs/disk", "devices", "models"),
        *("config", "records"),
    ),
    None,
)
ROOMS["__main__"] = Room(("cli", "runs/disk", "runs/hosts", "records"), None)
ROOMS["__init__"] = Room((), ())
HEAVY = {
    "transformers",
    "tokenizers",
    "tensorflow",
    "tensorflow_datasets",
    "grain",
    "matplotlib",
    "tensorboardX",
    "torch",
    "wandb",
}
# The builder is a class of the library, and nothing imports the file that does not build.
BY_NATURE = {"data/building/apps_plus_builder.py": "tensorflow_datasets"}


class Import(typing.NamedTuple):
    """One imported module, its line, and whether it is imported with the file."""

    name: str
    line: int
    at_top: bool


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(source: str) -> list[Import]:
    """Return what a source imports at run time: imports for the type checker are none."""
    found: list[Import] = []

    def visit(node: ast.AST, at_top: bool) -> None:
        if is_type_checking(node):
            for child in node.orelse:  # type: ignore[attr-defined]
                visit(child, at_top)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            base = node.module or ""
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                inner = base.startswith("stepcoder_jax") and is_module(whole)
                found.append(Import(whole if inner else base, node.lineno, at_top))
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, at_top and not is_function)

    visit(ast.parse(source), True)
    return list(dict.fromkeys(found))


def room_of(parts: tuple[str, ...]) -> str:
    """Return the room of a file of the package: its folder, or itself at the top.

    `parts` is its path below the package, without `.py`; a folder stands for its face.
    """
    path = "/".join(parts)
    if path in ROOMS:
        return path
    return "/".join(parts[:-1]) if len(parts) > 1 else path


def rooms_imported(source: str) -> Iterator[tuple[str, str, int]]:
    """Yield (room, module, line) of each import inside of the package."""
    for name, line, _ in imports_of(source):
        first, *parts = name.split(".")
        if first == "stepcoder_jax":
            yield room_of(tuple(parts) or ("__init__",)), name, line


def complaints(room: str, source: str, file: str) -> list[str]:
    """Return what a source of this room imports and may not."""
    allowed = ROOMS[room]
    wrong = [
        f"{file}:{line} imports {name}"
        for other, name, line in rooms_imported(source)
        if other != room and other not in allowed.inside
    ]
    if allowed.outside is None:
        return wrong
    known = {"stepcoder_jax", *allowed.outside, *sys.stdlib_module_names}
    return wrong + [
        f"{file}:{line} imports {name}"
        for name, line, _ in imports_of(source)
        if name.split(".")[0] not in known
    ]


def package_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def parts_of(path: Path) -> tuple[str, ...]:
    """Return the path of a file below the package; a folder's `__init__` is the folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts


def files_of(*rooms: str) -> list[Path]:
    return [path for path in package_files() if room_of(parts_of(path)) in rooms]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room):
    wrong = [
        found
        for path in files_of(room)
        for found in complaints(room, path.read_text(), str(path.relative_to(ROOT)))
    ]
    assert files_of(room) and not wrong, "\n".join(wrong)


def test_the_table_has_every_room_and_goes_downwards():
    assert {room_of(parts_of(path)) for path in package_files()} == set(ROOMS)
    rooms = list(ROOMS)
    for place, (room, allowed) in enumerate(ROOMS.items()):
        assert set(allowed.inside) <= set(rooms[:place]), room


def test_every_permission_of_the_table_is_used():
    """What a room may import and does not is a door that nobody asked for."""
    for room, allowed in ROOMS.items():
        if allowed.outside is not None:
            used = {
                other
                for path in files_of(room)
                for other, _, _ in rooms_imported(path.read_text())
            }
            assert set(allowed.inside) <= used, (room, set(allowed.inside) - used)


def test_no_command_takes_from_another():
    """judge_samples is the part of judge that runs a model's samples."""
    pairs = {
        (path.stem, name.split(".")[2])
        for path in files_of("commands")
        for room, name, _ in rooms_imported(path.read_text())
        if room == "commands"
    }
    assert pairs == {("judge_samples", "judge")}


def test_a_folder_is_small_and_its_init_says_what_it_is():
    """Nothing is exported again but two public faces, and importing a folder is cheap."""
    for folder in sorted({path.parent for path in package_files()}):
        files = list(folder.glob("*.py"))
        assert len(files) <= MOST_FILES, f"{folder} has {len(files)} files"
        tree = ast.parse((folder / "__init__.py").read_text())
        text = ast.get_docstring(tree) or ""
        is_told = "\n\nREADME.md" in text and (folder / "README.md").is_file()
        assert folder == PACKAGE or is_told, f"{folder}: what lives there?"
        most = {PACKAGE: 2, **dict.fromkeys(FACES, len(tree.body))}.get(folder, 1)
        assert len(tree.body) == most, f"{folder}/__init__.py does more than to tell"


def test_sub_commands_are_loaded_when_one_is_asked_for():
    """`--help` is quick: without JAX, and without the config."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name} before a sub-command is known"
        for path in files_of("__main__", "cli")
        for name, line, at_top in imports_of(path.read_text())
        if at_top
        and (name.split(".")[0] in {*ARRAYS, *HEAVY} or name.startswith("stepcoder_jax."))
        and not name.startswith("stepcoder_jax.cli.")
    ]
    assert not wrong, "\n".join(wrong)


def test_heavy_libraries_load_where_they_are_used():
    files = (file.removesuffix(".py").replace("/", ".") for file in BY_NATURE)
    natures = tuple(f"stepcoder_jax.{file}" for file in files)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name} with the file"
        for path in package_files()
        for name, line, at_top in imports_of(path.read_text())
        if at_top
        and (name.split(".")[0] in HEAVY or name.startswith(natures))
        and name != BY_NATURE.get(str(path.relative_to(PACKAGE)))
    ]
    assert not wrong, "\n".join(wrong)


def test_feedback_and_results_load_without_jax():
    files = files_of("records", "pytrees", "config", "feedback", "results")
    names = ", ".join(".".join(("stepcoder_jax", *parts_of(path))) for path in files)
    code = (
        f"import sys; import {names}; "
        "print(sorted({'jax', 'flax', 'optax', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "[]"


def sections() -> list[tuple[str, str, str]]:
    """Return (section name, class name, field) of every knob of a Config."""
    knobs = []

    def collect(section: str, kind: type) -> None:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if dataclasses.is_dataclass(hints[field.name]):
                collect(field.name, typing.cast(type, hints[field.name]))
            else:
                knobs.append((section, kind.__name__, field.name))

    collect("config", config.Config)
    return sorted(set(knobs))


def names_of_sections(tree: ast.AST) -> set[tuple[str, str]]:
    """Return (variable, class name) of each section that a file holds in a variable."""
    known = {(section, kind) for section, kind, _ in sections()}
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation:
            target = node.arg if isinstance(node, ast.arg) else tail(node.target)
            known.add((target, ast.unparse(node.annotation).split(".")[-1].strip("'\"")))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            pairs = zip(flat(node.targets[0]), flat(node.value))
            known |= {
                (tail(to), kind)
                for to, value in pairs
                for section, kind in known
                if section == tail(value)
            }
    return known


def flat(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def tail(node: ast.expr) -> str:
    """Return the last name of `a.b.c` or of `a`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def fields_read(source: str) -> set[tuple[str, str]]:
    """Return (class name, field) of every knob that a source reads.

    `ppo.kl_coef`; `getattr(mesh, axis)` for the fields whose names the file spells out; and
    `Settings(**dataclasses.asdict(execution))`, which fails where a field has no taker.
    """
    tree = ast.parse(source)
    kinds: dict[str, set[str]] = {}
    for variable, kind in names_of_sections(tree):
        kinds.setdefault(variable, set()).add(kind)
    spelled = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            read |= {(kind, node.attr) for kind in kinds.get(tail(node.value), ())}
        elif isinstance(node, ast.Call) and node.args:
            taken = kinds.get(tail(node.args[0]), set())
            does_spell = tail(node.func) == "getattr"
            if does_spell or tail(node.func) == "asdict":
                read |= {
                    (kind, field)
                    for _, kind, field in sections()
                    if kind in taken and (field in spelled or not does_spell)
                }
    return read


def test_every_knob_is_read():
    read = set()
    for path in package_files():
        if path.parent != PACKAGE / "config":  # to check a value is not to use it
            read |= fields_read(path.read_text())
    unread = [
        f"{section}.{field}"
        for section, kind, field in sections()
        if (kind, field) not in read
    ]
    assert not unread, f"declared in config/ and read nowhere: {', '.join(unread)}"


# Folders of one person or one machine; a link to a public page is none.
MACHINE = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|mnt|scratch|work(?:space)?)/[\w.]")


def listed_by_git(*flags: str) -> list[str]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", *flags], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: the tracked files are unknown")
    return listed.stdout.decode().split("\0")[:-1]


def tracked_text() -> list[tuple[str, str]]:
    found = []
    for name in listed_by_git():
        path = ROOT / name
        if path.is_file():
            data = path.read_bytes()
            if b"\0" not in data:
                found.append((name, data.decode(errors="replace")))
    return found


def test_no_source_is_hidden_from_git():
    """A pattern for folders of output can name a room of the house as well."""
    hidden = listed_by_git("--others", "--ignored", "--exclude-standard")
    sources = ("stepcoder_jax/", "tests/", "experiments/")
    assert not [
        name for name in hidden if name.startswith(sources) and name.endswith(".py")
    ]


def test_no_folder_of_ones_own_machine_is_named():
    wrong = [
        f"{name}: {match[0]}"
        for name, text in tracked_text()
        for match in MACHINE.finditer(text)
        if name != "tests/test_layers.py"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_checks_see_what_they_look_for():
    """Each check on a source that breaks its rule."""
    bad = (
        "import numpy as np, jax\nfrom stepcoder_jax.feedback import cccs, nothing\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flax\n"
        "def f():\n    from stepcoder_jax.train import main\n    import matplotlib.pyplot\n"
        "from stepcoder_jax.execution import Pool, settings\n"
    )
    assert [(found.name, found.at_top) for found in imports_of(bad)] == [
        ("numpy", True),
        ("jax", True),
        ("stepcoder_jax.feedback.cccs", True),
        ("stepcoder_jax.feedback", True),
        ("typing", True),
        ("stepcoder_jax.train", False),
        ("matplotlib.pyplot", False),
        ("stepcoder_jax.execution", True),
        ("stepcoder_jax.execution.settings", True),
    ]
    assert [room for room, _, _ in rooms_imported(bad)] == [
        *("feedback", "feedback", "train", "execution", "execution/settings"),
    ]
    assert complaints("feedback", bad, "f.py") == [
        "f.py:7 imports stepcoder_jax.train",
        "f.py:9 imports stepcoder_jax.execution",
        "f.py:9 imports stepcoder_jax.execution.settings",
        "f.py:1 imports jax",
        "f.py:8 imports matplotlib.pyplot",
    ]
    assert len(complaints("records", bad, "f.py")) == 8
    read = fields_read(
        "def f(config: Config, reward: RewardConfig, c):\n"
        "    ppo = config.ppo\n"
        "    config.run.seed = c.gamma\n"
        "    shape = [getattr(config.mesh, axis) for axis in ('data', 'tensor')]\n"
        "    return ppo.kl_coef + reward.wrong + config.cccs.alpha + ppo.actor.b1\n"
    )
    knobs = {(kind, field) for _, kind, field in sections()}
    assert read & knobs == {
        ("PPOConfig", "kl_coef"),
        ("RewardConfig", "wrong"),
        ("CCCSConfig", "alpha"),
        ("OptimizerConfig", "b1"),
        ("MeshConfig", "data"),
        ("MeshConfig", "tensor"),
    }
    assert MACHINE.search("see '/home/someone/x'") and MACHINE.search("cd /root/x")
    assert not MACHINE.search("https://a.b/home/x") and not MACHINE.search("src/root/x")


def test_a_worker_of_the_judge_loads_no_more_than_its_children_use():
    code = (
        "import sys; from stepcoder_jax.execution.worker import worker; print(*sys.modules)"
    )
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    dear = {"threading", "pathlib", "dataclasses", "inspect", "stepcoder_jax.records"}
    assert not dear & set(done.stdout.split())
