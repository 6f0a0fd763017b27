"""The warm start that ships with the package: fluent in Python, ignorant of half the words.

Question   Can half a million parameters learn to write correct list programs from the
           plain wordings alone, and be left guessing at the rare ones?
Command    stepcoder sft experiments/warm_start.py --run.folder runs/warm_start
Hardware   two CPU cores, under 40 minutes
Expected   greedy pass@1 on test about 35 % (competition under 15 %), and at least 95 % of
           sampled programs compile; experiments/LOG.md has the measured numbers
"""

from stepcoder_jax.config import (
    Config,
    ModelConfig,
    PromptConfig,
    RunConfig,
    SamplingConfig,
    SFTConfig,
)


def get_config(arg: str = "") -> Config:
    """The recipe of `stepcoder_jax/assets/warm_start`; takes no argument."""
    del arg
    return Config(
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
