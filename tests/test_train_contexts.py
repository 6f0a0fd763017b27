"""A whole run that answers failed programs: records, SFT, RL; killed, and gone on."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated import dialect, teaching
from stepcoder_jax.data.refinements import (
    RefinementRecord,
    append_refinements,
    read_refinements,
)
from stepcoder_jax.records import Attempt, Variant, Verdict
from stepcoder_jax.runs.disk.run_folder import RunFolder
from tests.commands.test_refine import KILLED, kept
from tests.run_kit import HERE, check_names, metrics_of, rollouts_of, run_train, saved

pytestmark = pytest.mark.long
STEPS = 3
ROOM = ["--prompt.max_prompt_length", "400", "--sampling.max_completion_length", "112"]
BARE = ["--evaluation.every", "0", "--evaluation.test_problems", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four problems, an explained and mended wrong program of each, a model that knows how
    such an answer looks."""
    folder = tmp_path_factory.mktemp("contexts")
    problems = dialect.generate("train", 3, (4, 0, 0))
    own.write(problems, folder / "problems.jsonl")
    rng = np.random.default_rng(1)
    with (folder / "records.jsonl").open("w") as file:
        for problem in problems:
            wrong = dialect.wrong_programs(rng, problem, 1)[0]
            told = Attempt(wrong, Verdict.WRONG, 0, "The program fails this test:\nGot: 7")
            said = teaching.explain(problem, wrong)
            mended = (problem.solution, Variant.EXPLAIN, "rule", 1, Verdict.PASS, 5, 5)
            made = RefinementRecord(
                problem.id, f"{problem.id}#0", wrong, "me", told, said, *mended, 0.5, False
            )
            append_refinements(file, [made])
    flags = ["--model.checkpoint", "dialect", "--data.path", str(folder / "problems.jsonl")]
    flags += ["--sft.records", str(folder / "records.jsonl"), "--sft.batch_size", "8"]
    flags += ["--sft.epochs", "60", "--sft.learning_rate", "4e-3", *ROOM, *BARE]
    assert main(["sft", HERE, "--run.folder", str(folder / "sft"), *flags]) == 0
    return folder


def flags_of(folder):
    flags = ["--model.checkpoint", str(folder / "sft"), *ROOM, *BARE]
    flags += ["--data.path", str(folder / "problems.jsonl"), "--cccs.no_enabled"]
    flags += ["--data.contexts", str(folder / "records.jsonl")]
    flags += [
        "--prompt.variant",
        "explain",
        "--execution.tests",
        "run_all",
        "--reward.explanation",
        "clipped",
    ]
    flags += ["--ppo.no_scale_rewards", "--ppo.coupling", "hard_split"]
    flags += ["--sampling.problems_per_step", "2", "--ppo.num_minibatches", "1"]
    flags += ["--run.save_every", "1"]
    flags += ["--run.total_steps", str(STEPS), "--sampling.temperature", "0.8"]
    return [*flags, "--sampling.top_p", "0.95", "--ppo.critic_warmup_steps", "0"]


@pytest.fixture(scope="module")
def whole(folder):
    assert run_train(folder / "whole", *flags_of(folder)) == 0
    return folder / "whole"


def test_every_metric_is_in_the_table(whole):
    check_names(whole)


def rows_of(run):
    return [json.loads(x) for text in rollouts_of(run).values() for x in text.splitlines()]


def test_rewards_stand_on_two_tokens_at_most(whole):
    rows = rows_of(whole)
    assert len(rows) == STEPS * 8 and len({row["problem"] for row in rows}) == 4
    assert {len(row["turns"]) for row in rows} == {1}
    assert any(row["explained"] and row["completion"] for row in rows)
    for row in rows:
        last = len(row["executed"]) - 1
        places = {place for place, _ in row["rewards"]}
        assert places <= {last, row["explained"] - 1} and row["valid"]
        assert all(row["executed"][: row["explained"]])
    metrics = metrics_of(whole)
    assert all(row["split/explained"] > 0 for row in metrics)
    assert all(-5 <= row["split/reward_program"] <= 5 for row in metrics)
    assert metrics[-1]["kl"] > 0


def test_a_run_that_was_killed_is_the_uninterrupted_one(folder, whole):
    parted = folder / "parted"
    command = [sys.executable, "-m", "stepcoder_jax", "train", HERE, *flags_of(folder)]
    command += ["--run.folder", str(parted), "--run.resume", "auto"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 900
        while process.poll() is None and time.monotonic() < deadline:
            if (RunFolder(parted).latest(best=False) or 0) >= 1:
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    step = RunFolder(parted).latest(best=False)
    assert step is not None and 1 <= step < STEPS
    assert run_train(parted, *flags_of(folder), "--run.resume", "auto") == 0
    assert metrics_of(parted) == metrics_of(whole)
    assert rollouts_of(parted) == rollouts_of(whole)
    (state, *_), (other, *_) = saved(parted, STEPS), saved(whole, STEPS)
    jax.tree.map(np.testing.assert_array_equal, state, other)


def test_other_records_do_not_go_on_with_a_run(folder, whole, capfd):
    file = folder / "records.jsonl"
    text = file.read_text()
    file.write_text(text.replace("Got: 7", "Got: 8"))
    try:
        assert run_train(whole, *flags_of(folder), "--run.resume") == 2
    finally:
        file.write_text(text)
    said = capfd.readouterr().err.splitlines()[-1]
    assert "data.contexts: the text or the tests of problem" in said


@pytest.mark.parametrize("windows", [1, 7])  # while it draws, and while it answers itself
def test_a_model_that_teaches_itself_is_killed_and_goes_on_to_the_same(
    folder, tmp_path, windows
):
    """The self-bootstrap of arXiv:2405.18649: both its programs and answers are drawn."""
    problems = tmp_path / "problems.jsonl"
    own.write(dialect.generate("train", 5, (6, 0, 0)), problems)
    flags = ["refine", str(folder / "sft"), "--problems", str(problems), "--out"]
    drawn = ["--samples-per-problem", "3", "--temperature", "1", "--answers", "2"]
    assert main([*flags, str(tmp_path / "whole"), *drawn]) == 0
    command = [sys.executable, "-c", KILLED, str(windows), *flags]
    parted = [str(tmp_path / "parted"), *drawn]
    died = subprocess.run([*command, *parted], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    state = json.loads((tmp_path / "parted" / "state.json").read_text())
    programs, answers = (state[x]["done"] for x in ("wrong.jsonl", "records.jsonl"))
    assert (programs, answers) == ((1, 0) if windows == 1 else (6, 5))
    assert main([*flags, *parted, "--resume"]) == 0
    assert kept(tmp_path / "parted") == kept(tmp_path / "whole")
    records = read_refinements([str(tmp_path / "whole" / "records.jsonl")])
    assert {x.teacher for x in records} == {x.source for x in records}
    assert records
