"""A tiny SFT run, real in all its parts; this file is also an experiment of `stepcoder`."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from stepcoder_jax import config as c
from stepcoder_jax.__main__ import main
from stepcoder_jax.execution import PoolSettings, open_pool
from stepcoder_jax.models import weights
from stepcoder_jax.runs import rl_run
from stepcoder_jax.runs.experiment import load_experiment
from tests import run_kit

STEPS = 6
HERE = str(Path(__file__))


def get_config(arg: str = "") -> c.Config:
    """An epoch and a half of 84 problems, from the shipped warm start, in packed rows."""
    del arg
    return c.Config(
        run=c.RunConfig(save_every=2, keep=1, track="jsonl"),
        model=c.ModelConfig(checkpoint="builtin"),
        prompt=c.PromptConfig(template="plain", max_prompt_length=224),
        sampling=c.SamplingConfig(4, 4, 160, chunk=16),
        execution=c.ExecutionConfig(workers=1, cpu_seconds=1.0),
        data=c.DataConfig(pool_size=84),
        evaluation=c.EvaluationConfig(
            every=3, validation_problems=8, test_problems=0, batch_size=8
        ),
        sft=c.SFTConfig(epochs=1.5, batch_size=8, packing=256, learning_rate=1e-3),
    )


def run_sft(folder: Path, *flags: str) -> int:
    """`stepcoder sft` of this file into `folder`; the exit code."""
    return main(["sft", HERE, "--run.folder", str(folder), *flags])


def metrics_of(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl without what a clock put there."""
    return run_kit.metrics_of(folder, clocked=("seconds/", "tokens_per_second"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The files of a model's folder that a run decides, by name."""
    names = ("model.safetensors", "config.json", "tokenizer.json")
    return {name: (folder / name).read_bytes() for name in names}


def assert_train_begins_with(model: Path, folder: Path) -> None:
    """`stepcoder train` takes a model as actor, critic and reference, to the bit."""
    config = load_experiment(run_kit.HERE)
    config.model.checkpoint, config.run.folder = str(model), str(folder)
    config.sampling.max_completion_length = 160
    settings = PoolSettings(**vars(config.execution), coverage="none")
    with open_pool(settings) as pool:
        begun = rl_run.Run(config, pool)
    _, params = weights.load_checkpoint(model, np.float32)
    head = {name: np.zeros_like(x) for name, x in begun.state.critic["value_head"].items()}
    for found, expected in (
        (begun.state.actor, params),
        (begun.reference, params),
        (begun.state.critic, {"trunk": params["trunk"], "value_head": head}),
    ):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)
