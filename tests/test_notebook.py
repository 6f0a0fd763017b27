"""The notebook runs from top to bottom in its short mode, and is stored without outputs."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a notebook of the folder; gives what its cells printed, and what they showed."""
    monkeypatch.setenv("STEPCODER_SHORT", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # as outside of these tests: one device
    monkeypatch.delenv("XLA_FLAGS")
    # the kernel is this interpreter, whatever kernels the user has installed
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")

    def execute(name):
        # a kernel that shows what commands print; pytest sets it anew for the test itself
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
        notebook = nbformat.read(FOLDER / name, as_version=4)
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": FOLDER}},
        )
        client.execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        said = "".join(output.get("text", "") for output in outputs)
        return said, [output.get("data", {}) for output in outputs]

    return execute


@pytest.mark.long
def test_quickstart_runs(run):
    said, shown = run("quickstart.ipynb")
    assert sum("image/png" in data for data in shown) == 1
    programs = next(data["text/html"] for data in shown if "text/html" in data)
    assert programs.count("<pre>") == 6 and "def solve(" in programs
    assert "verdict: " in said and "reward: " in said
    assert "rollouts were judged" in said


@pytest.mark.long
def test_self_debugging_runs(run):
    said, shown = run("self_debugging.ipynb")
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
