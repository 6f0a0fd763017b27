"""Who may import whom, as a table checked by parsing; and other rules of the house."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from stepcoder_jax import config

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stepcoder_jax"

LEAVES = {"records", "pytrees", "config", "rules", "syntax"}
LEARNING = {"models", "drawing", "sampling", "slots"}
LEARNING |= {"advantages", "losses", "batching", "updates", "ppo", "grpo"}
LEARNING |= {"vocabulary", "optimizers", "quantized_adam", "sft_step"}
FEEDBACK = {"cccs", "prompts", "fgo", "painting", "evidence", "rewards", "sft_rows"}
PICTURES = {"logger", "curves", "report", "summary", "diagnosis"}
SCORES = {"estimates", "taxonomy", "outcomes"}
DEVICE = {"sharding", "hf_config", "hf_folder", "weights", "checkpoint", "seals", "steps"}
ARRAYS = {"jax", "flax", "optax", "numpy"}


class Layer(typing.NamedTuple):
    """What the files of a layer may import when they run."""

    files: set[str]  # modules of the package, or folders
    inside: set[str]  # what they may import of the package
    outside: set[str]  # and of others, beside the standard library


# Files in no layer join the sides (train, evaluate, sft, judge ...): anything is open to
# them, and no layer may import them.
LAYERS = {
    "leaves": Layer(LEAVES - {"config"}, {"records"}, set()),
    # its error is an InputError, and the judge, which stands alone, has defaults of its own
    "config": Layer({"config"}, {"records", "rules", "execution"}, set()),
    "learning": Layer(LEARNING, LEARNING | {"pytrees", "config"}, ARRAYS),
    "feedback": Layer(FEEDBACK, FEEDBACK | LEAVES, {"numpy"}),
    "execution": Layer({"execution"}, {"execution", "records", "syntax"}, set()),
    "pictures": Layer(PICTURES, PICTURES | LEAVES, {"numpy", "matplotlib", "tensorboardX"}),
    "scores": Layer(SCORES, SCORES | {"records"}, {"numpy"}),
    "device": Layer(
        DEVICE,
        DEVICE | LEARNING | LEAVES,
        ARRAYS | {"orbax", "safetensors", "ml_dtypes"},
    ),
}
HEAVY = {
    "transformers",
    "tokenizers",
    "tensorflow",
    "tensorflow_datasets",
    "grain",
    "matplotlib",
    "tensorboardX",
    "torch",
}
# The builder is a class of the library, and nothing imports the file that does not build.
BY_NATURE = {"data/apps_plus_builder.py": "tensorflow_datasets"}
NATURES = tuple(
    f"stepcoder_jax.{file.removesuffix('.py').replace('/', '.')}" for file in BY_NATURE
)


class Import(typing.NamedTuple):
    """One imported module, its line, and whether it is imported with the file."""

    name: str
    line: int
    at_top: bool


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


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
            names = [f"{base}.{alias.name}" for alias in node.names]
            inside = names if base in ("stepcoder_jax", "stepcoder_jax.data") else [base]
            found.extend(Import(name, node.lineno, at_top) for name in inside)
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, at_top and not is_function)

    visit(ast.parse(source), True)
    return found


def complaints(layer: Layer, source: str, file: str) -> list[str]:
    """Return what a source of this layer imports and may not."""
    wrong = []
    for name, line, _ in imports_of(source):
        parts = name.split(".")
        if parts[0] == "stepcoder_jax":
            allowed = len(parts) > 1 and parts[1] in layer.inside
        else:
            allowed = parts[0] in layer.outside or parts[0] in sys.stdlib_module_names
        if not allowed:
            wrong.append(f"{file}:{line} imports {name}")
    return wrong


def package_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Return the module or folder of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("name", LAYERS)
def test_layer_imports_only_what_it_may(name):
    layer = LAYERS[name]
    files = [path for path in package_files() if module_of(path) in layer.files]
    wrong = [
        found
        for path in files
        for found in complaints(layer, path.read_text(), str(path.relative_to(ROOT)))
    ]
    assert files and not wrong, "\n".join(wrong)


def test_every_module_of_the_table_exists():
    known = {module_of(path) for path in package_files()}
    assert not {file for layer in LAYERS.values() for file in layer.files} - known


def test_only_main_imports_the_command_line_and_the_loop():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in package_files()
        for name, line, _ in imports_of(path.read_text())
        if name.startswith(("stepcoder_jax.__main__", "stepcoder_jax.train"))
        and path.name != "__main__.py"
    ]
    assert not wrong, "\n".join(wrong)


def test_main_loads_sub_commands_lazily():
    wrong = [
        f"__main__.py:{line} imports {name} before a sub-command is known"
        for name, line, at_top in imports_of((PACKAGE / "__main__.py").read_text())
        if at_top
        and (name.split(".")[0] in ARRAYS | HEAVY or name.startswith("stepcoder_jax."))
        and name.split(".")[-1] not in LEAVES
    ]
    assert not wrong, "\n".join(wrong)


def test_heavy_libraries_load_where_they_are_used():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name} with the file"
        for path in package_files()
        for name, line, at_top in imports_of(path.read_text())
        if at_top
        and (name.split(".")[0] in HEAVY or name.startswith(NATURES))
        and name != BY_NATURE.get(str(path.relative_to(PACKAGE)))
    ]
    assert not wrong, "\n".join(wrong)


def test_feedback_loads_without_jax():
    names = ", ".join(sorted(FEEDBACK | LEAVES | PICTURES | SCORES))
    code = (
        f"import sys; from stepcoder_jax import {names}; "
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
        if path.name != "config.py":  # to check a value is not to use it
            read |= fields_read(path.read_text())
    unread = [
        f"{section}.{field}"
        for section, kind, field in sections()
        if (kind, field) not in read
    ]
    assert not unread, f"declared in config.py and read nowhere: {', '.join(unread)}"


# Folders of one person or one machine; a link to a public page is none.
MACHINE = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|mnt|scratch|work(?:space)?)/[\w.]")


def tracked_text() -> list[tuple[str, str]]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: the tracked files are unknown")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            data = path.read_bytes()
            if b"\0" not in data:
                found.append((name, data.decode(errors="replace")))
    return found


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
        "import numpy as np, jax\nfrom stepcoder_jax import cccs, records\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flax\n"
        "def f():\n    from stepcoder_jax.train import main\n    import matplotlib.pyplot\n"
    )
    assert [(found.name, found.at_top) for found in imports_of(bad)] == [
        ("numpy", True),
        ("jax", True),
        ("stepcoder_jax.cccs", True),
        ("stepcoder_jax.records", True),
        ("typing", True),
        ("stepcoder_jax.train", False),
        ("matplotlib.pyplot", False),
    ]
    assert complaints(LAYERS["feedback"], bad, "f.py") == [
        "f.py:1 imports jax",
        "f.py:7 imports stepcoder_jax.train",
        "f.py:8 imports matplotlib.pyplot",
    ]
    assert len(complaints(LAYERS["leaves"], bad, "f.py")) == 5
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
    code = "import sys; from stepcoder_jax.execution import worker; print(*sys.modules)"
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    dear = {"threading", "pathlib", "dataclasses", "inspect", "stepcoder_jax.records"}
    assert not dear & set(done.stdout.split())
