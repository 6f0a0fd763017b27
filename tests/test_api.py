"""The public API: the imports in the package's own docstring, and nothing beside them."""

import ast
import importlib
import json
import re
import textwrap
from pathlib import Path

import pytest

import stepcoder_jax

ROOT = Path(__file__).parent.parent
BLOCK = re.search(r"\n\n((?:    from .*\n)+)", stepcoder_jax.__doc__)[1]


def names_in(source):
    """(module, name) of each import from the package, wherever in the source it stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("stepcoder_jax"):
            found |= {(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            found |= {(name, "") for name in names if name.startswith("stepcoder_jax")}
    return found


PUBLIC = names_in(textwrap.dedent(BLOCK))


def users():
    """Sources that a reader is shown: of the README, the notebooks, the experiments."""
    readme = (ROOT / "README.md").read_text()
    yield "README.md", "\n".join(re.findall(r"```python\n(.*?)```", readme, re.DOTALL))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        yield path.name, "\n".join(code)
    for path in sorted((ROOT / "experiments").glob("*.py")):
        yield path.name, path.read_text()


@pytest.mark.parametrize(("module", "name"), sorted(PUBLIC))
def test_what_is_public_is_there_and_told(module, name):
    found = importlib.import_module(module)
    if not hasattr(found, name):  # a module in a folder, that nothing has imported yet
        importlib.import_module(f"{module}.{name}")
    thing = getattr(found, name)
    assert thing.__doc__, f"{module}.{name} has no docstring"


def inner(module, name):
    """`from stepcoder_jax.config import X` is `from stepcoder_jax import config`."""
    base, _, last = module.rpartition(".")
    return (module, name) not in PUBLIC and (base, last) not in PUBLIC


@pytest.mark.parametrize(("name", "source"), list(users()))
def test_what_readers_are_shown_imports_the_public_api_alone(name, source):
    wrong = sorted(found for found in names_in(source) if inner(*found))
    assert not wrong, f"{name} imports {wrong}"


def test_the_check_sees_what_it_looks_for():
    assert len(PUBLIC) > 10 and sum(map(len, map(names_in, dict(users()).values()))) > 5
    assert not inner("stepcoder_jax.config", "Config")
    assert inner("stepcoder_jax.devices", "steps")
    assert names_in("def f():\n    import stepcoder_jax.x") == {("stepcoder_jax.x", "")}
