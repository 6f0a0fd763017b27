"""A run's model as a folder for other programs: `stepcoder export RUN --out DIR`.

config.json, model*.safetensors   the policy, as transformers loads it
tokenizer files, chat_template    the run's own; a tokenizer without a chat template gets
                                  one that renders the run's prompt
generation_config.json            what ends a completion, the run's sampling settings
value_head*.safetensors           value_head.weight [1, H] and value_head.bias [1]; and the
                                  critic's trunk under model.*, where it has its own;
                                  not for a run without a critic (GRPO)
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from stepcoder_jax.config import ConfigError, ModelConfig
from stepcoder_jax.feedback import prompts
from stepcoder_jax.models import lora, policy, weights
from stepcoder_jax.runs.disk import model_folder, preflight
from stepcoder_jax.runs.disk.sft_folder import SFTFolder
from stepcoder_jax.runs.restore import open_folder, restore


def export_run(name: str, step: int | None, to: str, dtype: str) -> int:
    """Write the model of a run's checkpoint to the new or empty folder `to`.

    `dtype` is "float32", exact, or "bfloat16". The folder appears under its name once it
    is whole.
    """
    folder = Path(to)
    preflight.require_new_folder("--out", folder)
    if isinstance(open_folder(name), SFTFolder):
        raise ConfigError(
            f"RUN: {name} is an SFT run: it is a folder for transformers already, and so "
            f"are those in {name}/checkpoints"
        )
    found = restore(name, step, before=False)
    config, tokenizer = found.config, found.tokenizer
    part = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"--out: cannot write to {part} ({error.strerror})") from error
    actor, critic = merged(config.model, found.actor, found.critic)
    weights.save_checkpoint(part, config.model, actor, dtype)
    if critic is not None:
        save_value_head(part, config.model, critic, dtype)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = prompts.chat_template(tokenizer, config.prompt)
    model_folder.write_beside(part, config.sampling, found.steps.eos_ids, tokenizer)
    part.replace(folder)
    print(f"wrote {name}, {found.label}, as {dtype} to {folder}")
    return 0


def merged(config: ModelConfig, actor: Any, critic: Any) -> tuple[Any, Any]:
    """Actor and critic (or None) as plain parameters: LoRA's adapters in their base."""
    if not config.lora_rank:
        return actor, critic
    if critic is not None and not config.shared_trunk:
        trunk = policy.critic_trunk(config, actor, critic)
        critic = lora.merge(config, critic | {"trunk": trunk})
    return lora.merge(config, actor), critic


def save_value_head(folder: Path, config: ModelConfig, critic: Any, dtype: str) -> None:
    """Write value_head.safetensors, with the critic's trunk where it has its own."""
    head = critic["value_head"]
    tensors = weights.tensors_of(config, critic) | {
        "value_head.weight": weights.Tensor(
            (1, config.hidden_size), lambda: np.asarray(head["kernel"]).T
        ),
        "value_head.bias": weights.Tensor((1,), lambda: np.asarray(head["bias"])),
    }
    weights.write_tensors(
        folder, "value_head", tensors, weights.DTYPES[dtype], weights.SHARD_BYTES
    )
