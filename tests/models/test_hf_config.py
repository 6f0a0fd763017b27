"""config.json in and out: what each family says, what is refused, in one line."""

import json

import pytest

from stepcoder_jax.config import ModelConfig
from stepcoder_jax.models import hf_config
from tests import kit

SCALED = {
    "linear": {"rope_factor": 4.0},
    "llama3": {"rope_factor": 8.0, "rope_context": 16, "rope_slow": 1.0, "rope_fast": 4.0},
    "yarn": {"rope_factor": 4.0, "rope_context": 32, "rope_fast": 32.0},
}


def write(folder, hf):
    (folder / "config.json").write_text(json.dumps(hf))
    return folder


def tiny(**fields):
    """The config.json of a tiny model."""
    return hf_config.to_hf(kit.tiny_model(**fields), "float32")


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "starcoder2"])
def test_what_is_written_is_read_back(tmp_path, family, kind):
    window = 0 if family == "llama" else 5
    fields = {"rope_scaling": kind, "sliding_window": window, **SCALED[kind]}
    config = kit.tiny_model(
        family=family, rope_amplitude=1.25 if kind == "yarn" else 1.0, **fields
    )
    hf = hf_config.to_hf(config, "bfloat16")
    assert hf["dtype"] == "bfloat16" and hf["architectures"][0].endswith("ForCausalLM")
    assert ModelConfig(**hf_config.read_shape(write(tmp_path, hf))) == config


def test_older_folders_with_rope_scaling_and_without_head_dim(tmp_path):
    hf = tiny()
    for name in ("rope_parameters", "head_dim", "num_key_value_heads"):
        del hf[name]
    hf |= {"rope_theta": 1e5, "rope_scaling": {"type": "linear", "factor": 4.0}}
    shape = hf_config.read_shape(write(tmp_path, hf))
    assert (shape["rope_theta"], shape["rope_factor"]) == (1e5, 4.0)
    assert (shape["head_dim"], shape["num_kv_heads"]) == (8, 4)


def test_yarn_fills_in_what_the_folder_leaves_out(tmp_path):
    hf = tiny(family="qwen2")
    hf["rope_parameters"] = {"rope_type": "yarn", "factor": 4.0}
    shape = hf_config.read_shape(write(tmp_path, hf))
    assert shape["rope_amplitude"] == pytest.approx(1.1386294)  # 0.1 ln 4 + 1
    assert (shape["rope_slow"], shape["rope_fast"], shape["rope_context"]) == (1, 32, 64)


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        ({"model_type": "mistral"}, 4096),  # what transformers takes where it is absent
        ({"model_type": "mistral", "sliding_window": None}, 0),
        ({"model_type": "qwen2", "sliding_window": 9}, 0),  # not in use
        ({"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": True}, 0),
        (
            {"model_type": "qwen3", "sliding_window": 9, "use_sliding_window": True}
            | {"max_window_layers": 0},
            9,
        ),
        ({"model_type": "llama", "sliding_window": 9}, 0),  # transformers ignores it too
    ],
)
def test_windows(tmp_path, fields, window):
    assert (
        hf_config.read_shape(write(tmp_path, tiny() | fields))["sliding_window"] == window
    )


def rope(**fields):
    return {"rope_parameters": {"rope_theta": 1e4, **fields}}


REFUSED = {
    "gemma": (
        {"model_type": "gemma2"},
        "model_type 'gemma2' .* expected one of llama, mis",
    ),
    "no_type": ({"model_type": None}, "model_type None is not supported"),
    "no_size": ({"hidden_size": None}, "hidden_size: .* positive number, it is missing"),
    "words": ({"num_hidden_layers": "two"}, "num_hidden_layers: .* number, got 'two'"),
    "activation": ({"hidden_act": "relu"}, "hidden_act: expected 'silu', got 'relu'"),
    "biases": ({"attention_bias": True}, "attention_bias: expected false"),
    "mlp_biases": ({"mlp_bias": True}, "mlp_bias: expected false"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantization_config: .* none"),
    "dynamic": (rope(rope_type="dynamic", factor=2.0), "'dynamic' is not supported.*yarn"),
    "longrope": (rope(type="longrope"), "'longrope' is not supported"),
    "factor": (rope(rope_type="linear"), "'factor' is missing beside rope_type 'linear'"),
    "low": (rope(rope_type="llama3", factor=8.0), "'low_freq_factor' is missing"),
    "mscale": (rope(rope_type="yarn", factor=4.0, mscale=0.7), "with 'mscale'"),
    "truncate": (rope(rope_type="yarn", factor=4.0, truncate=False), "with 'truncate'"),
    "partial": (rope(partial_rotary_factor=0.5), "with 'partial_rotary_factor'"),
    "by_layer": (rope(full_attention={"factor": 2.0}), "with 'full_attention'"),
    "mixed": (
        {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1}
        | {"sliding_window": 9},
        "layer_types: expected all layers alike, 1 of 2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_computed_is_refused_in_one_line(tmp_path, name):
    fields, message = REFUSED[name]
    hf = {k: v for k, v in (tiny() | fields).items() if v is not None}
    with pytest.raises(hf_config.WeightsError, match=message) as error:
        hf_config.read_shape(write(tmp_path, hf))
    assert "\n" not in str(error.value) and "config.json" in str(error.value)


def test_starcoder2_without_biases_is_refused(tmp_path):
    hf = tiny(family="starcoder2") | {"use_bias": False}
    with pytest.raises(hf_config.WeightsError, match="use_bias: expected true"):
        hf_config.read_shape(write(tmp_path, hf))
