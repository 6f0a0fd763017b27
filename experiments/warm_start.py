"""The warm starts that ship with the package: fluent, and ignorant of what is to be learnt.

Question   Can half a million parameters learn to write programs from supervised text, and
           be left guessing at the words that reinforcement is to teach?
Command    stepcoder sft experiments/warm_start.py --run.folder runs/warm_start
           stepcoder sft experiments/warm_start.py:guarded --run.folder runs/guarded
           stepcoder sft experiments/warm_start.py:dialect --run.folder runs/dialect
Arms       "" of the list programs (data.path builtin): rare wordings mean nothing yet;
           guarded of the guarded tier: alien words mean an operation of their class;
           dialect of the dialect tier: first programs alone, nothing of feedback
Hardware   two CPU cores, under 40 minutes; guarded under 20, dialect under 5
Expected   "": greedy pass@1 on test about 35 % (competition under 15 %), and at least 95 %
           of sampled programs compile. guarded: at each part of K = 9, guards right at
           least .99, classes .98, alien operations .20 to .30
           (experiments/benchmarks/guarded_positions.py). experiments/log has the
           measured numbers. dialect: pass@1 on test 1/4, 1/16 and 1/64 of K = 1, 2, 3
"""

from stepcoder_jax.config import (
    Config,
    ConfigError,
    ModelConfig,
    PromptConfig,
    RunConfig,
    SamplingConfig,
    SFTConfig,
)

ARMS = ("", "guarded", "dialect")


def get_config(arg: str = "") -> Config:
    """The recipe of `stepcoder_jax/assets/warm_start`, or of `warm_start_ARM`."""
    if arg not in ARMS:
        raise ConfigError(f"EXPERIMENT: expected an arm of {ARMS}, got {arg!r}")
    config = Config(
        run=RunConfig(folder="runs/warm_start", seed=0),
        model=ModelConfig(vocab_size=640),
        prompt=PromptConfig(template="plain", max_prompt_length=224),
        sampling=SamplingConfig(max_completion_length=192),
        sft=SFTConfig(
            split="sft",
            epochs=3,
            batch_size=64,
            learning_rate=2e-3,
            warmup_fraction=0.05,
            weight_decay=0.01,
        ),
    )
    if arg:
        config.run.folder = f"runs/{arg}"
        config.data.path = arg
        config.model.vocab_size = 512
        config.sft.epochs, config.sft.learning_rate = 2, 4e-3
    if arg == "dialect":
        config.sft.epochs = 1
    return config
