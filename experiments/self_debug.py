"""Self-debugging that learns on two cores: the dialect tier and its rule teacher (LEDEX).

Question   Does a model of half a million parameters learn from a teacher's answers to read
           what a failed test says, where nothing else tells what a word means; and what do
           the rewards of arXiv:2405.18649 add to that?
Command    stepcoder sft experiments/self_debug.py:teacher
           before it, the wrong programs of the warm start with the rule teacher's answers:
             stepcoder refine dialect --problems dialect --split sft --teacher rule \\
                 --samples-per-problem 2 --out runs/self_debug/records
           behind it, for each arm, and with --feedback none, verdict and random as well:
             stepcoder evaluate runs/self_debug/teacher --split test --rounds 3 \\
                 --variant explain --out results/teacher
             stepcoder compare results/first results/teacher
           reinforcement, from the arm teacher, on contexts that are not learnt there:
             stepcoder refine runs/self_debug/teacher --problems dialect --split train \\
                 --teacher rule --samples-per-problem 4 --out runs/self_debug/contexts
             stepcoder train experiments/self_debug.py:rl_tests
Arms       teacher (right refinements, and first programs of the same problems) and its
           control first (the first programs alone, as many rows and updates), both from
           random weights; self, which learns what the arm teacher itself answers (`refine
           runs/self_debug/teacher --split sft --out runs/self_debug/own_records`);
           rl_tests, rl_paper, rl_codebleu (likeness only where tests pass), rl_scalar (one
           reward for both parts), rl_hard (hard split), rl_grpo
Hardware   two CPU cores
Expected   success refinement rate on test: teacher at least 15 points above first, and at
           least 10 above itself with --feedback none. The teacher mends the part whose test
           is told, so of two wrong parts one round mends one. What the arms of
           reinforcement add is open: none of them has been run
"""

from stepcoder_jax import config as c

FOLDER = "runs/self_debug"
OF_TEXT = ("teacher", "first", "self")
REWARDS = {  # reward.program, reward.explanation, reward.one_scalar, ppo.coupling
    "rl_tests": ("tests", "none", False, "printed"),
    "rl_paper": ("paper", "paper", False, "printed"),
    "rl_codebleu": ("tests_then_codebleu", "none", False, "printed"),
    "rl_scalar": ("paper", "paper", True, "printed"),
    "rl_hard": ("paper", "paper", False, "hard_split"),
    "rl_grpo": ("tests", "none", False, "printed"),
}
ARMS = (*OF_TEXT, *REWARDS)


def get_config(arg: str = "teacher") -> c.Config:
    """The arm `arg`."""
    if arg not in ARMS:
        raise c.ConfigError(f"EXPERIMENT: expected an arm of {ARMS}, got {arg!r}")
    config = c.Config(
        run=c.RunConfig(folder=f"{FOLDER}/{arg}", seed=0),
        model=c.ModelConfig(tokenizer="dialect"),
        # three attempts, of three parts each, fit into a prompt
        prompt=c.PromptConfig(template="plain", max_prompt_length=320),
        sampling=c.SamplingConfig(max_completion_length=96),
        data=c.DataConfig(path="dialect"),
        execution=c.ExecutionConfig(cpu_seconds=1.0, tests="run_all"),
    )
    return learn_text(config, arg) if arg in OF_TEXT else reinforce(config, arg)


def learn_text(config: c.Config, arm: str) -> c.Config:
    """Supervised fine-tuning on records, from random weights."""
    records = "records" if arm != "self" else "own_records"
    config.sft = c.SFTConfig(
        split="sft",
        records=(f"{FOLDER}/{records}/records.jsonl",),
        control="first" if arm == "first" else "none",
        epochs=1.5,  # some 1,200 updates
        batch_size=32,
        learning_rate=2.5e-3,
        warmup_fraction=0.05,
        weight_decay=0.01,
    )
    return config


def reinforce(config: c.Config, arm: str) -> c.Config:
    """PPO or GRPO on the contexts of records, from the arm teacher."""
    config.model = c.ModelConfig(checkpoint=f"{FOLDER}/teacher")
    config.data.contexts = (f"{FOLDER}/contexts/records.jsonl",)
    config.run.total_steps = 40
    config.cccs.enabled = False
    config.prompt.variant = "explain"
    config.sampling = c.SamplingConfig(
        problems_per_step=32,
        rollouts_per_problem=4,
        max_completion_length=96,
        temperature=1.0,
        top_p=1.0,
    )
    config.ppo = c.PPOConfig(
        num_minibatches=2,
        num_micro_batches=4,
        gae_lambda=1.0,
        kl_coef=0.05,
        whiten_advantages=True,
        scale_rewards=False,
        critic_warmup_steps=2,
        actor=c.OptimizerConfig(learning_rate=1e-4),
        critic=c.OptimizerConfig(learning_rate=1e-3),
    )
    program, explanation, one_scalar, coupling = REWARDS[arm]
    config.reward = c.RewardConfig(
        program=program, explanation=explanation, one_scalar=one_scalar
    )
    config.ppo.coupling = coupling
    if arm == "rl_grpo":
        config.algorithm = "grpo"
    return config
