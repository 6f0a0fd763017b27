"""Self-debugging that learns on two cores: the dialect tier and its rule teacher (LEDEX).

Question   Does a model of half a million parameters learn from a teacher's answers to read
           what a failed test says, where nothing else tells what a word means; and what do
           the rewards of arXiv:2405.18649 add to that?
Command    stepcoder sft experiments/self_debug.py:teacher
Arms       the same with experiments/self_debug.py:ARM; each is a chain of commands (refine,
           sft or train, evaluate --rounds), and all of them are run by

           python experiments/self_debug.py short                      # at most 15 minutes
           python experiments/self_debug.py run --jobs 2               # all arms
           python experiments/self_debug.py run --arms rl_tests --seeds 0-4 --jobs 2
           python experiments/self_debug.py table

Hardware   two CPU cores, 3 GB of memory; one run on each core (--jobs 2)
Expected   success refinement rate on test: teacher at least 15 points above first, and at
           least 10 above itself told nothing. The teacher mends the part whose test is
           told, so of two wrong parts one round mends one: a perfect reader mends about
           100, 40 and 14 % of K = 1, 2, 3. What reinforcement adds is open: none of its
           arms has been run

The primary measure, fixed before the first run: the success refinement rate, which is the
share of first answers to the test split's problems that were wrong and are right after one
round (greedy, variant explain, told the failing visible test). Visible tests feed, hidden
ones score.

Claimed, seeds 0 to 4; exploratory, seeds 0 to 2:

  teacher      SFT on the right answers of the rule teacher to the warm start's wrong
               programs, and on first programs of the same problems; from random weights
  first        its control: those first programs alone, as many rows and updates
  rl_tests     reinforcement from the model of `teacher`, on contexts that it has not
               learnt; tests alone pay
  rl_paper     the paper's rewards: tests and CodeBLEU, and a reward of explanations
  rl_codebleu  exploratory: CodeBLEU only where tests pass, so that no copy is paid for
  rl_scalar    the paper's rewards as one scalar for both parts
  rl_hard      the paper's rewards; that of the program does not reach the explanation
  rl_grpo      tests alone, a group baseline in place of values
  self         SFT on what the arm `teacher` answers to its own wrong programs

Comparisons, named beforehand: teacher - first; teacher told the failing test - told
nothing; teacher: first + one refinement - two independent samples, where either may be
right (equal budget); each arm of reinforcement - teacher. Within a seed an interval is
paired over problems (bootstrap, 95 %); of two arms it is over the problems that both failed
first. Over seeds it is Student's of the differences of each seed, with the exact p of sign
flips, adjusted for all of them (Holm).

Beside it the table shows: rounds 2 and 3; controls of what was told (the verdict, nothing,
what was said of another problem); mending without an explanation (direct); the share of
answers that are copies of the wrong program; and Spearman's rank correlation of the
explanation reward with the truth of explanations, of the model's own ones and of
constructed ones, per encoder (TF-IDF, and --encoder FOLDER).

What arms share is made once for each seed, as a run of its own, and an arm waits for it:

  records       wrong programs of the warm start, answered by the rule
  contexts      wrong programs of `teacher` for other problems, answered by the rule;
                reinforcement answers those that it mends, for some rewards need a right
                answer to compare with
  own_records   wrong programs of `teacher`, answered by itself
  explanations  answers of `teacher` to the contexts, for the correlation with the truth

`run` makes RESULTS/ARM-SEED.json and goes on where it stopped; failures, digests and
`--digest as-recorded` are as in experiments/ablation.py.

`short` runs teacher and first of seed 0 with fewer problems (K = 1 and 2) and updates, and
tells both apart with true feedback and with none. It is to show that the effect is there,
not how large it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from self_debug_runner.scale import Scale

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
CLAIMED = ("teacher", "first", "rl_tests", "rl_paper")
EXPLORATORY = ("rl_codebleu", "rl_scalar", "rl_hard", "rl_grpo", "self")
ARMS = (*CLAIMED, *EXPLORATORY)
PROMISED = (5, 3)  # seeds of a claimed arm, and of another
COMPARISONS = (("teacher", "first"), *((arm, "teacher") for arm in REWARDS))


SCALES = {
    "": Scale({}, epochs=1.5, updates=40),  # SFT: some 1,200 updates
    "short": Scale(
        {"sft": (1000, 2000, 0), "train": (100, 100, 0), "test": (200, 200, 0)},
        epochs=3.2,  # some 770 updates
        updates=4,
        rounds=1,
        told=("none",),
        with_others=False,
    ),
}


def get_config(arg: str = "teacher") -> c.Config:
    """The arm `arg`, or ARM@short."""
    arm, at, name = arg.partition("@")
    if arm not in ARMS or name not in SCALES or bool(at) != bool(name):
        raise c.ConfigError(
            f"EXPERIMENT: expected an arm of {ARMS}, or ARM@short, got {arg!r}"
        )
    config = c.Config(
        run=c.RunConfig(folder=f"{FOLDER}/{arg}", seed=0),
        model=c.ModelConfig(tokenizer="dialect"),
        # three attempts, of three parts each, fit into a prompt
        prompt=c.PromptConfig(template="plain", max_prompt_length=320),
        sampling=c.SamplingConfig(max_completion_length=96),
        data=c.DataConfig(path="dialect"),
        execution=c.ExecutionConfig(cpu_seconds=1.0, tests="run_all"),
    )
    scale = SCALES[name]
    if arm in OF_TEXT:
        return learn_text(config, arm, scale.epochs)
    return reinforce(config, arm, scale.updates)


def learn_text(config: c.Config, arm: str, epochs: float) -> c.Config:
    """Supervised fine-tuning on records, from random weights."""
    records = "records" if arm != "self" else "own_records"
    config.sft = c.SFTConfig(
        split="sft",
        records=(f"{FOLDER}/{records}/records.jsonl",),
        control="first" if arm == "first" else "none",
        epochs=epochs,
        batch_size=32,
        learning_rate=2.5e-3,
        warmup_fraction=0.05,
        weight_decay=0.01,
    )
    return config


def reinforce(config: c.Config, arm: str, updates: int) -> c.Config:
    """PPO or GRPO on the contexts of records, from the arm teacher."""
    config.model = c.ModelConfig(checkpoint=f"{FOLDER}/teacher")
    config.data.contexts = (f"{FOLDER}/contexts/records.jsonl",)
    config.run.total_steps = updates
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


def main(argv: list[str]) -> int:
    """The runner: `short`, `run`, `table`."""
    from ablation_runner.study import Study
    from self_debug_runner import command

    study = Study(
        file=Path(__file__).resolve(),
        summary=str(__doc__),
        get_config=get_config,
        claimed=CLAIMED,
        exploratory=EXPLORATORY,
        comparisons=COMPARISONS,
        promised=PROMISED,
        runners=("ablation_runner", "self_debug_runner"),
        of_text=OF_TEXT,
    )
    return command.start(study, SCALES, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
