"""Quickstart: a language model learns to write whole programs by running what it writes.

Question   A model writes programs of nine parts, of which each alone is right by chance one
           time in four: does it come from none that is right to most, in ten minutes?
Command    stepcoder train experiments/quickstart.py
Arms       experiments/quickstart.py:ARM --run.folder runs/ARM, with ARM one of
           short   three small iterations, to see that everything works
           ppo     vanilla PPO: the same without CCCS and FGO
Hardware   two CPU cores, 3 GB of memory, ten minutes
Expected   K = 9 (competition) from 0 to at least 30 %; vanilla PPO stays at 0. Its curve is
           told and drawn beside this run's: BESIDE, the arm `ppo` of the ablation, whose
           arm `stepcoder` this is. experiments/log has every seed

All values are the ablation's (experiments/ablation.py says why); only what is read on the
way, and at the end, is this experiment's own.
"""

from pathlib import Path

import ablation

from stepcoder_jax import config as c

ARMS = {"": "stepcoder", "short": "stepcoder", "ppo": "ppo"}
BESIDE = Path(ablation.__file__).parent / "results" / "ablation" / "beside.json"


def get_config(arg: str = "") -> c.Config:
    """The arm `arg`; "" is the quickstart itself."""
    if arg not in ARMS:
        raise c.ConfigError(f"EXPERIMENT: expected an arm of {tuple(ARMS)}, got {arg!r}")
    config = ablation.get_config(ARMS[arg])
    config.run.folder, config.run.track = "runs/quickstart", "tensorboard"
    config.evaluation.test_problems = 600  # about 200 of each size
    config.evaluation.beside = str(BESIDE)
    if arg == "short":
        shorten(config)
    return config


def shorten(config: c.Config) -> None:
    """Three small iterations and small evaluations."""
    config.run.total_steps, config.run.total_tokens = 3, 0
    config.sampling.problems_per_step = 4
    config.ppo.num_minibatches = 2
    config.evaluation.every_tokens, config.evaluation.every = 0, 3
    config.evaluation.validation_problems = config.evaluation.test_problems = 30
