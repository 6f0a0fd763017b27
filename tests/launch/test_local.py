"""`local_multiprocess.sh` for real: two processes train to the end, or are told why not."""

import json
import os
import socket
import subprocess
import sys

import pytest

from experiments.benchmarks import host_runs
from tests.launch.kit import LAUNCH

pytestmark = pytest.mark.long
LOCAL = LAUNCH / "local_multiprocess.sh"


def train(*words):
    """The launcher with two processes; its code, and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    run = host_runs.start(
        [str(LOCAL), "--port", port, "2", "train", *map(str, words)],
        env=os.environ
        | {"PYTHON": sys.executable}
        | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = []
    try:
        while run.poll() is None:
            seen = host_runs.descendants(run.pid) or seen
            try:
                said = run.communicate(timeout=5)[1]
            except subprocess.TimeoutExpired:
                continue
    finally:
        for process in host_runs.descendants(run.pid)[::-1]:
            process.kill()
    assert not [process for process in seen if process.lives]
    return run.returncode, said


def test_two_processes_train_to_the_end(tmp_path):
    folder = tmp_path / "run"
    flags = ("--run.total_steps", "2", "--run.save_every", "2")
    code, said = train(host_runs.HERE, "--run.folder", folder, *flags)
    assert code == 0, said
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [0, 1]
    assert [row["judge/programs"] for row in rows] == [8, 8]
    log = (folder / "hosts" / "1.log").read_text().splitlines()
    assert [line.split(", ")[0] for line in log] == [
        f"iteration {step}: judge/programs 4" for step in range(2)
    ]
    assert (folder / "checkpoints" / "2").is_dir() and (folder / "curves.png").is_file()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--run.folder", "{tmp}"), "run.folder: {tmp} is not empty; add --run.resume"),
        (("--run.folder", "{tmp}/file/run"), "run.folder: cannot write to {tmp}/file/run"),
        (("--model.checkpoint", "{tmp}/no"), "model.checkpoint: {tmp}/no does not exist"),
        (
            ("--model.checkpoint", "{tmp}"),
            "{tmp}/config.json: expected a Hugging Face folder",
        ),
        (("--run.nosuch", "3"), "Unrecognized options: --run.nosuch"),
        (("--data.path", "{tmp}/file"), "{tmp}/file: expected an APPS+"),
        (("--data.path", "{tmp}/no"), "data.path: {tmp}/no does not exist"),
        (("--reward.terms", "{tmp}/no.py:f"), "reward.terms: {tmp}/no.py does not exist"),
        (("--execution.python", "nosuch"), "execution.python: nosuch is no program"),
        (("--mesh.fsdp", "3"), "nearest: --mesh.fsdp 2"),
        (
            ("--sampling.problems_per_step", "3", "--sampling.rollouts_per_problem", "3"),
            "nearest: --sampling.problems_per_step",
        ),
        (("--run.resume", "yes"), "holds no run"),
        (("--run.step", "3"), "run.step: 3 is a checkpoint to go on from"),
    ],
)
def test_a_mistake_is_one_line_on_both_and_code_2(words, why, tmp_path):
    (tmp_path / "file").write_text("{not json\n")
    flags = [word.replace("{tmp}", str(tmp_path)) for word in words]
    if "--run.folder" not in flags:
        flags += ["--run.folder", str(tmp_path / "run")]
    code, said = train(host_runs.HERE, *flags)
    lines = said.splitlines()
    assert code == 2 and len(lines) == 2 and lines[0] == lines[1], said
    assert why.replace("{tmp}", str(tmp_path)) in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
