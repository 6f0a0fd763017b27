"""Wordings: a model finds out by running programs what other words for known things mean.

Question   How much does PPO with CCCS and FGO on two CPU cores add to the shipped warm
           start in ten minutes, and what do its parts add?
Command    stepcoder train experiments/wordings.py
Arms       experiments/wordings.py:ARM --run.folder runs/ARM, with ARM one of
           short     three small iterations, to see that everything works
           long      135 iterations instead of 45
           ppo       vanilla PPO: neither CCCS nor FGO
           no_cccs   FGO alone            no_fgo   CCCS alone
           grpo      no critic: rewards against those of the same problem's 4 rollouts,
                     with clip-higher and the mean over tokens; neither CCCS nor FGO
           grpo_stepcoder  the same with both
           sft       `stepcoder sft`: canonical solutions of the same problems instead of
                     rewards, for the same wall time
Hardware   two CPU cores, 3 GB of memory, ten minutes
Expected   experiments/log has every seed and arm

The values are this experiment's own, not the paper's: a model of half a million
parameters wants larger steps than one of 6.7 billion.
"""

from stepcoder_jax import config as c

ARMS = ("", "short", "long", "ppo", "no_cccs", "no_fgo", "sft")
ARMS += ("grpo", "grpo_stepcoder")


def get_config(arg: str = "") -> c.Config:
    """The arm `arg`; "" is StepCoder."""
    if arg not in ARMS:
        raise c.ConfigError(f"EXPERIMENT: expected an arm of {ARMS}, got {arg!r}")
    config = c.Config(
        run=c.RunConfig(folder="runs/wordings", total_steps=45, save_every=15),
        model=c.ModelConfig(checkpoint="builtin"),
        prompt=c.PromptConfig(template="plain", max_prompt_length=224),
        sampling=c.SamplingConfig(
            problems_per_step=64,
            rollouts_per_problem=4,
            max_completion_length=160,
            temperature=1.0,
            top_p=0.99,
            chunk=16,
        ),
        ppo=c.PPOConfig(
            num_minibatches=2,
            num_micro_batches=8,
            widths=(96, 160, 256),
            kl_coef=0.03,
            gae_lambda=1.0,
            whiten_advantages=True,
            critic_warmup_steps=2,
            actor=c.OptimizerConfig(learning_rate=2e-4, b2=0.99),
            critic=c.OptimizerConfig(learning_rate=1e-3),
        ),
        grpo=c.GRPOConfig(clip_high=0.28, average="token", kl_coef=0.03),
        cccs=c.CCCSConfig(full_fraction=0.5),
        execution=c.ExecutionConfig(cpu_seconds=1.0),
        data=c.DataConfig(pool_size=400),
        evaluation=c.EvaluationConfig(
            every=15, validation_problems=300, test_problems=500, batch_size=250
        ),
    )
    if arg in ("grpo", "grpo_stepcoder"):
        config.algorithm = "grpo"
    config.cccs.enabled = arg not in ("ppo", "grpo", "no_cccs")
    if arg in ("ppo", "grpo", "no_fgo"):
        config.fgo.mask = "none"
    if arg == "long":
        config.run.total_steps = 135
    if arg == "sft":
        config.sft = c.SFTConfig(epochs=80, learning_rate=3e-4)
        config.evaluation.every = 0  # its minutes are for learning
    if arg == "short":
        shorten(config)
    return config


def shorten(config: c.Config) -> None:
    """Three small iterations and small evaluations."""
    config.run.total_steps = 3
    config.sampling.problems_per_step = 16
    config.data.pool_size = 40
    config.evaluation = c.EvaluationConfig(
        every=3, validation_problems=20, test_problems=40, batch_size=40
    )
