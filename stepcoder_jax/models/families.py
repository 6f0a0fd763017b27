"""What sets the supported families of decoders apart; sizes are in `ModelConfig`."""

from __future__ import annotations

from typing import Literal, NamedTuple

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")


class Family(NamedTuple):
    """The design that all models of a family share."""

    architecture: str  # the class of Hugging Face's transformers
    norm: Literal["rms", "layer"] = "rms"
    activation: Literal["silu", "gelu_pytorch_tanh"] = "silu"
    gated: bool = True  # down(act(gate(x)) * up(x)), else down(act(up(x)))
    biased: tuple[str, ...] = ()  # projections that have a bias
    qk_norm: bool = False  # RMSNorm on each head's query and key, before the rotation


# Keys are Hugging Face's model_type. DeepSeek-Coder and Code Llama are llama, Qwen2.5-Coder
# is qwen2.
FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM"),
    "mistral": Family("MistralForCausalLM"),
    "qwen2": Family("Qwen2ForCausalLM", biased=PROJECTIONS[:3]),
    "qwen3": Family("Qwen3ForCausalLM", qk_norm=True),
    "starcoder2": Family(
        "Starcoder2ForCausalLM",
        norm="layer",
        activation="gelu_pytorch_tanh",
        gated=False,
        biased=PROJECTIONS,
    ),
}
