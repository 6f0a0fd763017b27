"""LEDEX as the paper ran it: CodeLlama learns to explain and mend its wrong programs.

Question   Do explanations and refinements, learnt by SFT and then by PPO with a reward for
           each, take CodeLlama-7B's refinements that succeed from 8.1 % to the paper's 17.6
           and 20.8 %, and what of that is more than first programs alone would teach?
Command    stepcoder train experiments/ledex.py --data.contexts RECORDS.jsonl
           --data.path TRAIN.jsonl --model.checkpoint SFT_RUN --sft.records RECORDS.jsonl
           --reward.encoder ENCODER
Arms       the same with experiments/ledex.py:ARM@SIZE: an arm of ARMS (none: the paper's
           PPO) on 7b (where it is left out) or 13b, such as grpo@13b or @13b; `sft` and
           `first_programs` by `stepcoder sft`, which takes the same flags, with
           CodeLlama's folder as --model.checkpoint
Hardware   8 GPUs of 80 GB (mesh.fsdp 8; the paper names none): see below. Not run here
Expected   the paper's pass@1/pass@10 in % (arXiv:2405.18649, Table 2; 100 samples each, one
           seed, no intervals), of the first answer, and after one explanation and
           refinement of those that fail; then refinements that succeed, in %

           CodeLlama-7B        MBPP         HumanEval    MBPP+        HumanEval+   succeed
           prompted, first     38.21/67.24  34.27/69.60  37.18/61.23  27.40/60.81
           prompted, refined   43.42/72.09  40.13/74.95  42.46/67.41  32.49/66.58    8.10
           sft, first          48.87/70.89  36.99/69.95  42.97/62.69  30.76/62.52
           sft, refined        57.98/77.92  52.98/82.22  51.55/70.94  47.62/75.54   17.60
           ppo, first          46.54/71.54  39.38/71.84  41.46/63.68  33.95/65.98
           ppo, refined        57.92/78.97  55.84/84.14  52.90/71.80  50.04/78.25   20.84

           its own teacher (self-bootstrap)
           sft, first          45.83/69.24  39.85/68.83  41.78/61.77  33.25/61.50
           sft, refined        51.80/74.99  45.70/74.72  45.94/65.77  39.10/67.33
           ppo, first          46.28/68.87  39.90/69.49  41.61/61.29  33.66/62.17
           ppo, refined        52.34/74.60  46.90/75.70  46.10/65.99  40.79/68.50

           CodeLlama-13B succeeds in 11.97 % prompted, 20.06 % after SFT, 23.50 % after
           PPO. RL lowered the first answers to MBPP of 7B, so first answers are always
           shown. By the table itself ten first answers after SFT (70.89) beat a refined
           one (57.98); two samples against one refinement the paper does not show

What each arm asks:

  (none)          the paper's PPO: both rewards, that of the program reaching the
                  explanation, discounted
  sft             How much is there before RL? Right first programs and right refinements,
                  these with and without their explanation
  first_programs  And without the refinements? As many rows and updates
  tests           Do tests alone teach as much? No reward for likeness, or for explanations
  tests_codebleu  And likeness where all tests pass, so that no copy is paid for?
  one_scalar      Is it one scalar for both parts that teaches?
  hard_split      Does it harm that the program's reward reaches the explanation?
  value_answer    Is one value and one advantage for each part better (arXiv:2410.02089)?
  fgo             Does it help to leave out what did not run?
  grpo            Would a group baseline do, eight answers to the same failure, without a
                  value head? Not in the paper, as the five before it

TRAIN.jsonl are MBPP's train part, APPS+ and CodeContests, RECORDS.jsonl their records:

  stepcoder refine CODELLAMA --problems TRAIN.jsonl --samples-per-problem 20 \
    --temperature 1 --top-p 1 --teacher TEACHER --out FOLDER

with ten answers to each wrong program at 0.8, as in the paper; TEACHER is left out for its
self-bootstrap. ENCODER is the folder of a sentence encoder (the paper's:
all-roberta-large-v1; `similarity/encoder.py` names a small one).

Each is measured on problem files alone, by

  stepcoder evaluate RUN --problems HUMANEVAL.jsonl --samples-per-problem 100 \
    --temperature 0.8 --top-p 1 --k 1 10 --rounds 1 --variant explain --out RESULTS
  stepcoder compare RESULTS_A RESULTS_B

and the same with --rounds 3 --variant both for the paper's rounds, and with --feedback
none, verdict and random, the controls. The paper feeds the tests that score. Here
HumanEval's feedback is its docstring's examples, and its tests score; MBPP's tests do both.

Memory, GiB on each of 8 devices, by experiments/benchmarks/state_memory.py --devices 8:

           arm@size    state  reference  gradients  kept  decoding  cache  at most
           @7b           9.4     1.6        6.3      3.6    12.6     12.2    48.0
           @13b         18.2     3.0       12.1      4.7    24.2      9.6    64.6
           grpo@7b       9.4     1.6        6.3      3.6    12.6     12.2    48.0
           grpo@13b     18.2     3.0       12.1      4.7    24.2      9.6    64.6

`sft` takes 15.7 (7b) and 30.3 (13b) and what it keeps of one row a device, as in paper.py.
Weights and moments are float32, activations bfloat16, layers are computed again in the
backward pass (remat). A value is a linear layer on the policy's trunk, as in the paper. Of
13b 32 answers are decoded at a time (sampling.slots). On NVIDIA GPUs add --model.attention
cudnn.

The paper's: both rewards and their maps, without a clip; gamma 0.99 and lambda 1; PPO's
learning rate 2e-6 and batch of 64, KL to the SFT model; SFT's 2 epochs, batch 128, learning
rate 2e-5 and 500 updates of warm-up, which are 0.8 of the 617 that its 12,001 first
programs and 13,735 refinements in two variants make. Its cosine is a line here. Clips,
epochs per batch and the value's weight are those of TRL, its stated base (0.2, 4, 0.1).
The KL's weight, iterations, lengths and the warm-up of the value are our choice: the paper
gives none.
"""

from stepcoder_jax import config as c

SIZES = ("7b", "13b")
RECORDS = ("RECORDS.jsonl",)  # of `stepcoder refine`, where flags name no others
ARMS = (
    *("", "sft", "first_programs", "tests", "tests_codebleu", "one_scalar"),
    *("hard_split", "value_answer", "fgo", "grpo"),
)


def get_config(arg: str = "") -> c.Config:
    """ARM@SIZE: an arm of ARMS on one of SIZES; "" is the paper's PPO on 7b."""
    arm, _, size = arg.partition("@")
    size = size or SIZES[0]
    if arm not in ARMS or size not in SIZES:
        raise c.ConfigError(
            f"EXPERIMENT: expected ARM@SIZE, an arm of {ARMS} and a size of {SIZES}, got "
            f"{arg!r}"
        )
    shapes = {"7b": (4096, 11008, 32, 32), "13b": (5120, 13824, 40, 40)}
    config = c.Config(
        run=c.RunConfig(folder=f"runs/ledex_{arm or 'ppo'}_{size}", total_steps=430),
        model=code_llama(*shapes[size]),
        prompt=c.PromptConfig(template="plain", max_prompt_length=2048, variant="explain"),
        sampling=c.SamplingConfig(
            problems_per_step=64,
            rollouts_per_problem=1,
            max_completion_length=1024,
            temperature=1.0,
            top_p=1.0,
        ),
        ppo=c.PPOConfig(
            num_micro_batches=8,
            num_epochs=4,
            value_coef=0.1,
            gamma=0.99,
            gae_lambda=1.0,
            scale_rewards=False,
            critic_warmup_steps=20,
            actor=c.OptimizerConfig(learning_rate=2e-6),
        ),
        reward=c.RewardConfig(program="paper", explanation="paper"),
        execution=c.ExecutionConfig(tests="run_all"),
        mesh=c.MeshConfig(data=1, fsdp=-1),
        data=c.DataConfig(contexts=RECORDS),
        sft=c.SFTConfig(
            records=RECORDS,
            epochs=2.0,
            batch_size=128,
            num_micro_batches=16,
            warmup_fraction=0.8,
        ),
    )
    config.cccs.enabled, config.fgo.mask = False, "none"
    if size == "13b":
        config.sampling.slots = 32
    change(config, arm)
    return config


def change(config: c.Config, arm: str) -> None:
    """What an arm is named for."""
    if arm == "first_programs":
        config.sft.control = "first"
    elif arm == "tests":
        config.reward.program, config.reward.explanation = "tests", "none"
    elif arm == "tests_codebleu":
        config.reward.program = "tests_then_codebleu"
    elif arm == "one_scalar":
        config.reward.one_scalar = True
    elif arm == "hard_split":
        config.ppo.coupling = "hard_split"
    elif arm == "value_answer":
        config.ppo.value_unit, config.ppo.gamma = "answer", 1.0
    elif arm == "fgo":
        config.fgo.mask = "executed"
    elif arm == "grpo":
        config.algorithm = "grpo"
        config.sampling.problems_per_step, config.sampling.rollouts_per_problem = 8, 8


def code_llama(
    hidden_size: int, intermediate_size: int, num_layers: int, num_heads: int
) -> c.ModelConfig:
    """A CodeLlama of this shape, for counting; a checkpoint brings its own."""
    return c.ModelConfig(
        vocab_size=32016,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=128,
        max_positions=16384,
        rope_theta=1e6,
        norm_eps=1e-5,
        tie_embeddings=False,
        dtype="bfloat16",
        remat=True,
        shared_trunk=True,
    )
