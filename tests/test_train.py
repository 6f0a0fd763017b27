"""The loop with real pool, model and curriculum: laws of a whole run."""

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import pytest

from stepcoder_jax import train
from stepcoder_jax.__main__ import main
from stepcoder_jax.config import CCCSConfig, Config, FGOConfig, ModelConfig, RewardConfig
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.devices import digests
from stepcoder_jax.execution import Pool, PoolSettings, limits
from stepcoder_jax.feedback import cccs, prompts
from stepcoder_jax.feedback.rewards import batch
from stepcoder_jax.pytrees import Rollout
from stepcoder_jax.records import Mode, Problem, Task, TestCase, Verdict
from stepcoder_jax.results import logger
from stepcoder_jax.runs import rl_run
from stepcoder_jax.runs.disk import checkpoint, sources
from stepcoder_jax.runs.disk.run_folder import PACKAGES, RunFolder
from stepcoder_jax.runs.shares import cores
from tests.execution.kit import make_settings
from tests.run_kit import (
    HERE,
    STEPS,
    check_names,
    metrics_of,
    rollouts_of,
    run_train,
    saved,
)

COMPILED = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """Counts the programs that JAX compiles, up to each row of metrics."""

    def __init__(self):
        self.total, self.per_row = 0, []

    def count(self, event, duration, **_):
        self.total += event == COMPILED

    def mark(self, write):
        def marked(*arguments):
            write(*arguments)
            self.per_row.append(self.total)

        return marked


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A whole run: its folder, and how many programs were compiled by each row."""
    folder = tmp_path_factory.mktemp("train") / "first"
    compilations = Compilations()
    jax.monitoring.register_event_duration_secs_listener(compilations.count)
    with pytest.MonkeyPatch.context() as patch:
        write = logger.Logger.write
        patch.setattr(
            logger.Logger,
            "write",
            lambda self, *row: compilations.mark(lambda *r: write(self, *r))(*row),
        )
        assert run_train(folder) == 0
    jax.monitoring.unregister_event_duration_listener(compilations.count)
    return folder, compilations.per_row


def assert_same_run(one, other):
    assert metrics_of(one) == metrics_of(other)
    assert rollouts_of(one) == rollouts_of(other)
    (state, curriculum, record, _), (state2, curriculum2, record2, _) = (
        saved(folder, STEPS) for folder in (one, other)
    )
    jax.tree.map(np.testing.assert_array_equal, state, state2)
    jax.tree.map(np.testing.assert_array_equal, curriculum, curriculum2)
    for name in ("reference", "best", "verdicts", "step"):
        assert record[name] == record2[name]
    for name in ("before.json", "after.json"):
        assert (one / name).read_text() == (other / name).read_text()


def test_the_run_is_no_trifle(first):
    """What the other tests compare must have something in it."""
    rows = metrics_of(first[0])
    assert [row["step"] for row in rows] == list(range(STEPS))
    verdicts = saved(first[0], STEPS)[2]["verdicts"]
    assert sum(verdicts.values()) == STEPS * 16 and len(verdicts) >= 2
    assert verdicts["pass"] > 0
    assert any(row["fgo/masked"] > 0 for row in rows)
    assert any(row["cccs/stage0_share"] < 1 for row in rows)
    assert rows[-1]["kl"] != 0 and rows[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert rows[1]["validation/pass@1"] is not None and rows[0]["validation/pass@1"] is None
    assert (first[0] / "curves.png").stat().st_size > 10_000


def test_every_metric_is_in_the_table(first):
    check_names(first[0])


def test_nothing_is_compiled_after_the_second_iteration(first):
    per_row = first[1]
    # the counter counts: start, advance, experience and update are compiled for each run,
    # small operations only where no earlier test of this process has used them
    assert per_row[0] >= 4
    assert per_row[1:] == [per_row[1]] * (STEPS - 1)


@pytest.mark.slow  # a resumed run that is the whole one, to the bit, says the same
def test_one_seed_gives_one_run(first, tmp_path):
    assert run_train(tmp_path / "second") == 0
    assert_same_run(first[0], tmp_path / "second")


@pytest.mark.long
def test_a_run_that_was_stopped_twice_is_the_uninterrupted_one(
    first, tmp_path, capfd, monkeypatch
):
    """By SIGTERM wherever it finds the process, and by Ctrl-C in a validation."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "stepcoder_jax", "train", HERE]
    command += ["--run.folder", str(folder), "--run.resume", "auto"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        metrics = folder / "metrics.jsonl"
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.read_text().count("\n") >= 1:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=300)
    assert process.returncode == 75, told
    assert "SIGTERM: saving" in told and "Traceback" not in told
    assert "--run.resume" in told and str(folder) in told
    step = RunFolder(folder).latest(best=False)
    assert step is not None and 1 <= step < STEPS
    validate = rl_run.Run.validate

    def stopped(run):
        if int(run.state.step) == STEPS:
            signal.raise_signal(signal.SIGINT)
        return validate(run)

    with monkeypatch.context() as patch:
        patch.setattr(rl_run.Run, "validate", stopped)
        assert run_train(folder, "--run.resume") == 130
    assert f"saved iteration {STEPS} in" in capfd.readouterr().err
    assert len(metrics_of(folder)) == STEPS - 1  # the last row waits for its validation
    # the newest is damaged: the one before is used, and what is later comes again
    if step < STEPS - 1:
        (folder / "checkpoints" / str(STEPS) / "_CHECKPOINT_METADATA").unlink()
    assert run_train(folder, "--run.resume", "auto") == 0
    told = capfd.readouterr().err
    assert ("_CHECKPOINT_METADATA is missing; the one before" in told) == (step < STEPS - 1)
    for left in (folder / "checkpoints").glob("*.aside"):
        shutil.rmtree(left)
    assert_same_run(first[0], folder)


def test_a_step_can_be_chosen_and_what_was_later_is_set_aside(first, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(first[0], folder)
    flags = ("--run.total_steps", "2", "--evaluation.test_problems", "0")
    assert run_train(folder, "--run.resume", "--run.step", "3") == 2
    assert "no checkpoint of step 3; found steps: 2, 4" in capfd.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    config["config"]["evaluation"]["test_problems"] = 0
    (folder / "config.json").write_text(json.dumps(config))
    assert run_train(folder, "--run.resume", "--run.step", "2", *flags) == 0
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert {"2", "4.aside", "best"} == names
    assert len(metrics_of(folder)) == 2


def test_a_start_that_fails_takes_away_what_it_made(tmp_path, monkeypatch):
    class Failed(Exception):
        pass

    def fail(params):
        (tmp_path / "b" / "run" / "mine").write_text("not of the run")
        raise Failed

    monkeypatch.setattr(rl_run.digests, "digest", fail)
    (tmp_path / "b" / "run").mkdir(parents=True)
    with pytest.raises(Failed):
        run_train(tmp_path / "b" / "run")
    assert [path.name for path in (tmp_path / "b" / "run").iterdir()] == ["mine"]
    (tmp_path / "b" / "run" / "mine").unlink()
    with pytest.raises(Failed):
        run_train(tmp_path / "a" / "deep" / "run")
    assert not (tmp_path / "a").exists()


@pytest.mark.long
def test_a_row_that_waited_is_logged_once_and_the_last_state_is_what_is_saved(
    tmp_path, monkeypatch, capfd
):
    """Ctrl-C in a validation that is not due any more, and in the verdicts at the end."""
    folder, grade, at = tmp_path / "run", rl_run.Run.grade, ["validation"]

    def stopped(run, actor, split, count, label):
        if label in at:
            signal.raise_signal(signal.SIGINT)
        return grade(run, actor, split, count, label)

    monkeypatch.setattr(rl_run.Run, "grade", stopped)
    flags = ["--evaluation.every", "3", "--evaluation.validation_problems", "4"]
    flags += ["--evaluation.test_problems", "4", "--run.keep", "9"]
    once = ["--run.total_steps", "1"]
    assert run_train(folder, *flags, *once) == 130
    assert saved(folder, 1)[2]["pending"] and metrics_of(folder) == []
    at[:] = ["test after"]
    more = ["--run.save_every", "1", "--run.total_steps", "4", "--run.resume"]
    assert run_train(folder, *flags, *more) == 130
    assert [row["step"] for row in metrics_of(folder)] == [0, 1, 2, 3]
    assert metrics_of(folder)[0]["validation/pass@1"] is None
    assert [saved(folder, step)[2]["pending"] for step in (2, 3, 4)] == [None] * 3
    assert RunFolder(folder).latest(best=True) == 3
    assert "saved iteration 4 in" in capfd.readouterr().err
    at.clear()
    assert run_train(folder, *flags, *more) == 0
    share = metrics_of(folder)[-4:]
    share = 100 * np.mean([row["cccs/stage0_share"] for row in share])
    assert f"Rollouts at stage 0: {share:.0f} %" in capfd.readouterr().out


@pytest.mark.long
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(
    tmp_path, monkeypatch, capfd
):
    write, limits_of = logger.Logger.write_rollouts, resource.RLIMIT_FSIZE
    soft, hard = resource.getrlimit(limits_of)

    def full(self, step, rows):
        for thread in threading.enumerate():
            if thread.name == "save":  # the limit is the whole process's
                thread.join()
        resource.setrlimit(limits_of, (2000 if step else soft, hard))  # of each file
        try:
            write(self, step, rows)
        finally:
            resource.setrlimit(limits_of, (soft, hard))

    folder, flags = tmp_path / "run", ["--run.total_steps", "2", "--run.save_every", "1"]
    flags += ["--evaluation.every", "0", "--evaluation.test_problems", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(logger.Logger, "write_rollouts", full)
        assert run_train(folder, *flags) == 2
    told = capfd.readouterr().err
    assert "no room (File too large); the checkpoints are left" in told.splitlines()[-1]
    assert "Traceback" not in told
    assert [path.name for path in (folder / "rollouts").iterdir()] == ["0.jsonl"]
    assert RunFolder(folder).latest(best=False) == 1
    assert run_train(folder, *flags, "--run.resume", "auto") == 0
    assert [row["step"] for row in metrics_of(folder)] == [0, 1]


@pytest.mark.long
def test_an_update_that_is_not_finite_ends_the_run_before_it(tmp_path, monkeypatch, capfd):
    """Nothing of it is learnt; from where it stopped the run is the undisturbed one."""
    given, flags = (
        batch.feedback,
        ["--run.total_steps", "2", "--ppo.num_minibatches", "1"],
    )
    flags += ["--evaluation.every", "0", "--evaluation.test_problems", "0"]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert run_train(whole, *flags) == 0

    def broken(*arguments, step, **more):
        feedback, metrics = given(*arguments, step=step, **more)
        if step == 1:
            feedback = feedback._replace(rewards=feedback.rewards * np.float32(np.inf))
        return feedback, metrics

    with monkeypatch.context() as patch:
        patch.setattr(batch, "feedback", broken)
        assert run_train(folder, *flags) == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if "is not finite" in x]
    dump = folder / "nonfinite" / "1"
    assert "stepcoder train: iteration 1, update 1 of 1: the gradient of actor/" in line
    assert f"`stepcoder replay {dump}`" in line
    assert RunFolder(folder).latest(best=False) == 1
    assert main(["replay", str(dump)]) == 0
    assert capfd.readouterr().out.endswith("as in the run\n")
    assert run_train(folder, *flags, "--run.resume") == 0
    assert metrics_of(folder) == metrics_of(whole)
    states = [saved(x, 2)[0] for x in (folder, whole)]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_validation_without_problems_is_refused(tmp_path, capfd):
    file, folder = tmp_path / "problems.json", tmp_path / "run"
    benchmark.write(benchmark.generate("train", 0, (2, 0, 0)), file)
    flags = ["--data.path", str(file), "--evaluation.test_problems", "0"]
    assert run_train(folder, *flags) == 2
    assert "evaluation.every: the run has no validation" in capfd.readouterr().err
    assert not folder.exists()


@pytest.mark.slow  # a whole run
def test_another_seed_gives_another_run(first, tmp_path):
    assert run_train(tmp_path / "other", "--run.seed", "1", "--run.total_steps", "1") == 0
    assert rollouts_of(tmp_path / "other")["0.jsonl"] != rollouts_of(first[0])["0.jsonl"]


def test_a_checkpoint_holds_what_a_resume_needs(first):
    folder, _ = first
    state, curriculum, record, config = saved(folder, STEPS)
    assert int(state.step) == STEPS == record["step"]
    assert curriculum.visits.sum() == STEPS * 4 and len(curriculum.stage) == 12
    assert float(state.reward_scale.count) == STEPS * 16
    assert set(record["versions"]) == {"python", *PACKAGES}
    reference = sources.load_reference(folder / "reference")
    assert record["reference"] == digests.digest(reference)
    assert record["config"]["sampling"]["problems_per_step"] == 4
    resolved = json.loads((folder / "config.json").read_text())["config"]
    assert record["config"] == resolved
    assert resolved["model"]["hidden_size"] == config.model.hidden_size
    told = Counter(
        json.loads(line)["verdict"]
        for text in rollouts_of(folder).values()
        for line in text.splitlines()
    )
    assert record["verdicts"] == told
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "2",
        "4",
        "best",
    ]
    assert len(checkpoint.steps_in(folder / "checkpoints" / "best")) == 1


class OlderCurriculum(NamedTuple):
    """The state of a curriculum before it knew the visits at the stage."""

    stage: np.ndarray
    rho: np.ndarray
    visits: np.ndarray


def test_a_checkpoint_of_an_older_curriculum_is_restored(first, tmp_path):
    state, curriculum, record, _ = saved(first[0], STEPS)
    folder = RunFolder(tmp_path)
    folder.save(state, OlderCurriculum(*curriculum[:3]), record, keep=1, best=False)
    folder.saver.wait()
    wanted = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    _, found, _ = folder.restore(None, wanted, best=False)
    assert found.stage_visits.tolist() == [0] * 12
    jax.tree.map(np.testing.assert_array_equal, found[:3], curriculum[:3])


@pytest.mark.long
def test_an_adaptive_run_goes_on_as_the_uninterrupted_one(tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    flags = ["--cccs.prefix", "adaptive", "--ppo.no_scale_rewards"]
    assert run_train(whole, *flags) == 0
    assert run_train(parted, *flags, "--run.total_steps", "2") == 0
    assert run_train(parted, *flags, "--run.resume", "yes") == 0
    assert_same_run(whole, parted)
    rows = [
        json.loads(line)
        for text in rollouts_of(whole).values()
        for line in text.splitlines()
    ]
    groups = {}
    for i, row in enumerate(rows):
        groups.setdefault(i // 4, set()).add((row["problem"], row["stage"], row["head"]))
    assert all(len(group) == 1 for group in groups.values())
    assert len({row["stage"] for row in rows}) > 2
    half, end = (saved(whole, step)[1] for step in (2, STEPS))
    assert (half.stage != end.stage).any()


def test_rollouts_on_disk_hold_what_debugging_needs(first):
    for name, text in rollouts_of(first[0]).items():
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(rows) == 16, name
        for row in rows:
            check_rollout(row)


def check_rollout(row):
    tokens = len(row["executed"])
    assert tokens == len(row["advantages"]) == len(row["values"]) == len(row["spans"])
    source = (row["head"] + row["completion"]).encode()
    assert tokens == len(row["logprobs"]) and max(row["logprobs"]) <= 0
    assert row["rewards"] == [[tokens - 1, pytest.approx(row["reward"])]]
    assert row["difficulty"] in row["problem"] and "turns" not in row
    for shown in row["shown"]:
        assert shown["verdict"] == row["tests"][shown["test"]]
        assert "Got" in shown or shown["verdict"] != "wrong"
    spans = [span for span in row["spans"] if span is not None]
    pieces = b"".join(source[start:stop] for start, stop in spans)
    assert pieces.decode() == row["completion"]
    assert row["valid"] and len(row["tests"]) == 6
    settings = RewardConfig()
    expected = {
        "pass": settings.passed,
        "wrong": settings.wrong,
        "compile": settings.compile,
    }
    assert row["reward"] == pytest.approx(expected.get(row["verdict"], settings.runtime))
    assert (row["verdict"] == "pass") == (set(row["tests"]) == {"pass"})


def test_a_run_on_a_file_with_a_weakened_sandbox(tmp_path, monkeypatch, capfd):
    """Measured limits are the run's, and what programs could do is said at every step."""
    file, folder = tmp_path / "problems.json", tmp_path / "run"
    benchmark.write(benchmark.generate("train", 0, (2, 2, 0)), file)
    monkeypatch.setattr(cores, "PoolSettings", partial(PoolSettings, without=("seccomp",)))
    flags = ["--data.path", str(file), "--run.total_steps", "2"]
    flags += ["--evaluation.test_problems", "0", "--evaluation.every", "0"]
    assert run_train(folder, *flags) == 2
    assert "--execution.allow_unsafe" in capfd.readouterr().err
    assert run_train(folder, *flags, "--execution.allow_unsafe") == 0
    told = capfd.readouterr().err
    # by the pool that measures the limits, by the run's own, and at both steps
    assert told.count("untrusted programs can: ") == 2 + 2
    digest = limits.digest_file(file)
    kept = limits.read_limits(folder / "limits.json", digest)
    assert len(kept) == 4 and set(kept.values()) == {1.0}
    rows = logger.read_metrics(folder / "metrics.jsonl")
    assert len(rows) == 2
    for row in rows:
        assert (row["judge/level"], row["judge/unsafe"]) == (1, 1)
        assert row["judge/programs"] == 16  # of this iteration alone
        shares = {v: row[f"verdict/{v}"] for v in ("pass", "wrong", "compile")}
        assert shares == {v: row[f"judge/verdict/{v}"] / 16 for v in shares}
        assert 0 < row["judge/seconds_p50"] <= row["judge/seconds_p99"]


# The curriculum, the judge and the masks on completions written by hand. E = 4, so there
# are two stages, and stage 1 is cut before conditional number 2: `if total > 20`.
SOLUTION = """\
def solve(xs):
    total = 0
    for x in xs:
        if x > 0:
            total += x
    if total > 20:
        total = 20
    elif total > 10:
        total = 10
    return total
"""
PROBLEM = Problem(
    "hand",
    "Sum.",
    "def solve(xs):\n",
    SOLUTION,
    "solve",
    Mode.CALL,
    tuple(TestCase((xs,), y) for xs, y in (([30], 20), ([40, -1], 20), ([25], 20))),
    "introductory",
    1.0,
)
CUT = SOLUTION.index("    if total > 20")
# completion -> verdict, and the code that no test executes (all tests sum above 20)
BY_HAND = {
    SOLUTION[CUT:]: (Verdict.PASS, ["elif total > 10:", "total = 10"]),
    "    if total < 0:\n        return 1\n    return 3\n": (Verdict.WRONG, ["return 1"]),
    "    total.x\n    return 20\n": (Verdict.RUNTIME, ["return 20"]),
    "    return )\n    return 20\n": (Verdict.COMPILE, []),
}


def written_rollout(tokenizer, table, completions):
    ids = [tokenizer.encode(text + "```", add_special_tokens=False) for text in completions]
    width = max(map(len, ids))
    tokens = np.array([row + [0] * (width - len(row)) for row in ids], np.int32)
    count = np.array([len(row) for row in ids], np.int32)
    mask = np.arange(width)[None] < count[:, None]
    zeros = np.zeros(mask.shape, np.float32)
    start = np.zeros(len(ids), np.int32)  # nothing stands before the completion
    return Rollout(tokens, start, count, mask, zeros, zeros, count < 0)


def test_feedback_of_the_real_judge_on_completions_written_by_hand():
    tokenizer = sources.load_tokenizer(ModelConfig(tokenizer="builtin"))
    table = prompts.token_bytes(tokenizer)
    settings = CCCSConfig(alpha=1.0, threshold=0.2)
    curriculum = cccs.initial([PROBLEM], settings)
    assert curriculum.stage.tolist() == [1]
    head = cccs.pose(PROBLEM, 0, 1, settings).head
    assert head == SOLUTION[:CUT]
    tasks = [Task(PROBLEM, 0, 1, head)] * len(BY_HAND)
    rollout = written_rollout(tokenizer, table, BY_HAND)
    programs = [
        prompts.decode(task, row[mask].tolist(), table, "```")
        for task, row, mask in zip(tasks, rollout.tokens, rollout.mask, strict=True)
    ]
    assert [program.source for program in programs] == [head + text for text in BY_HAND]
    with Pool(make_settings(workers=1)) as pool:
        reports = pool.run(programs)
    feedback, _ = batch.feedback(
        programs,
        reports,
        rollout.mask,
        reward=RewardConfig(),
        fgo=FGOConfig(),
        seed=0,
        step=0,
    )
    for i, (verdict, unexecuted) in enumerate(BY_HAND.values()):
        assert reports[i].verdict is verdict
        kept, mask = feedback.executed[i], rollout.mask[i]
        dropped = [b"\n" if k else table[t] for t, k in zip(rollout.tokens[i][mask], kept)]
        lines = [line.strip() for line in b"".join(dropped).decode().split("\n")]
        assert [line for line in lines if line] == unexecuted
        assert np.flatnonzero(feedback.rewards[i]).tolist() == [int(mask.sum()) - 1]
    np.testing.assert_allclose(feedback.rewards.sum(axis=1), [1.0, -0.3, -0.6, -1.0])
    # one of four passed: rho = 0.25 > 0.2, so the next prompt gives the starter code alone
    after = cccs.advance(curriculum, tasks, reports, settings)
    assert after.stage.tolist() == [0] and after.rho.tolist() == [0.0]
    assert cccs.pose(PROBLEM, 0, 0, settings).head == "def solve(xs):\n"
    stays = dataclasses.replace(settings, threshold=0.25)
    assert cccs.advance(curriculum, tasks, reports, stays).stage.tolist() == [1]


@pytest.mark.parametrize(
    ("mask", "granularity", "coverage"),
    [
        ("executed", "statement", "statement"),
        ("random", "expression", "expression"),
        ("none", "expression", "none"),
    ],
)
def test_the_pool_notes_what_the_mask_needs(monkeypatch, mask, granularity, coverage):
    class Asked(Exception):
        pass

    def ask(pool_settings):
        raise Asked(pool_settings.coverage)

    monkeypatch.setattr(train, "open_pool", ask)
    config = Config(fgo=FGOConfig(mask=mask, granularity=granularity))
    with pytest.raises(Asked, match=f"^{coverage}$"):
        train.train(config)
