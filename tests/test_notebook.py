"""The notebook runs from top to bottom in its short mode, and is stored without outputs."""

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


@pytest.mark.long
def test_quickstart_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("STEPCODER_SHORT", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # as outside of these tests: one device, and a kernel that shows what commands print
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    # the kernel is this interpreter, whatever kernels the user has installed
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    notebook = nbformat.read(FOLDER / "quickstart.ipynb", as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": FOLDER}},
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.get("data", {}) for output in outputs]
    assert sum("image/png" in data for data in shown) == 1
    programs = next(data["text/html"] for data in shown if "text/html" in data)
    assert programs.count("<pre>") == 6 and "def solve(" in programs
    said = "".join(output.get("text", "") for output in outputs)
    assert "verdict: " in said and "reward: " in said
    assert "rollouts were judged" in said
