"""What stands beside the weights of a model that other programs load.

generation_config.json   the ids that end a completion, and the run's sampling settings
config.json              the same ids; transformers else takes 1 and 2, or none
tokenizer files          the run's own
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepcoder_jax.config import SamplingConfig
from stepcoder_jax.feedback import prompts


def write_beside(
    folder: Path, sampling: SamplingConfig, eos_ids: tuple[int, ...], tokenizer: Any
) -> None:
    """Write all of it into a folder that has config.json and weights.

    `eos_ids` are all that end a completion, the tokenizer's own first.
    """
    save_tokenizer(folder, tokenizer)
    special = special_ids(eos_ids, tokenizer)
    path = folder / "config.json"
    write_json(path, json.loads(path.read_text()) | special)
    settings = special | generation_settings(sampling)
    write_json(folder / "generation_config.json", settings)


def save_tokenizer(folder: Path, tokenizer: Any) -> list[str]:
    """Write the tokenizer as transformers 4 and 5 read it; the names of its files."""
    names = [Path(name).name for name in tokenizer.save_pretrained(folder)]
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text())
    if said.get("tokenizer_class") == "TokenizersBackend":  # 5's name for it
        said["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(said.get("extra_special_tokens"), list):  # for 4 a dict, or this
        said["additional_special_tokens"] = said.pop("extra_special_tokens")
    write_json(path, said)
    return names


def special_ids(eos_ids: tuple[int, ...], tokenizer: Any) -> dict[str, Any]:
    """bos_token_id, eos_token_id (one, or a list) and pad_token_id, in its words."""
    opening = prompts.opening_ids(tokenizer)
    return {
        "bos_token_id": opening[0] if opening else None,
        "eos_token_id": eos_ids[0] if len(eos_ids) == 1 else list(eos_ids),
        "pad_token_id": tokenizer.pad_token_id,
    }


def generation_settings(sampling: SamplingConfig) -> dict[str, Any]:
    """How `generate` draws as the run did.

    What is off stands there as off: transformers' own default for top_k is 50.
    """
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or None,
        "max_new_tokens": sampling.max_completion_length,
    }


def write_json(path: Path, tree: dict[str, Any]) -> None:
    """Write a file as transformers writes its own."""
    path.write_text(json.dumps(tree, indent=2) + "\n")
