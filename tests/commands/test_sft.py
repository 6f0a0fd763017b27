"""`stepcoder sft`: what it writes, validates and keeps; its resume; its complaints."""

import json
import math
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.commands import sft
from stepcoder_jax.config import Config, ModelConfig
from stepcoder_jax.data.generated import benchmark, dialect
from stepcoder_jax.feedback import sft_rows
from stepcoder_jax.learning import sft as sft_step
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.models import policy, weights
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.checkpoint import CheckpointError
from stepcoder_jax.runs.disk.sft_folder import Model, SFTFolder
from tests.commands.sft_kit import (
    STEPS,
    assert_train_begins_with,
    bytes_of,
    get_config,
    metrics_of,
    run_sft,
)
from tests.run_kit import check_names

EXPERIMENT = """
from stepcoder_jax import config as c


def get_config(arg=""):
    return c.Config(
        model=c.ModelConfig(
            vocab_size=320, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2,
            num_kv_heads=1, head_dim=16, max_positions=448,
        ),
        prompt=c.PromptConfig(template="plain", max_prompt_length=224),
        sampling=c.SamplingConfig(max_completion_length=224),
        data=c.DataConfig(path=r"{path}"),
        sft=c.SFTConfig(epochs=6, batch_size=16, learning_rate=1e-2, warmup_fraction=0.1),
    )
"""


@pytest.fixture
def experiment(tmp_path):
    """A function: problems -> an experiment file that learns them from nothing."""

    def write(problems):
        path, file = tmp_path / "problems.json", tmp_path / "tiny.py"
        benchmark.write(problems, path)
        file.write_text(EXPERIMENT.format(path=path))
        return str(file)

    return write


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A whole run with validation."""
    folder = tmp_path_factory.mktemp("sft") / "first"
    assert run_sft(folder) == 0
    return folder


def test_the_command_learns_and_writes_a_hugging_face_folder(experiment, tmp_path, capsys):
    problems = benchmark.generate("validation", 3, (48, 0, 0))  # short: few widths compile
    file = experiment(problems)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        assert main(["sft", file, "--run.folder", str(folder)]) == 0
    assert f"--model.checkpoint {folders[0]}" in capsys.readouterr().out
    assert bytes_of(folders[0]) == bytes_of(folders[1])  # deterministic
    assert json.loads((folders[0] / "config.json").read_text())["vocab_size"] == 320
    shape, params = weights.load_checkpoint(folders[0], jnp.float32)
    encoder = sources.load_tokenizer(ModelConfig(tokenizer=str(folders[0])))
    config = Config(model=ModelConfig(**shape))
    config.prompt.template = "plain"
    examples, _ = sft_rows.canonical(problems, encoder, config)
    width = sft_rows.BUCKET * 4
    group = sft_rows.Group([[example] for example in examples[:16]], width)
    batch = sft_rows.make_batch(group, 16)
    fresh = policy.init_params(config.model, jax.random.key(0))
    before, after = (
        float(sft_step.loss(config, ONE_DEVICE, p, batch)) / batch.scored.sum()
        for p in (fresh, params)
    )
    assert after < before - 1.0


def test_every_metric_is_in_the_table(first):
    check_names(first, is_sft=True)


def test_what_a_run_logs(first):
    rows = metrics_of(first)
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert [row["epoch"] for row in rows] == [0, 0, 0, 0, 1, 1]
    schedule = sft_step.make_schedule(get_config().sft, STEPS)
    for i, row in enumerate(rows):
        assert row["learning_rate"] == pytest.approx(float(schedule(i)))
        assert 0 < row["loss"] < 2 and 0 <= row["padding"] < 0.6
        assert row["tokens"] == round((1 - row["padding"]) * 8 * 256)
        is_validated = i in (2, 5)
        assert row.keys() == rows[0].keys()
        measured = [row[name] is not None for name in row if name.startswith("validation/")]
        assert len(measured) == 6 and set(measured) == {is_validated}
        if is_validated:
            perplexity = math.exp(row["validation/loss"])
            assert row["validation/perplexity"] == pytest.approx(perplexity)
            assert 0 < row["validation/pass@1"] <= 1
    assert (first / "curves.png").stat().st_size > 10_000
    assert not (first / "rollouts").exists()


def test_the_validation_loss_is_that_of_the_model(first):
    """Of the model on disk, whose weights are rounded to bfloat16."""
    config = get_config()
    shape, params = weights.load_checkpoint(first, jnp.float32)
    config.model = ModelConfig(**shape)
    problems = sources.load_problems(config.data, "validation")[:8]
    tokenizer = sources.load_tokenizer(ModelConfig(tokenizer=str(first)))
    examples, _ = sft_rows.canonical(problems, tokenizer, config)
    batch = sft_rows.make_batch(sft_rows.Group([[x] for x in examples], 384), 8)
    config.sft.packing = 0
    value = sft_step.loss(config, ONE_DEVICE, params, batch) / batch.scored.sum()
    assert metrics_of(first)[-1]["validation/loss"] == pytest.approx(float(value), rel=0.02)


def test_checkpoints_are_models_and_few(first):
    for folder in (first, *(first / "checkpoints").glob("*[0-9]")):
        said = json.loads((folder / "generation_config.json").read_text())
        eos = SFTFolder(first).tokenizer().eos_token_id
        assert said["eos_token_id"] == eos and said["max_new_tokens"] == 160
        config = json.loads((folder / "config.json").read_text())
        assert config["eos_token_id"] == eos
        modes = {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()}
        assert len(modes) == 1, folder
    kept = sorted(path.name for path in (first / "checkpoints").iterdir())
    assert kept == [str(STEPS), "best"]  # run.keep is 1, saved at 2, 4 and 6
    assert bytes_of(first / "checkpoints" / str(STEPS)) == bytes_of(first)
    (best,) = SFTFolder(first).best.iterdir()
    rows = {row["step"] + 1: row for row in metrics_of(first)}
    score = {
        step: (row["validation/pass@1"], -row["validation/loss"])
        for step, row in rows.items()
        if row["validation/loss"] is not None
    }
    assert int(best.name) == max(score, key=lambda step: score[step])
    assert not (first / "resume").exists()


def test_train_begins_with_a_checkpoint_as_actor_critic_and_reference(first, tmp_path):
    (best,) = SFTFolder(first).best.iterdir()
    assert_train_begins_with(best, tmp_path / "run")


def stop_at(patch, step, action):
    """Let `action` happen before update `step` of runs from here on."""
    update = sft.Run.update

    def stopped(self, group):
        if self.step == step:
            action()
        return update(self, group)

    patch.setattr(sft.Run, "update", stopped)


class Killed(Exception):
    """In place of what ends a process."""


def kill(*_):
    raise Killed


LORA = ("--model.lora_rank", "2", "--evaluation.every", "0")


@pytest.mark.long
@pytest.mark.parametrize(
    "flags",
    [pytest.param((), id="all"), pytest.param(LORA, id="lora", marks=pytest.mark.slow)],
)
def test_a_run_that_was_stopped_twice_is_the_uninterrupted_one(
    first, tmp_path, capsys, flags
):
    """Once by Ctrl-C before anything was kept, once killed between two checkpoints; and
    by SIGTERM in the last validation."""
    folder, whole = tmp_path / "run", first
    if flags:
        whole = tmp_path / "whole"
        assert run_sft(whole, *flags) == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 0, lambda: signal.raise_signal(signal.SIGINT))
        assert run_sft(folder, *flags) == 130
    told = capsys.readouterr().err
    assert f"saved update 1 of {STEPS} in {folder}" in told and "--run.resume" in told
    assert len(metrics_of(folder)) == 1
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, 5, kill)
        run_sft(folder, "--run.resume", *flags)
    assert len(metrics_of(folder)) == 5  # of which one was not kept
    if not flags:
        with pytest.MonkeyPatch.context() as patch:
            validate = sft.Run.validate

            def stopped(self):
                signal.raise_signal(signal.SIGTERM)
                return validate(self)

            patch.setattr(sft.Run, "validate", stopped)
            assert run_sft(folder, "--run.resume", "auto") == 75
        assert f"saved update {STEPS} of {STEPS}" in capsys.readouterr().err
        assert len(metrics_of(folder)) == STEPS - 1
    assert run_sft(folder, "--run.resume", "auto", *flags) == 0
    assert metrics_of(folder) == metrics_of(whole)
    assert bytes_of(folder) == bytes_of(whole)
    if not flags:
        (best,), (other,) = (SFTFolder(x).best.iterdir() for x in (folder, whole))
        assert best.name == other.name and bytes_of(best) == bytes_of(other)


def test_what_a_resume_refuses(first, tmp_path, capsys, experiment):
    def refused(words, *arguments):
        assert main(["sft", *arguments]) == 2
        said = capsys.readouterr().err.splitlines()
        assert words in said[-1], said

    here = ("tests/commands/sft_kit.py", "--run.folder")
    assert main(["sft", *here, str(first), "--run.resume", "auto"]) == 0
    assert f"the run in {first} is over" in capsys.readouterr().err
    refused("is not empty", *here, str(first))
    refused(f"the run in {first} is over", *here, str(first), "--run.resume")
    refused("holds no run", *here, str(tmp_path / "none"), "--run.resume")
    file, folder = experiment(benchmark.generate("validation", 3, (24, 0, 0))), "run"
    where = ("--run.folder", str(tmp_path / folder), "--model.tokenizer", "builtin")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 0, lambda: signal.raise_signal(signal.SIGINT))
        assert main(["sft", file, *where]) == 130
    capsys.readouterr()
    again = (file, *where, "--run.resume")
    refused("sft.epochs: the run in", *again, "--sft.epochs", "7")
    experiment(benchmark.generate("validation", 4, (24, 0, 0)))
    refused("the problems or samples have changed since", *again)


def test_a_tokenizer_is_trained_on_what_a_failed_test_says_too():
    problem = dialect.generate("sft", 0, (1, 0, 0))[0]
    program, message = sft.texts_of(problem)
    assert program == f"{problem.statement}\n```python\n{problem.solution}```"
    (test,) = problem.visible_tests
    assert message == (
        "The program fails this test:\n"
        f"Call: solve(1, {test.inputs[1]})\nExpected: {test.expected}\n"
        f"Got: {test.expected}\nMend the program.\n"
        "Explain what is wrong with the program, then mend it.\n"
    )
    assert len(sft.texts_of(benchmark.generate("sft", 0, (1, 0, 0))[0])) == 1


def test_an_sft_run_can_be_evaluated(first, tmp_path, capsys):
    out = tmp_path / "out"
    problems = tmp_path / "problems.json"
    benchmark.write(benchmark.generate("validation", 3, (8, 0, 0)), problems)
    command = [
        "evaluate",
        str(first),
        "--problems",
        str(problems),
        "--samples-per-problem",
        "2",
    ]
    assert main([*command, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 16 and any(row["passed"] for row in rows)
    best = SFTFolder(first).find_model(None)[1]
    told = capsys.readouterr().out
    assert "(best)" in best and best in told
    # RAFT on what it drew
    flags = ["--data.path", str(problems), "--data.validation", str(problems)]
    flags += ["--sft.samples", str(out / "results.jsonl"), "--model.checkpoint", str(first)]
    flags += ["--evaluation.every", "0"]
    assert run_sft(tmp_path / "raft", *flags) == 0
    assert "16 rows" in capsys.readouterr().err
    for command, words in (
        (["evaluate", str(first), "--before"], "--before"),
        (["evaluate", str(first), "--step", "3"], "no step 3; found steps: 6"),
        (["export", str(first), "--out", str(tmp_path / "to")], "for transformers already"),
    ):
        assert main(command) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_with_lora_the_base_stays_and_merged_weights_are_written(experiment, tmp_path):
    file = experiment(benchmark.generate("validation", 3, (24, 0, 0)))
    flags = ["--run.folder", str(tmp_path / "run"), "--model.lora_rank", "4"]
    flags += ["--model.tokenizer", "builtin", "--sft.num_micro_batches", "2"]
    assert main(["sft", file, *flags, "--sft.epochs", "2"]) == 0
    shape, params = weights.load_checkpoint(tmp_path / "run", jnp.bfloat16)
    fresh = policy.init_params(ModelConfig(**shape), jax.random.key(0))
    fresh = jax.tree.map(lambda x: x.astype(jnp.bfloat16), fresh)
    changed = jax.tree.map(lambda x, y: bool(np.any(x != y)), params, fresh)
    for name, module in changed["trunk"]["layers"].items():
        assert module.get("kernel", False) is name.endswith("_proj")
    assert not any(jax.tree.leaves(changed["trunk"]["embed_tokens"]))


@pytest.mark.parametrize(
    ("flags", "words"),
    (
        (("--sft.batch_size", "6"), "; nearest: --sft.batch_size 8"),
        (("--run.total_tokens", "9"), "run.total_tokens: SFT generates no tokens"),
        (
            ("--evaluation.every", "0", "--evaluation.every_tokens", "9"),
            "evaluation.every_tokens: SFT generates no tokens",
        ),
        (("--sft.packing", "60"), "sft.packing: expected at least"),
        (("--sft.epochs", "0.01"), "sft.epochs: 0.01 epochs of 24 examples"),
        (("--evaluation.every", "2"), "evaluation.every: the run has no validation"),
        (("--sft.per_problem", "2"), "sft.per_problem: expected 0"),
        (
            ("--sampling.max_completion_length", "8"),
            "data.path: no canonical solution to learn from: 0 examples, 24 problems",
        ),
    ),
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    experiment, tmp_path, capsys, flags, words
):
    file = experiment(benchmark.generate("validation", 3, (24, 0, 0)))
    folder = tmp_path / "run"
    command = ["sft", file, "--run.folder", str(folder), "--model.tokenizer", "builtin"]
    assert main([*command, *flags]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert words in said
    assert not folder.exists()


def test_a_start_that_fails_takes_away_what_it_made(experiment, tmp_path, monkeypatch):
    file = experiment(benchmark.generate("validation", 3, (24, 0, 0)))
    folder = tmp_path / "a" / "run"
    monkeypatch.setattr(sft.Run, "find_end", kill)
    with pytest.raises(Killed):
        main(["sft", file, "--run.folder", str(folder), "--model.tokenizer", "builtin"])
    assert not (tmp_path / "a").exists()


def test_weights_that_are_not_finite_are_never_written(first, tmp_path):
    kept = SFTFolder(first)
    tokenizer = kept.tokenizer()
    _, params = weights.load_checkpoint(first, np.float32)
    params["trunk"]["norm"]["scale"][0] = np.nan
    folder = SFTFolder(tmp_path / "run")
    shape = ModelConfig(**weights.hf_config.read_shape(first))
    model = Model(shape, params, get_config().sampling, (1,), tokenizer)
    for write in (
        lambda: folder.begin_model(1, model, 1, False),
        lambda: folder.write_end(model),
    ):
        with pytest.raises(CheckpointError, match="trunk/norm/scale holds a number"):
            write()
    assert not folder.path.exists()


@pytest.mark.long
def test_an_update_that_is_not_finite_ends_the_run_before_it(experiment, tmp_path, capsys):
    file, folder = experiment(benchmark.generate("sft", 0, (32, 0, 0))), tmp_path / "run"
    flags = ["--model.tokenizer", "builtin", "--evaluation.every", "0"]
    flags += ["--sft.learning_rate", "1e30", "--evaluation.test_problems", "0"]
    flags += ["--run.folder", str(folder)]
    assert main(["sft", file, *flags]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "update 1: the gradient of " in said and "not finite; the state before" in said
    assert [path.name for path in (folder / "resume").iterdir()] == ["1"]
    assert main(["sft", file, *flags, "--run.resume"]) == 2  # it says the same again
    assert capsys.readouterr().err.splitlines()[-1] == said
