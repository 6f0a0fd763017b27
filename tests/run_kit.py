"""A tiny run, real in all its parts; this file is also an experiment of `stepcoder`."""

from __future__ import annotations

from pathlib import Path

from stepcoder_jax import config as c
from stepcoder_jax.__main__ import main
from stepcoder_jax.results.logger import read_metrics
from stepcoder_jax.runs import restore
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.run_folder import RunFolder
from stepcoder_jax.runs.disk.sft_folder import SFTFolder
from stepcoder_jax.tracking import metrics as table

STEPS = 4
HERE = str(Path(__file__))


def get_config(arg: str = "") -> c.Config:
    """4 problems x 4 rollouts of the shipped warm start, four iterations."""
    del arg
    return c.Config(
        run=c.RunConfig(total_steps=STEPS, save_every=2, track="jsonl"),
        model=c.ModelConfig(checkpoint="builtin"),
        prompt=c.PromptConfig(template="plain", max_prompt_length=224),
        sampling=c.SamplingConfig(4, 4, 96, temperature=0.8, top_p=0.95, chunk=16),
        ppo=c.PPOConfig(
            num_minibatches=2,
            widths=(128,),
            kl_coef=0.02,
            critic_warmup_steps=1,
            actor=c.OptimizerConfig(learning_rate=1e-4),
            critic=c.OptimizerConfig(learning_rate=1e-4),
        ),
        # so that stages are left within four iterations
        cccs=c.CCCSConfig(alpha=1.0, threshold=0.2, full_fraction=0.25),
        execution=c.ExecutionConfig(workers=1, cpu_seconds=1.0),
        data=c.DataConfig(pool_size=12),
        evaluation=c.EvaluationConfig(
            every=2, validation_problems=8, test_problems=8, batch_size=8
        ),
    )


def start(folder: Path) -> None:
    """Make the folder of a run that was started, with its reference and no checkpoint."""
    config = get_config()
    config.run.folder = str(folder)
    tokenizer = sources.load_tokenizer(config.model)
    config.model = sources.resolve_model(config.model, len(tokenizer))
    opened = RunFolder(config.run.folder)
    opened.open(config)
    opened.save_reference(config, tokenizer)


def run_train(folder: Path, *flags: str) -> int:
    """`stepcoder train` of this file into `folder`; the exit code."""
    return main(["train", HERE, "--run.folder", str(folder), *flags])


def metrics_of(
    folder: Path, clocked: tuple[str, ...] = ("seconds/", "judge/", "hosts/")
) -> list[dict]:
    """The rows of metrics.jsonl without what a clock or the judge's cache put there."""
    return [
        {name: value for name, value in row.items() if not name.startswith(clocked)}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def check_names(folder: Path, *, is_sft: bool = False) -> None:
    """The rows of metrics.jsonl have the names that tracking/metrics.py tells of."""
    opened = SFTFolder(folder) if is_sft else RunFolder(folder)
    kinds = table.kinds_of(opened.read_config(), is_sft=is_sft)
    for row in read_metrics(folder / "metrics.jsonl"):
        told = table.complaint(row.keys() - {"step"}, kinds)
        assert not told, told


def rollouts_of(folder: Path) -> dict[str, str]:
    """The files of rollouts/, by name."""
    return {path.name: path.read_text() for path in (folder / "rollouts").iterdir()}


def saved(folder: Path, step: int):
    """State, curriculum and record of a checkpoint, and the config of the run."""
    with restore.opened(str(folder), step, before=False) as (config, coder, _, _):
        state = coder.steps.abstract_state
        return *RunFolder(folder).restore(step, state, best=False), config
