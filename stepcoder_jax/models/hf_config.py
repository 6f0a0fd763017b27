"""ModelConfig <-> config.json of transformers, for the supported families."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcoder_jax.models.families import FAMILIES
from stepcoder_jax.records import InputError

if TYPE_CHECKING:
    from stepcoder_jax.config import ModelConfig


FILE = "config.json"
ASSETS = Path(__file__).parents[1] / "assets"
WARM_STARTS = {
    "builtin": ASSETS / "warm_start",
    "guarded": ASSETS / "warm_start_guarded",
    "dialect": ASSETS / "warm_start_dialect",
}


def checkpoint_folder(name: str) -> Path:
    """The folder of a Hugging Face checkpoint; the shipped ones have names."""
    return WARM_STARTS.get(name) or Path(name)


class WeightsError(InputError):
    """A checkpoint folder that cannot be read or does not fit the model."""


# ModelConfig field -> config.json field; all are positive numbers that must be there
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
}
# What transformers takes for a field that is absent, where that is more than "none".
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 4096, "num_key_value_heads": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 128},
    "starcoder2": {
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "use_bias": True,
        "hidden_act": "gelu_pytorch_tanh",
    },
}
ROPE_KINDS = ("default", "linear", "llama3", "yarn")
BIASES = ("attention_bias", "mlp_bias")  # Qwen2 and StarCoder2 have theirs without a field


def fields_of(family: str) -> dict[str, str]:
    """`FIELDS`, with the names that this family uses."""
    if FAMILIES[family].norm == "layer":
        return FIELDS | {"norm_eps": "norm_epsilon"}
    return FIELDS


def read_shape(folder: str | Path) -> dict[str, Any]:
    """The ModelConfig fields that `folder`/config.json fixes.

    Raises WeightsError with the file, the field and what is supported for anything that
    the decoder cannot compute.
    """
    path = Path(folder) / FILE
    hf = _read_json(path)
    family = hf.get("model_type")
    if family not in FAMILIES:
        raise WeightsError(
            f"{path}: model_type {family!r} is not supported; expected one of "
            f"{', '.join(FAMILIES)} (DeepSeek-Coder and Code Llama are llama)"
        )
    hf = DEFAULTS[family] | hf
    for field, expected, holds in _rules(family, hf):
        if not holds:
            got = f"got {hf[field]!r}" if field in hf else "it is missing"
            raise WeightsError(f"{path}: {field}: expected {expected}, {got}")
    shape = {ours: hf[theirs] for ours, theirs in fields_of(family).items()}
    heads = shape["num_heads"]
    return shape | {
        "family": family,
        "num_kv_heads": hf.get("num_key_value_heads") or heads,
        "head_dim": hf.get("head_dim") or shape["hidden_size"] // heads,
        "tie_embeddings": bool(hf.get("tie_word_embeddings", False)),
        "sliding_window": _read_window(path, hf, shape["num_layers"]),
        **_read_rope(path, hf),
    }


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected a Hugging Face folder with config.json, found none; "
            f"check model.checkpoint"
        )
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: not a JSON object ({error})") from None


def _rules(family: str, hf: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Field, what it must be, and whether it is."""
    for field in fields_of(family).values():
        value = hf.get(field)
        is_number = isinstance(value, (int, float)) and value > 0
        yield field, "a positive number", is_number
    activation = FAMILIES[family].activation
    yield "hidden_act", f"{activation!r}", hf.get("hidden_act", "silu") == activation
    for field in BIASES:
        yield field, "false, as in the released models", not hf.get(field)
    yield "use_bias", "true, as in the released models", hf.get("use_bias", True) is True
    yield (
        "quantization_config",
        "none, since quantised weights cannot be trained",
        hf.get("quantization_config") is None,
    )


def _read_window(path: Path, hf: dict[str, Any], layers: int) -> int:
    window = hf.get("sliding_window") or 0
    if hf["model_type"] == "llama":
        return 0
    if hf["model_type"].startswith("qwen"):
        first = hf.get("max_window_layers", 28) if hf.get("use_sliding_window") else layers
        sliding = [i >= first for i in range(layers)]
    else:
        sliding = [bool(window)] * layers
    if hf.get("layer_types"):
        sliding = [kind == "sliding_attention" for kind in hf["layer_types"]]
    if any(sliding) != all(sliding):
        raise WeightsError(
            f"{path}: layer_types: expected all layers alike, {sum(sliding)} of "
            f"{len(sliding)} have a sliding window; mixed layers are not supported"
        )
    return window if all(sliding) else 0


def _read_rope(path: Path, hf: dict[str, Any]) -> dict[str, Any]:
    # transformers 5 writes rope_parameters; older folders have rope_theta and rope_scaling
    rope = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    # tables per layer type, DeepSeek-V2's and partial rotation would be read wrongly
    odd = [name for name, value in rope.items() if isinstance(value, dict)]
    odd += [name for name in ("mscale", "mscale_all_dim") if rope.get(name)]
    odd += ["truncate"] if rope.get("truncate") is False else []
    partial = rope.get("partial_rotary_factor") or hf.get("partial_rotary_factor") or 1.0
    odd += ["partial_rotary_factor"] if partial != 1.0 else []
    if kind not in ROPE_KINDS or odd:
        what = " with ".join([f"rope_type {kind!r}", *(repr(name) for name in odd[:1])])
        raise WeightsError(
            f"{path}: {what} is not supported; expected plain {', '.join(ROPE_KINDS)}"
        )
    theta = rope.get("rope_theta") or hf.get("rope_theta") or 10000.0
    read: dict[str, Any] = {"rope_theta": float(theta)}
    if kind == "default":
        return read
    needed = {"llama3": ("factor", "low_freq_factor", "high_freq_factor")}
    for field in needed.get(kind, ("factor",)):
        if not rope.get(field):
            raise WeightsError(f"{path}: {field!r} is missing beside rope_type {kind!r}")
    factor = float(rope["factor"])
    read |= {"rope_scaling": kind, "rope_factor": factor}
    if kind == "linear":
        return read
    slow, fast = ("low_freq_factor", "high_freq_factor")
    if kind == "yarn":
        slow, fast = ("beta_slow", "beta_fast")
        amplitude = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
        read["rope_amplitude"] = rope.get("attention_factor") or amplitude
    name = "original_max_position_embeddings"
    return read | {
        "rope_context": hf.get(name) or rope.get(name) or hf["max_position_embeddings"],
        "rope_slow": float(rope.get(slow) or 1.0),
        "rope_fast": float(rope.get(fast) or 32.0),
    }


def to_hf(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The config.json of a model; `dtype` is that of the stored weights."""
    family = FAMILIES[config.family]
    hf = {
        "architectures": [family.architecture],
        "model_type": config.family,
        **{
            theirs: getattr(config, ours)
            for ours, theirs in fields_of(config.family).items()
        },
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": family.activation,
        "tie_word_embeddings": config.tie_embeddings,
        "rope_theta": config.rope_theta,
        # transformers 5 reads the first, 4 the second
        "rope_parameters": _rope_parameters(config),
        "rope_scaling": _rope_scaling(config),
        # otherwise transformers takes 1 and 2, whatever the tokenizer says
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": dtype,
    }
    if config.family in ("llama", "qwen3"):
        hf["attention_bias"] = False
    if config.family != "llama":
        hf["sliding_window"] = config.sliding_window or None
    if config.family.startswith("qwen"):
        hf["use_sliding_window"] = bool(config.sliding_window)
        hf["max_window_layers"] = 0
    return hf


def _rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    """The rotary parameters where they say more than rope_theta, which stands apart."""
    rope = _rope_parameters(config)
    del rope["rope_theta"]
    return rope if rope["rope_type"] != "default" else None


def _rope_parameters(config: ModelConfig) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    kind = config.rope_scaling
    if kind == "linear" and config.rope_factor == 1.0:
        return rope
    rope |= {"rope_type": kind, "factor": config.rope_factor}
    if kind == "linear":
        return rope
    rope["original_max_position_embeddings"] = config.rope_context
    slow, fast = ("low_freq_factor", "high_freq_factor")
    if kind == "yarn":
        slow, fast = ("beta_slow", "beta_fast")
        rope["attention_factor"] = config.rope_amplitude
    return rope | {slow: config.rope_slow, fast: config.rope_fast}
