"""What stands beside the weights of a model that other programs load.

generation_config.json   the ids that end a completion, and the run's sampling settings
config.json              the same ids; transformers else takes 1 and 2, or none
tokenizer files          the run's own
digests.json             the seal of all of it and of the weights, written last
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax

from stepcoder_jax.config import SamplingConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.feedback import prompts
from stepcoder_jax.runs.disk import seals
from stepcoder_jax.runs.disk.seals import DamagedError

_OF_WEIGHTS = ("config.json", "generation_config.json", ".safetensors", ".index.json")


def write_beside(
    folder: Path, sampling: SamplingConfig, eos_ids: tuple[int, ...], tokenizer: Any
) -> None:
    """Write all of it into a folder that has config.json and weights, and seal these.

    `eos_ids` are all that end a completion, the tokenizer's own first.
    """
    names = save_tokenizer(folder, tokenizer)
    special = special_ids(eos_ids, tokenizer)
    path = folder / "config.json"
    write_json(path, json.loads(path.read_text()) | special)
    settings = special | generation_settings(sampling)
    write_json(folder / "generation_config.json", settings)
    names += [path.name for path in folder.iterdir() if _is_of_weights(path.name)]
    seals.seal(folder, set(names))


def _is_of_weights(name: str) -> bool:
    return name.endswith(_OF_WEIGHTS)


def find_damage(folder: Path) -> str:
    """What of a sealed model is not as it was written, in words; "" where all is."""
    return seals.find_damage_of(folder, lambda name: True)


def check_weights(folder: Path) -> None:
    """Raise DamagedError where the weights of a sealed model are not as they were written.

    Process 0 looks, for all.
    """
    damage = "its files are not those that were written"
    if jax.process_index() == 0:
        damage = seals.find_damage_of(folder, _is_of_weights)
    _refuse(folder, damage if sharding.decided(bool(damage)) else "")


def check_tokenizer(folder: Path) -> None:
    """As `check_weights`, of the tokenizer, and of this process alone."""
    _refuse(folder, seals.find_damage_of(folder, lambda name: not _is_of_weights(name)))


def check_all(folder: Path) -> None:
    """As `check_weights`, of all files, and of this process alone."""
    _refuse(folder, find_damage(folder))


def _refuse(folder: Path, damage: str) -> None:
    if damage:
        raise DamagedError(
            f"model folder {folder} is damaged: {damage}; put the file back, or take "
            f"another model (remove {seals.SEAL} if the change is your own)"
        )


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
