"""The quickstart made short, whole: what a newcomer is told, and shown at its end."""

import json
import subprocess
import sys

import pytest

from stepcoder_jax.__main__ import main

SHORT = "experiments/quickstart.py:short"


@pytest.mark.long
def test_it_tells_what_vanilla_ppo_had(tmp_path, monkeypatch, capfd, request):
    monkeypatch.chdir(request.config.rootpath)
    folder = tmp_path / "run"
    # of the simulated devices, each takes four rollouts
    assert main(["train", SHORT, "--run.folder", str(folder)]) == 0
    told = capfd.readouterr()
    lines = [x for x in told.err.splitlines() if "thousand tokens" in x]
    assert len(lines) == 2  # before learning, and behind the third iteration
    for line in lines:
        assert line.startswith("validation/pass@1_competition ")
        assert "; vanilla PPO had 0.000 (" in line
    assert (folder / "curves.png").is_file() and "test" in told.err
    script, picture = "experiments/benchmarks/quickstart_table.py", tmp_path / "x.png"
    table = [sys.executable, script, picture, folder]
    said = subprocess.run(table, capture_output=True, text=True, check=True).stdout
    assert "\n| run | " in said and picture.is_file()
    other = {"name": "x", "metric": "validation/pass@7", "runs": []}
    other["runs"] = [{"seed": 0, "tokens": [0, 9], "values": [0, 1]}]
    file = tmp_path / "other.json"
    file.write_text(json.dumps(other))
    flags = ["--run.folder", str(tmp_path / "no"), "--evaluation.beside", str(file)]
    assert main(["train", SHORT, *flags]) == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if "beside" in x]
    assert f"{file} has curves of validation/pass@7, which this run does not" in line
