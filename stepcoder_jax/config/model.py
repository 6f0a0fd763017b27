"""The networks: family, shape, adapters, and how they are computed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from stepcoder_jax.config.ranges import COUNT, NATURAL, POSITIVE, Ranges, Rules, divides
from stepcoder_jax.config.section import Section

if TYPE_CHECKING:
    from stepcoder_jax.config.whole import Config


@dataclasses.dataclass
class ModelConfig(Section):
    """A decoder; the family and the shape come from `checkpoint` when that is set."""

    checkpoint: str = ""  # Hugging Face folder, a shipped one, or "" for random weights
    tokenizer: str = ""  # tokenizer folder, or a shipped one; "": the checkpoint's
    family: Literal["llama", "mistral", "qwen2", "qwen3", "starcoder2"] = "llama"
    vocab_size: int = 512
    hidden_size: int = 96
    intermediate_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 24
    max_positions: int = 1024
    rope_theta: float = 10000.0
    rope_scaling: Literal["linear", "llama3", "yarn"] = "linear"
    rope_factor: float = 1.0  # positions are stretched by this (DeepSeek-Coder: 4)
    rope_context: int = 8192  # positions before the stretching (llama3, yarn)
    rope_slow: float = 1.0  # turns over rope_context below which all is stretched
    rope_fast: float = 4.0  # turns above which nothing is (yarn's default: 32)
    rope_amplitude: float = 1.0  # of cosine and sine (yarn: 0.1 ln factor + 1)
    sliding_window: int = 0  # positions that each one sees, itself included; 0: all before
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations
    # fused kernels: cudnn on NVIDIA GPUs with bfloat16, splash on TPUs
    attention: Literal["xla", "cudnn", "splash"] = "xla"
    remat: bool = False  # recompute each layer in the backward pass
    remat_policy: Literal["nothing", "dots"] = "nothing"  # kept: no, or the matrix products
    lora_rank: int = 0  # train adapters of this rank on a frozen base; 0: all weights
    lora_alpha: float = 32.0  # adapters count alpha / rank times
    lora_targets: Literal["attention", "mlp", "all"] = "all"  # projections with adapters
    unroll: int = 1  # layers in one turn of the loop over them; all: faster on CPUs
    shared_trunk: bool = False  # value head on the actor's trunk instead of a critic

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), COUNT),
        **dict.fromkeys(("num_layers", "num_heads", "num_kv_heads", "head_dim"), COUNT),
        **dict.fromkeys(("max_positions", "rope_context", "unroll"), COUNT),
        **dict.fromkeys(("rope_theta", "rope_factor", "rope_amplitude"), POSITIVE),
        **dict.fromkeys(("rope_slow", "rope_fast"), POSITIVE),
        **dict.fromkeys(("norm_eps", "lora_alpha"), POSITIVE),
        **dict.fromkeys(("sliding_window", "lora_rank"), NATURAL),
    }


def rules(config: Config) -> Rules:
    """Of the model."""
    model = config.model
    yield "model.num_kv_heads", *divides(model.num_kv_heads, model.num_heads)
    yield (
        "model.sliding_window",
        model.sliding_window == 0 or (model.family != "llama" and model.sliding_window > 0),
        "0 (none), or a number of positions where model.family is not llama",
    )
    yield "model.unroll", *divides(model.unroll, model.num_layers)
    yield (
        "model.attention",
        model.attention != "cudnn" or model.dtype == "bfloat16",
        "xla or splash, since cuDNN needs model.dtype=bfloat16",
    )
