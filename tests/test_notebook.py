"""Notebooks run from top to bottom, whole or in short, and are stored without outputs.

What a cell says is held here only where it could be wrong in silence; the programs that
they call have their own tests.
"""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# whole, the others are as long as in short
LONG = ("quickstart", "own_model", "read_a_run", "curriculum")


def code_of(path):
    """The sources of its code cells."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


FIRST = code_of(FOLDER / "quickstart.ipynb")[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs_and_with_the_one_first_cell(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    assert code_of(path)[0] == FIRST
    assert FIRST.count('PROJECT = ""') == FIRST.count('RUNS = "runs"') == 1
    assert FIRST.count("SHORT = False") == 1


def test_the_quickstart_is_that_of_the_experiments():
    """The notebook is complete when it is opened alone, so it has the values again."""
    import quickstart

    cell = next(x for x in code_of(FOLDER / "quickstart.ipynb") if "get_config" in x)
    names: dict = {}
    exec(re.search(r'"""\n?(from .*?)"""', cell, re.DOTALL)[1], names)
    shown, ours = names["get_config"](), quickstart.get_config()
    ours.run, ours.evaluation = shown.run, shown.evaluation
    assert shown == ours
    text = cell[cell.index("from stepcoder") : cell.index("small =")]
    assert text in code_of(FOLDER / "read_a_run.ipynb")[1]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a notebook of the folder; gives what its cells printed, and what they showed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # as outside of these tests: one device
    monkeypatch.delenv("XLA_FLAGS")
    # the kernel is this interpreter, whatever kernels the user has installed
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")

    def execute(name, *, short=True):
        # a kernel that shows what commands print; pytest sets it anew for the test itself
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        first.source = first.source.replace('RUNS = "runs"', f"RUNS = {str(tmp_path)!r}")
        if short:
            first.source = first.source.replace("SHORT = False", "SHORT = True")
        client = NotebookClient(
            notebook,
            timeout=900,
            kernel_name="python3",
            resources={"metadata": {"path": FOLDER}},
        )
        client.execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        said = "".join(output.get("text", "") for output in outputs)
        return said, [output.get("data", {}) for output in outputs]

    return execute


def check_quickstart(said, shown):
    assert sum("image/png" in data for data in shown) == 1
    programs = next(data["text/html"] for data in shown if "text/html" in data)
    assert programs.count("<pre>") == 6 and "def solve(" in programs
    assert "verdict: " in said and "reward: " in said
    assert "rollouts were judged" in said


def check_masks(said, shown):
    """Of a program whose masks are known: what raises never ran, nor a call behind `if`."""
    (painted,) = (data["text/html"] for data in shown if "text/html" in data)
    pictures = painted.split("<b>")[1:]
    struck = [re.findall(r"line-through\">(.*?)</span>", x) for x in pictures]
    assert "raise" in struck[0] and "bonus" not in struck[0]
    if len(struck) == 2:
        assert "raise" in struck[1] and "bonus" in struck[1]
    else:
        assert "no Python 3.12" in said
    assert "none" not in "".join(re.findall(r"#15803d\">(.*?)</span>", pictures[0]))


def check_curriculum(said, shown):
    assert "5 conditionals, 3 stages" in said and "--- stage 2 opens with" in said
    assert sum("image/png" in data for data in shown) == 1


def check_judge(said, _):
    for line in (
        "right: pass",
        "wrong for negative numbers: wrong",
        "crashes: runtime NameError",
        "does not compile: compile",
        "never ends: timeout",
        "takes too much memory: ",
        "-         return 0",
        "+     return x * x",
        "opens a connection: runtime PermissionError",
    ):
        assert line in said


def check_own_model(said, _):
    assert '"statement"' in said and "pass@1" in said and "pass@2" in said
    assert "model.safetensors" in said.split("results")[-1]


def check_read_a_run(_, shown):
    tables = [data["text/html"] for data in shown if "text/html" in data]
    assert len(tables) == 3 and "fgo/masked" in tables[0] and "problem" in tables[2]
    assert sum("image/png" in data for data in shown) == 1


def check_self_debug(said, shown):
    assert "Call: negative_sum([1, -2])\nExpected: -2\nGot: 1\n" in said
    painted, paid = (data["text/html"] for data in shown if "text/html" in data)
    # two tokens of each answer but the last, which has both on one
    assert painted.count("border:") == painted.count("<b style") == 2 * 4 + 1
    assert "line-through" in painted
    rows = {
        name: [float(cell) for cell in re.findall("<td>([+-].*?)</td>", row)]
        for name, row in re.findall("<tr><td>(.*?)</td>(.*?)</tr>", paid)
    }
    assert len(rows) == 5
    explanation, paper, tests, tests_first, gain = zip(*rows.values())
    assert tests == (5, 5, 5, 0, -5)
    assert explanation[0] > 0 > explanation[3]
    assert paper[3] > 0 > tests_first[3] == gain[3] == -2.5  # the copy
    assert {paper[4], tests_first[4], gain[4]} == {-5}


CHECKS = {
    "quickstart": check_quickstart,
    "masks": check_masks,
    "curriculum": check_curriculum,
    "judge": check_judge,
    "own_model": check_own_model,
    "self_debug": check_self_debug,
    "read_a_run": check_read_a_run,
}


@pytest.mark.long
@pytest.mark.parametrize("name", CHECKS)
def test_runs_in_short(name, run):
    CHECKS[name](*run(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_runs_whole(name, run):
    said, shown = run(name, short=False)
    CHECKS[name](said.replace("pass@8", "pass@2"), shown)


def test_every_notebook_is_run():
    assert {path.stem for path in NOTEBOOKS} == CHECKS.keys() >= set(LONG)


def first_cell(folder, python, project):
    """The first cell of a notebook that lies alone in `folder`, run as a program."""
    source = FIRST.replace('PROJECT = ""', f"PROJECT = {project!r}")
    more = "\nimport stepcoder_jax; print(stepcoder_jax.__file__)"
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    # what it depends on is large, and not in question here
    environment |= {"PIP_NO_DEPS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [str(python), "-c", source + more]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def alone(tmp_path):
    """A folder with nothing in it, and an interpreter that has no package."""
    venv.create(tmp_path / "venv", with_pip=True)
    folder = tmp_path / "alone"
    folder.mkdir()
    return folder, tmp_path / "venv" / "bin" / "python"


def test_the_first_cell_says_what_it_wants(tmp_path):
    """`-I -S`: an interpreter that finds no package, as where a notebook lies alone."""
    command = [sys.executable, "-I", "-S", "-c", FIRST]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    assert done.stderr == (
        "PROJECT is empty: put the git URL of the project, or a wheel, there\n"
    )


@pytest.mark.long
def test_the_first_cell_installs_a_clone_and_a_wheel(alone, tmp_path):
    """By the network: pip fetches what builds a package."""
    folder, python = alone
    clone, wheels = tmp_path / "clone", tmp_path / "wheels"
    cloned = subprocess.run(["git", "clone", "-q", ROOT, clone], check=False)
    if cloned.returncode:
        pytest.skip("not a git checkout")
    build = [python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, clone]
    subprocess.run(build, check=True)
    for project in (f"file://{clone}", str(wheels)):
        done = first_cell(folder, python, project)
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "venv") in done.stdout
        again = first_cell(folder, python, "nowhere")  # it is there: nothing is done
        assert again.stdout == done.stdout
        away = [python, "-m", "pip", "uninstall", "-q", "-y", "stepcoder_jax"]
        subprocess.run(away, check=True)
