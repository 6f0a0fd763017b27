import importlib.util
import json

import jax
import jax.numpy as jnp
import kit
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stepcoder_jax import weights
from stepcoder_jax.config import ModelConfig
from stepcoder_jax.models import policy

MODELS = {
    "tied": kit.tiny_model(),
    "untied": kit.tiny_model(tie_embeddings=False, rope_factor=4.0, head_dim=16),
}


def write(folder, name="tied"):
    config = MODELS[name]
    params = policy.init_params(config, jax.random.key(0))
    weights.save_checkpoint(folder, config, params)
    return config, params


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_read_back_is_the_same_model(tmp_path, name):
    config, params = write(tmp_path, name)
    shape, got = weights.load_checkpoint(tmp_path, np.float32)
    assert ModelConfig(**shape) == config
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    jax.tree.map(np.testing.assert_array_equal, got, rounded)
    weights.save_checkpoint(tmp_path / "again", config, got)
    files = [p / "model.safetensors" for p in (tmp_path, tmp_path / "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_folder_has_hugging_faces_names_and_layout(tmp_path):
    config, params = write(tmp_path, "untied")
    tensors = load_file(tmp_path / "model.safetensors")
    assert {k: v.shape for k, v in tensors.items()} == weights.tensor_shapes(config)
    assert all(v.dtype == ml_dtypes.bfloat16 for v in tensors.values())
    key = tensors["model.layers.1.self_attn.k_proj.weight"]
    ours = np.asarray(params["trunk"]["layers"]["k_proj"]["kernel"][1]).T
    np.testing.assert_array_equal(key, ours.astype(ml_dtypes.bfloat16))
    hf = json.loads((tmp_path / "config.json").read_text())
    assert hf["architectures"] == ["LlamaForCausalLM"]


def test_older_folders_with_rope_scaling_and_without_head_dim(tmp_path):
    write(tmp_path)
    path = tmp_path / "config.json"
    hf = json.loads(path.read_text())
    for name in ("rope_parameters", "head_dim", "num_key_value_heads"):
        del hf[name]
    hf |= {"rope_theta": 1e5, "rope_scaling": {"type": "linear", "factor": 4.0}}
    path.write_text(json.dumps(hf))
    shape = weights.read_shape(tmp_path)
    assert (shape["rope_theta"], shape["rope_factor"]) == (1e5, 4.0)
    assert (shape["head_dim"], shape["num_kv_heads"]) == (8, 4)


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def widen(tensors):
    tensors["model.norm.weight"] = np.zeros(33, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "'model.norm.weight' is missing"),
        (lambda t: t.update(extra=np.zeros(1)), "unexpected tensor 'extra'"),
        (widen, r"'model.norm.weight' has shape \(33,\).* asks for \(32,\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, change, message):
    write(tmp_path)
    change_tensors(tmp_path, change)
    with pytest.raises(weights.WeightsError, match=message):
        weights.load_checkpoint(tmp_path, np.float32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt2"}, "expected model_type llama, got 'gpt2'"),
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"attention_bias": True}, "attention_bias is set"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "'llama3' is not supported"),
    ],
)
def test_a_config_that_does_not_fit_is_named(tmp_path, fields, message):
    write(tmp_path)
    path = tmp_path / "config.json"
    hf = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({k: v for k, v in hf.items() if v is not None}))
    with pytest.raises(weights.WeightsError, match=message):
        weights.load_checkpoint(tmp_path, np.float32)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(weights.WeightsError, match=r"config.json.*found none"):
        weights.load_checkpoint(tmp_path / "nowhere", np.float32)
    write(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not at all")
    with pytest.raises(weights.WeightsError, match="not a safetensors file"):
        weights.load_checkpoint(tmp_path, np.float32)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(weights.WeightsError, match=r"model\.safetensors: no such file"):
        weights.load_checkpoint(tmp_path, np.float32)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(weights.WeightsError, match="not JSON"):
        weights.load_checkpoint(tmp_path, np.float32)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch, the oracle, is not installed"
)
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_transformers(tmp_path, name):
    import torch
    from transformers import AutoModelForCausalLM

    config, _ = write(tmp_path, name)
    _, params = weights.load_checkpoint(tmp_path, np.float32)
    tokens = np.asarray(jax.random.randint(jax.random.key(1), (2, 40), 0, 304))
    ours = policy.all_logits(config, params, tokens)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
