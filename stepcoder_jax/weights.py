"""Parameters <-> a Hugging Face Llama folder (config.json, model.safetensors).

Hugging Face keeps a linear layer as [out, in], Flax as [in, out]; layers are separate
tensors there and one stacked array here. The rotary layout is the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stepcoder_jax.records import InputError

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig

Params = Any


class WeightsError(InputError):
    """A checkpoint folder that cannot be read or does not fit the model."""


# ModelConfig field -> config.json field
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
}

# path under trunk/layers -> tensor name after "model.layers.N."
LAYER_TENSORS = {
    "input_layernorm/scale": "input_layernorm.weight",
    "post_attention_layernorm/scale": "post_attention_layernorm.weight",
    **{f"{x}_proj/kernel": f"self_attn.{x}_proj.weight" for x in "qkvo"},
    **{f"{x}_proj/kernel": f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")},
}


def read_shape(folder: str | Path) -> dict[str, Any]:
    """The ModelConfig fields that `folder`/config.json fixes.

    Raises WeightsError naming the file and the field for anything that is not a plain
    Llama: another architecture, biases, rotary scaling other than linear.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected a Hugging Face folder with config.json, found none; "
            f"check model.checkpoint"
        )
    try:
        hf = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path}: not JSON ({error})") from None
    if hf.get("model_type") != "llama":
        raise WeightsError(
            f"{path}: expected model_type llama, got {hf.get('model_type')!r}; only "
            f"Llama-shaped decoders can be loaded"
        )
    missing = [name for name in FIELDS.values() if name not in hf]
    if missing:
        raise WeightsError(f"{path}: field {missing[0]!r} is missing")
    for name in ("attention_bias", "mlp_bias"):
        if hf.get(name):
            raise WeightsError(f"{path}: {name} is set; projections with biases do not fit")
    shape = {ours: hf[theirs] for ours, theirs in FIELDS.items()}
    shape["num_kv_heads"] = hf.get("num_key_value_heads") or hf["num_attention_heads"]
    shape["head_dim"] = hf.get("head_dim") or shape["hidden_size"] // shape["num_heads"]
    shape["tie_embeddings"] = bool(hf.get("tie_word_embeddings", False))
    shape["rope_theta"], shape["rope_factor"] = _read_rope(path, hf)
    return shape


def _read_rope(path: Path, hf: dict[str, Any]) -> tuple[float, float]:
    # transformers 5 writes rope_parameters; older folders have rope_theta and rope_scaling
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "linear"):
        raise WeightsError(
            f"{path}: rotary scaling {kind!r} is not supported, only default and linear"
        )
    theta = rope.get("rope_theta", hf.get("rope_theta", 10000.0))
    return float(theta), float(rope["factor"]) if kind == "linear" else 1.0


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the checkpoint, in Hugging Face's layout."""
    width, inner = config.hidden_size, config.intermediate_size
    query = config.num_heads * config.head_dim
    key = config.num_kv_heads * config.head_dim
    layer = {
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
        "self_attn.q_proj.weight": (query, width),
        "self_attn.k_proj.weight": (key, width),
        "self_attn.v_proj.weight": (key, width),
        "self_attn.o_proj.weight": (width, query),
        "mlp.gate_proj.weight": (inner, width),
        "mlp.up_proj.weight": (inner, width),
        "mlp.down_proj.weight": (width, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, width),
        "model.norm.weight": (width,),
    }
    for i in range(config.num_layers):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, width)
    return shapes


def load_checkpoint(folder: str | Path, dtype: Any) -> tuple[dict[str, Any], Params]:
    """Read a Hugging Face Llama folder: (ModelConfig fields, actor params).

    The params are numpy arrays of `dtype` in the tree of `models.policy`. One
    model.safetensors, or shards with model.safetensors.index.json. Raises WeightsError
    naming the first tensor that is missing, unexpected or misshapen.
    """
    from stepcoder_jax.config import ModelConfig

    shape = read_shape(folder)
    config = ModelConfig(**shape)
    expected = tensor_shapes(config)
    tensors: dict[str, np.ndarray] = {}
    for name, tensor in _read_tensors(Path(folder)):
        if name == "lm_head.weight" and config.tie_embeddings:
            continue  # some writers store the tied copy as well
        if name.endswith("rotary_emb.inv_freq"):
            continue  # a constant that old writers stored
        if name not in expected:
            raise WeightsError(f"{folder}: unexpected tensor {name!r}")
        if tuple(tensor.shape) != expected[name]:
            raise WeightsError(
                f"{folder}: tensor {name!r} has shape {tuple(tensor.shape)}, config.json "
                f"asks for {expected[name]}"
            )
        tensors[name] = tensor.astype(dtype)
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise WeightsError(f"{folder}: tensor {missing[0]!r} is missing")
    return shape, _to_params(config, tensors)


def _read_tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    for name in names:
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path}: no such file; expected the model's safetensors")
        try:
            with safe_open(path, framework="numpy") as file:
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    yield key, file.get_tensor(key)
        except SafetensorError as error:
            raise WeightsError(f"{path}: not a safetensors file ({error})") from None


def _to_params(config: ModelConfig, tensors: dict[str, np.ndarray]) -> Params:
    layers: Params = {}
    for path, name in LAYER_TENSORS.items():
        module, leaf = path.split("/")
        rows = [tensors.pop(f"model.layers.{i}.{name}") for i in range(config.num_layers)]
        stacked = np.stack([row.T for row in rows])  # .T leaves vectors as they are
        layers[module] = {leaf: stacked}
    params: Params = {
        "trunk": {
            "embed_tokens": {"embedding": tensors["model.embed_tokens.weight"]},
            "layers": layers,
            "norm": {"scale": tensors["model.norm.weight"]},
        }
    }
    if not config.tie_embeddings:
        params["lm_head"] = {"kernel": np.ascontiguousarray(tensors["lm_head.weight"].T)}
    return params


def _to_tensors(config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    trunk = params["trunk"]
    tensors = {
        "model.embed_tokens.weight": trunk["embed_tokens"]["embedding"],
        "model.norm.weight": trunk["norm"]["scale"],
    }
    for path, name in LAYER_TENSORS.items():
        module, leaf = path.split("/")
        stacked = np.asarray(trunk["layers"][module][leaf])
        for i in range(config.num_layers):
            tensors[f"model.layers.{i}.{name}"] = stacked[i].T
    if not config.tie_embeddings:
        tensors["lm_head.weight"] = np.asarray(params["lm_head"]["kernel"]).T
    bf16 = ml_dtypes.bfloat16
    return {
        name: np.ascontiguousarray(np.asarray(tensor).astype(bf16))
        for name, tensor in tensors.items()
    }


def save_checkpoint(folder: str | Path, config: ModelConfig, params: Params) -> None:
    """Write actor `params` as a Hugging Face LlamaForCausalLM folder in bfloat16.

    Only config.json and model.safetensors are written; a tokenizer may live beside them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_factor != 1.0:
        rope |= {"rope_type": "linear", "factor": config.rope_factor}
    hf = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tie_embeddings,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "attention_bias": False,
        "mlp_bias": False,
        "dtype": "bfloat16",
    }
    tensors = _to_tensors(config, params)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hf, indent=2) + "\n")
