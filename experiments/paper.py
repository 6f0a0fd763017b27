"""StepCoder as the paper ran it: DeepSeek-Coder-Instruct-6.7B on APPS+.

Question   Does StepCoder reach the paper's 36.1 % pass@1 on APPS+ (59.7 introductory, 23.5
           interview, 8.6 competition), from 29.2 % of the backbone?
Command    stepcoder train experiments/paper.py --model.checkpoint FOLDER
           --data.path TRAIN.json --data.validation VALIDATION.json --data.test TEST.json
Arms       experiments/paper.py:ARM with ARM one of ppo (31.7 %), no_cccs (34.6 %),
           no_fgo (35.5 %); in brackets the paper's overall pass@1
Hardware   the paper used 8 A100-80G for SFT and does not say for RL; not run here
Expected   the paper's numbers, of one seed and one sample per problem: a standard error
           of about 1.1 points (arXiv:2402.01391, Tables 1 and 2)

Learning rates, KL coefficient, rollouts, temperature and top-p are section 4.2's; PPO's
clips, GAE and Adam are those of the authors' later release, since the paper has none.
Batch, iterations and the curriculum's threshold are our choice: the paper gives none.
"""

from stepcoder_jax import config as c

ARMS = ("", "ppo", "no_cccs", "no_fgo")


def get_config(arg: str = "") -> c.Config:
    """The arm `arg`; "" is StepCoder itself."""
    if arg not in ARMS:
        raise c.ConfigError(f"EXPERIMENT: expected an arm of {ARMS}, got {arg!r}")
    config = c.Config(
        run=c.RunConfig(folder=f"runs/paper_{arg or 'stepcoder'}", total_steps=1000),
        model=c.ModelConfig(dtype="bfloat16", remat=True, max_positions=16384),
        prompt=c.PromptConfig(template="deepseek", max_prompt_length=2048),
        sampling=c.SamplingConfig(problems_per_step=16, rollouts_per_problem=16),
        ppo=c.PPOConfig(
            num_minibatches=1,
            num_micro_batches=16,
            actor=c.OptimizerConfig(learning_rate=5e-7, warmup_steps=100),
            critic=c.OptimizerConfig(learning_rate=1.5e-6, warmup_steps=100),
        ),
        mesh=c.MeshConfig(data=1, fsdp=-1),
        evaluation=c.EvaluationConfig(
            every=50, validation_problems=400, test_problems=2000
        ),
    )
    config.cccs.enabled = arg not in ("ppo", "no_cccs")
    if arg in ("ppo", "no_fgo"):
        config.fgo.mask = "none"
    return config
