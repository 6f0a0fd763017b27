"""`stepcoder export`: the folder says for other programs what the run says."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from stepcoder_jax.__main__ import main
from stepcoder_jax.config import ModelConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.feedback import prompts
from stepcoder_jax.models import weights
from stepcoder_jax.records import Mode, Problem, Task
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.restore import restore
from tests.run_kit import run_train

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two iterations, a checkpoint of each: the weights are no longer bfloat16's."""
    folder = tmp_path_factory.mktemp("export") / "run"
    flags = ["--run.total_steps", "2", "--run.save_every", "1"]
    flags += ["--evaluation.every", "0", "--evaluation.test_problems", "0"]
    assert run_train(folder, *flags, "--ppo.critic_warmup_steps", "0") == 0
    return folder


@pytest.fixture(scope="module")
def exported(run):
    to = run.parent / "exported"
    assert main(["export", str(run), "--out", str(to)]) == 0
    return to


def test_the_policy_is_the_checkpoints(run, exported, capsys):
    found = restore(str(run), None, before=False)
    assert found.label == "iteration 2"
    shape, params = weights.load_checkpoint(exported, np.float32)
    jax.tree.map(np.testing.assert_array_equal, params, sharding.to_host(found.actor))
    assert shape["family"] == "llama"
    reference = sources.load_reference(run / "reference")
    same = jax.tree.map(np.array_equal, params, reference)
    assert not any(jax.tree.leaves(same))  # it has learnt, in every array


def test_a_step_can_be_chosen_and_rounded(run, tmp_path, capsys):
    to = tmp_path / "deep" / "first"
    flags = ["--step", "1", "--dtype", "bfloat16", "--out", str(to)]
    assert main(["export", str(run), *flags]) == 0
    assert "iteration 1, as bfloat16" in capsys.readouterr().out
    _, params = weights.load_checkpoint(to, np.float32)
    actor = sharding.to_host(restore(str(run), 1, before=False).actor)
    rounded = jax.tree.map(lambda x: x.astype(jax.numpy.bfloat16).astype("f4"), actor)
    jax.tree.map(np.testing.assert_array_equal, params, rounded)


def test_the_value_head_has_its_trunk_beside_it(run, exported):
    critic = sharding.to_host(restore(str(run), None, before=False).critic)
    tensors = load_file(exported / "value_head.safetensors")
    kernel = critic["value_head"]["kernel"]
    np.testing.assert_array_equal(tensors.pop("value_head.weight"), kernel.T)
    assert np.any(kernel != 0)
    np.testing.assert_array_equal(
        tensors.pop("value_head.bias"), critic["value_head"]["bias"]
    )
    query = critic["trunk"]["layers"]["q_proj"]["kernel"]
    name = "model.layers.3.self_attn.q_proj.weight"
    np.testing.assert_array_equal(tensors[name], query[3].T)
    assert tensors.keys() == load_file(exported / "model.safetensors").keys()


def test_a_chat_gives_the_prompt_of_the_run(run, exported):
    """The shipped tokenizer has no chat template: the folder gets the run's prompt."""
    tokenizer = sources.load_tokenizer(ModelConfig(tokenizer=str(exported)))
    config = restore(str(run), None, before=False).config.prompt
    for statement in ("Add {two} 'numbers'.\n", 'Say "é\\n" twice\n\n then stop.'):
        problem = Problem("p", statement, "", "", "f", Mode.CALL, (), "interview")
        message = [{"role": "user", "content": statement}]
        text = tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True
        )
        assert text == prompts.render(Task(problem, 0, 0, ""), tokenizer, config)


def test_generation_config_has_the_runs_sampling(run, exported):
    said = json.loads((exported / "generation_config.json").read_text())
    eos = sources.load_tokenizer(ModelConfig(tokenizer=str(exported))).eos_token_id
    assert said["eos_token_id"] == eos and said["bos_token_id"] is None
    assert (said["temperature"], said["top_p"]) == (0.8, 0.95)
    assert (said["top_k"], said["min_p"]) == (0, None)  # off; transformers' own is 50
    assert said["max_new_tokens"] == 96 and said["do_sample"]
    assert json.loads((exported / "config.json").read_text())["eos_token_id"] == eos
    reference = json.loads((run / "reference" / "generation_config.json").read_text())
    assert reference == said
    for folder in (exported, run / "reference"):
        modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
        assert modes == {(exported / "config.json").stat().st_mode & 0o777}


def test_nothing_is_overwritten(run, exported, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    assert main(["export", str(run), "--out", str(exported)]) == 2
    error = capsys.readouterr().err
    assert "--out: " in error and "is not empty" in error and error.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before
    (tmp_path / "file").write_text("mine")
    assert main(["export", str(run), "--out", str(tmp_path / "file")]) == 2
    assert main(["export", str(run), "--out", str(tmp_path / "file" / "in")]) == 2
    assert (tmp_path / "file").read_text() == "mine"
    assert capsys.readouterr().err.count("\n") == 2


def test_a_step_that_is_not_there_leaves_no_folder(run, tmp_path, capsys):
    to = tmp_path / "new"
    assert main(["export", str(run), "--step", "9", "--out", str(to)]) == 2
    assert "no checkpoint of step 9" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    to.mkdir()  # an empty folder is fine
    assert main(["export", str(run), "--out", str(to)]) == 0
    assert (to / "config.json").is_file() and list(tmp_path.iterdir()) == [to]


def test_transformers_gives_the_same_logits(run, exported):
    torch = pytest.importorskip("torch", reason="torch, the oracle, is not installed")
    from transformers import AutoModelForCausalLM

    from stepcoder_jax.models import policy

    found = restore(str(run), None, before=False)
    tokens = np.arange(80).reshape(2, 40) + 5
    ours = policy.all_logits(found.config.model, sharding.to_host(found.actor), tokens)
    model = AutoModelForCausalLM.from_pretrained(exported)
    assert model.generation_config.eos_token_id == found.tokenizer.eos_token_id
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_run_with_lora_resumes_and_is_exported_merged(tmp_path, capsys):
    """Its checkpoints hold adapters alone; the folder holds whole weights."""
    torch = pytest.importorskip("torch", reason="torch, the oracle, is not installed")
    from transformers import AutoModelForCausalLM

    from stepcoder_jax.models import lora, policy

    folder, to = tmp_path / "run", tmp_path / "exported"
    flags = ["--run.save_every", "1", "--ppo.critic_warmup_steps", "0"]
    flags += ["--evaluation.every", "0", "--evaluation.test_problems", "0"]
    flags += ["--model.lora_rank", "8", "--ppo.actor.learning_rate", "1e-2"]
    assert run_train(folder, *flags, "--run.total_steps", "1") == 0
    assert run_train(folder, *flags, "--run.total_steps", "2", "--run.resume") == 0
    found = restore(str(folder), None, before=False)
    assert found.label == "iteration 2"
    actor = sharding.to_host(found.actor)
    _, base = lora.split(actor)
    jax.tree.map(
        np.testing.assert_array_equal, base, sources.load_reference(folder / "reference")
    )
    names = (folder / "checkpoints/2/state/_METADATA").read_text()
    assert "lora_a" in names and "embed_tokens" not in names
    before = restore(str(folder), None, before=True)
    tokens = np.arange(80).reshape(2, 40) + 5
    model = found.config.model
    plain, ours = (
        policy.all_logits(model, sharding.to_host(x.actor), tokens) for x in (before, found)
    )
    assert np.abs(plain - ours).max() > 0.1  # it has learnt
    assert main(["export", str(folder), "--out", str(to)]) == 0
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(to)(torch.tensor(tokens)).logits
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-4)
    tensors = load_file(to / "value_head.safetensors")
    merged = lora.merge(model, actor)["trunk"]["layers"]["q_proj"]["kernel"]
    name = "model.layers.3.self_attn.q_proj.weight"
    assert np.any(tensors[name] != np.asarray(merged)[3].T)  # adapters of its own
    assert tensors.keys() == load_file(to / "model.safetensors").keys() | {
        "value_head.weight",
        "value_head.bias",
    }
