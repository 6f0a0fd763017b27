"""Smoke run on genuine APPS+ problems: does the whole loop hold on real statements?

Question   Do real prompts, both kinds of tests and the sandbox work together with the loop?
Command    stepcoder train experiments/apps_plus_smoke.py --data.path PROBLEMS.json
Hardware   one CPU core, 3 GB of memory, two minutes
Expected   two iterations end; the weights are random, so hardly a program compiles and
           the reward stays near -1

PROBLEMS.json is a file in the APPS+ v1 format (JSON list). The shipped tokenizer has 640
tokens made for another language, so a statement takes up to 3,400 of them; the tokenizer
of a 7B model needs about a third.
"""

from stepcoder_jax import config as c


def get_config(arg: str = "") -> c.Config:
    """Two layers of width 32 on all problems of --data.path; takes no argument."""
    del arg
    return c.Config(
        run=c.RunConfig(folder="runs/apps_plus_smoke", total_steps=2, save_every=2),
        model=c.ModelConfig(
            tokenizer="builtin",
            hidden_size=32,
            intermediate_size=64,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=16,
            max_positions=3456,
        ),
        prompt=c.PromptConfig(template="deepseek", max_prompt_length=3408),
        sampling=c.SamplingConfig(
            problems_per_step=4,
            rollouts_per_problem=2,
            max_completion_length=48,
            chunk=16,
        ),
        ppo=c.PPOConfig(num_micro_batches=8),
    )
