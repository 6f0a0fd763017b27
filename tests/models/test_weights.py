import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stepcoder_jax.config import MeshConfig, ModelConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.models import families, policy, weights
from tests import kit

MODELS = {
    "tied": kit.tiny_model(),
    "untied": kit.tiny_model(tie_embeddings=False, rope_factor=4.0, head_dim=16),
}


def write(folder, name="tied"):
    config = MODELS[name]
    params = policy.init_params(config, jax.random.key(0))
    weights.save_checkpoint(folder, config, params, "bfloat16")
    return config, params


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_read_back_is_the_same_model(tmp_path, name):
    config, params = write(tmp_path, name)
    shape, got = weights.load_checkpoint(tmp_path, np.float32)
    assert ModelConfig(**shape) == config
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    jax.tree.map(np.testing.assert_array_equal, got, rounded)
    weights.save_checkpoint(tmp_path / "again", config, got, "bfloat16")
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
    with pytest.raises(weights.WeightsError, match="not a JSON object"):
        weights.load_checkpoint(tmp_path, np.float32)


def test_a_folder_in_shards_is_the_same_model(tmp_path):
    config, params = write(tmp_path / "one", "untied")
    many = tmp_path / "many"
    weights.save_checkpoint(many, config, params, "bfloat16", shard_bytes=20_000)
    files = sorted(path.name for path in many.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((many / name).stat().st_size < 25_000 for name in files)
    index = json.loads((many / "model.safetensors.index.json").read_text())
    one = load_file(tmp_path / "one" / "model.safetensors")
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in one.values())
    for name, file in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(many / file)[name], one.pop(name))
    assert not one
    expected = weights.load_checkpoint(tmp_path / "one", np.float32)
    got = weights.load_checkpoint(many, np.float32)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    (many / files[1]).unlink()
    with pytest.raises(weights.WeightsError, match=rf"{files[1]}: no such file"):
        weights.load_checkpoint(many, np.float32)
    (many / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(weights.WeightsError, match="not an index"):
        weights.load_checkpoint(many, np.float32)


def test_shards_are_read_straight_into_their_devices(tmp_path, monkeypatch):
    write(tmp_path, "untied")
    _, whole = weights.load_checkpoint(tmp_path, np.float32)
    mesh = sharding.make_mesh(MeshConfig(2, 2, 2), jax.devices())
    layout = sharding.param_shardings(mesh, whole)
    largest, read = {}, weights.Reader.read

    def watched(self, place, dtype, index):
        part = read(self, place, dtype, index)
        largest[place.name] = max(part.size, largest.get(place.name, 0))
        return part

    monkeypatch.setattr(weights.Reader, "read", watched)
    _, got = weights.load_checkpoint(tmp_path, np.float32, layout)
    jax.tree.map(np.testing.assert_array_equal, got, whole)
    assert jax.tree.map(lambda x: x.sharding, got) == layout
    # over fsdp=2 and tensor=2: nobody reads more than a quarter of a matrix
    kernel = whole["trunk"]["layers"]["q_proj"]["kernel"]
    assert largest["model.layers.{}.self_attn.q_proj.weight"] == kernel.size // 4
    assert largest["lm_head.weight"] == whole["lm_head"]["kernel"].size // 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_weights_are_read_from_any_float(tmp_path, dtype):
    write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    stored = {name: x.astype(dtype) for name, x in tensors.items()}
    save_file(stored, tmp_path / "model.safetensors")
    _, params = weights.load_checkpoint(tmp_path, np.float32)
    got = params["trunk"]["layers"]["o_proj"]["kernel"]
    assert got.dtype == np.float32
    expected = stored["model.layers.1.self_attn.o_proj.weight"].astype(np.float32).T
    np.testing.assert_array_equal(got[1], expected)


def test_weights_that_are_no_floats_are_refused(tmp_path):
    write(tmp_path)
    name = "model.norm.weight"
    change_tensors(tmp_path, lambda t: t.update({name: np.ones(32, np.int8)}))
    with pytest.raises(weights.WeightsError, match=f"'{name}' is stored as I8, expected"):
        weights.load_checkpoint(tmp_path, np.float32)


def test_a_copy_is_the_same_model_in_another_dtype(tmp_path):
    config, _ = write(tmp_path / "a", "untied")
    _, params = weights.load_checkpoint(tmp_path / "a", np.float32)
    weights.save_checkpoint(tmp_path / "b", config, params, "float32")
    weights.copy_checkpoint(tmp_path / "b", tmp_path / "c", "bfloat16")
    for name in ("config.json", "model.safetensors"):
        files = [(tmp_path / folder / name).read_bytes() for folder in "ac"]
        assert files[0] == files[1]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_is_the_same_after_a_folder(tmp_path, family):
    """Names, shapes and config.json of all families; values are test_parity's."""
    config = kit.tiny_model(family=family, tie_embeddings=False)
    params = policy.init_params(config, jax.random.key(0))
    weights.save_checkpoint(tmp_path, config, params, "float32")
    shape, got = weights.load_checkpoint(tmp_path, np.float32)
    assert ModelConfig(**shape) == config
    jax.tree.map(np.testing.assert_array_equal, got, params)
    mesh = sharding.make_mesh(MeshConfig(2, 2, 2), jax.devices())
    sharding.param_shardings(mesh, params)  # every parameter has one rule
