"""Each experiment says what it asks, builds, validates, and names a command that works."""

import ast
import json
import re
from pathlib import Path

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.cli.experiment import parse_config
from stepcoder_jax.results.drawing import beside
from stepcoder_jax.results.logger import read_metrics
from stepcoder_jax.runs.experiment import load_experiment
from tests.execution.kit import need_data

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))


def docstring(path):
    return ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_is_like_a_small_paper(path):
    text = docstring(path)
    for heading in ("Question", "Command", "Hardware", "Expected"):
        assert re.search(rf"^{heading} +\S", text, re.MULTILINE), heading


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_builds_and_validates_through_its_own_command(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = re.search(r"^Command +stepcoder (\w+) (.+)$", docstring(path), re.MULTILINE)
    name, argv = command[1], command[2].split()
    assert name in ("train", "sft")
    config = parse_config(name, argv)
    assert argv[0].split(":")[0] == str(path.relative_to(ROOT))
    # two calls share nothing, so an override of one cannot leak into the next
    again = load_experiment(argv[0])
    config.sampling.temperature, config.ppo.actor.learning_rate = 0.123, 0.5
    assert load_experiment(argv[0]) == again


def test_the_quickstart_is_the_stepcoder_arm_of_the_ablation(monkeypatch):
    monkeypatch.chdir(ROOT)
    for arm, theirs in (("", "stepcoder"), ("ppo", "ppo")):
        ours = load_experiment(f"experiments/quickstart.py:{arm}")
        other = load_experiment(f"experiments/ablation.py:{theirs}")
        beside.read(ours.evaluation.beside)
        for name in ("beside", "test_problems"):
            setattr(ours.evaluation, name, getattr(other.evaluation, name))
        ours.run.folder, ours.run.track = other.run.folder, other.run.track
        assert ours == other


def test_the_short_quickstart_is_the_quickstart_made_small(monkeypatch):
    monkeypatch.chdir(ROOT)
    whole = load_experiment("experiments/quickstart.py")
    short = load_experiment("experiments/quickstart.py:short")
    short.validate()
    assert short.run.total_steps < whole.run.total_steps
    assert (short.model, short.reward, short.cccs, short.fgo) == (
        whole.model,
        whole.reward,
        whole.cccs,
        whole.fgo,
    )


@pytest.mark.parametrize(
    ("arm", "twin"), [("grpo", "ppo"), ("grpo_stepcoder", ""), ("no_cccs", ""), ("sft", "")]
)
def test_an_arm_of_the_wordings_differs_in_what_it_is_named_for(monkeypatch, arm, twin):
    monkeypatch.chdir(ROOT)
    one, other = (load_experiment(f"experiments/wordings.py:{x}") for x in (arm, twin))
    one.validate()
    assert one != other
    if arm.startswith("grpo"):
        assert (one.algorithm, other.algorithm) == ("grpo", "ppo")
        one.algorithm = "ppo"
    if arm == "no_cccs":
        assert other.cccs.enabled and not one.cccs.enabled
        one.cccs.enabled = True
    if arm == "sft":
        one.sft = other.sft
        one.evaluation.every = other.evaluation.every  # of updates, not of iterations
    assert one == other


@pytest.mark.slow  # a minute or two
def test_two_iterations_on_genuine_apps_plus(tmp_path, monkeypatch):
    path = need_data("apps_plus/problems.json")
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "run"
    experiment = "experiments/apps_plus_smoke.py"
    # of the simulated devices, each takes one rollout
    flags = ["--data.path", str(path), "--ppo.num_micro_batches", "1"]
    assert main(["train", experiment, *flags, "--run.folder", str(folder)]) == 0
    rows = read_metrics(folder / "metrics.jsonl")
    assert len(rows) == 2
    drawn = [
        json.loads(line)
        for file in (folder / "rollouts").iterdir()
        for line in file.read_text().splitlines()
    ]
    assert len(drawn) == 16 and len({row["problem"] for row in drawn}) == 8
    rows = json.loads(path.read_text())
    known = {str(row.get("id", f"apps_plus/{i}")) for i, row in enumerate(rows)}
    assert all(row["problem"] in known for row in drawn)
    assert not any(row["verdict"] == "infra" for row in drawn)
    assert all(row["executed"] for row in drawn)
