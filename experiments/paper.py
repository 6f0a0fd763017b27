"""StepCoder as the paper ran it: DeepSeek-Coder-Instruct-6.7B on APPS+, and its baselines.

Question   Does StepCoder reach the paper's 36.1 % pass@1 on APPS+, from 29.2 % of the
           backbone, and how much of it do vanilla PPO, CCCS and FGO give each?
Command    stepcoder train experiments/paper.py --model.checkpoint FOLDER
           --data.path TRAIN.json --data.validation VALIDATION.json --data.test TEST.json
Arms       the same with experiments/paper.py:ARM@SLICE: an arm below (none: StepCoder) on
           a slice of SLICES (none: 8 GPUs of 80 GB), such as ppo@v5e-64 or @v6e-32; `sft`
           by `stepcoder sft`, which takes the same flags
Hardware   8 GPUs of 80 GB (mesh.fsdp 8; the paper names them for SFT alone), or TPUs: see
           below. Not run here
Expected   the paper's pass@1 in % (arXiv:2402.01391, Tables 1 and 2), of one seed and one
           sample per problem: standard errors of about 1.1 points overall, 1.9 of 700
           introductory, 1.3 of 1,000 interview, 2.2 of 140 competition problems

           arm             APPS+   intro interview  comp   HumanEval  MBPP
           (the backbone)   29.2    49.4    18.7     3.6     78.0     64.2
           sft              29.8    50.1    19.0     6.4     55.5     54.8
           ppo              31.7    53.7    20.1     5.0     78.0     65.0
           no_cccs          34.6    58.7    21.7     7.1      -        -
           no_fgo           35.5    58.4    23.3     8.6      -        -
           StepCoder        36.1    59.7    23.5     8.6     78.7     67.0
           grpo              -       -       -        -       -        -
           grpo_stepcoder    -       -       -        -       -        -

What each arm asks:

  sft             Do canonical solutions teach as much as rewards? (Elsewhere they harm.)
  ppo             What is there to gain by rewards alone: neither CCCS nor FGO?
  no_cccs         What does FGO add to PPO?
  no_fgo          What does CCCS add to PPO?
  (none)          And both: StepCoder
  grpo            Would a group baseline do without a critic? Neither CCCS nor FGO; with
                  clip-higher and the mean over tokens. Not in the paper
  grpo_stepcoder  Do CCCS and FGO help it as well? Not in the paper

The paper decodes at temperature 0.2 and top-p 0.95; how many samples it does not say:

  stepcoder evaluate RUN --samples-per-problem 10 --temperature 0.2 --top-p 0.95 --k 1 \
    --out RESULTS
  stepcoder compare RESULTS_A RESULTS_B

with RUN of an arm, and --problems HUMANEVAL.jsonl for the last columns.

Memory, GiB on each of 8 devices, by experiments/benchmarks/state_memory.py --devices 8:

           arm             state  reference  gradients  kept  decoding  cache  at most
           (none)           18.7     1.6       12.4      8.9    12.6     12.2    57.3
           grpo_stepcoder    9.4     1.6        6.3      7.2    12.6     12.2    48.0

`sft` takes 15.7 and what it keeps of one row a device: 20 bytes per weight (itself, two
moments, gradients of all and of one micro-batch), over 8.
Weights and moments are float32, activations bfloat16, layers are computed again in the
backward pass (remat); the reference is kept in bfloat16. Decoding holds a whole copy of the
weights on each device, so 64 of the 256 rollouts are decoded at a time (sampling.slots).
On NVIDIA GPUs take @gpu-8, which is the same with cuDNN's attention.

On TPUs (splash attention), by `stepcoder plan`, whose words are predictions: none has met
a chip. GiB of a chip in each program, what lies beside it included; GiB that each chip
receives in an iteration; seconds of an iteration at peak. A figure in brackets is counted
by shapes, all others are the compiler's, whose learn takes up to 40 % more than counted.
experiments/benchmarks/plans.py makes them.

  slice    prepare    read    fill  resize  advance   learn  most    of  received  seconds
  v5e-64       8.8   (9.3)   (9.1)  (11.3)    (9.1)    11.0  11.3  15.8     467.8       23
  v5p-16      32.9  (53.1)  (52.6)  (70.4)   (52.8)  (41.1)  70.4  95.7         -       48
  v6e-32      11.4  (14.9)  (14.7)    19.2   (14.8)  (12.0)  19.2  31.2         -       18
  v5p-128     30.5  (30.8)  (31.3)    33.5   (31.3)  (43.4)  43.4  95.7         -       24

  v5e-64   8 x 8 chips of 16 GB, fsdp 16 x tensor 4: a whole copy of the weights for
           decoding (12.6 GiB) does not fit beside the rest, a quarter of it does
  v5p-16   2 x 2 x 2 chips of 95 GB (the name counts cores), fsdp 4 x tensor 2
  v6e-32   4 x 8 chips of 32 GB, fsdp 8 x tensor 4
  v5p-128  4 x 4 x 4 chips of 95 GB, fsdp 16 x tensor 4, for a model of the shape of
           DeepSeek-Coder-33B, which the paper does not have

Learning rates, KL coefficient, rollouts, temperature and top-p are section 4.2's; PPO's
clips, GAE and Adam are those of the authors' later release, since the paper has none.
Batch, iterations and the curriculum's threshold are our choice: the paper gives none. Nor
does it know GRPO: its clip-higher is DAPO's (arXiv:2503.14476), the rest as for PPO.
"""

from typing import NamedTuple

from stepcoder_jax import config as c

ARMS = ("", "sft", "ppo", "no_cccs", "no_fgo", "grpo", "grpo_stepcoder")
OF_TEXT = ("sft",)


class Slice(NamedTuple):
    """Chips, and how a run lies on them."""

    topology: str  # as `stepcoder plan` calls it
    mesh: tuple[int, int, int]  # data x fsdp x tensor
    attention: str
    micro_batches: int  # of an update
    slots: int  # rollouts that are decoded at a time
    large: bool = False  # 33 billion weights and not 6.7


SLICES = {
    "gpu-8": Slice("h100:8", (1, 8, 1), "cudnn", 16, 64),
    "v5e-64": Slice("v5e:8x8", (1, 16, 4), "splash", 8, 128),
    "v5p-16": Slice("v5p:2x2x2", (1, 4, 2), "splash", 16, 128),
    "v6e-32": Slice("v6e:4x8", (1, 8, 4), "splash", 16, 128),
    "v5p-128": Slice("v5p:4x4x4", (1, 16, 4), "splash", 4, 256, large=True),
}


def get_config(arg: str = "") -> c.Config:
    """ARM@SLICE: an arm on one of SLICES; "" is StepCoder itself on 8 GPUs."""
    arm, at, name = arg.partition("@")
    if arm not in ARMS or (at and name not in SLICES):
        raise c.ConfigError(
            f"EXPERIMENT: expected ARM@SLICE, an arm of {ARMS} and a slice of "
            f"{tuple(SLICES)}, got {arg!r}"
        )
    config = get_arm(arm)
    if name:
        place(config, SLICES[name])
        config.run.folder += f"_{name}"
    return config


def place(config: c.Config, where: Slice) -> None:
    """Lay a run out on a slice."""
    if where.large:
        config.model = deepseek_coder(
            hidden_size=7168, intermediate_size=19200, num_layers=62, num_heads=56
        )
        config.model.num_kv_heads = 8
    config.mesh = c.MeshConfig(*where.mesh)
    config.model.attention = where.attention
    config.ppo.num_micro_batches = where.micro_batches
    config.sampling.slots = where.slots
    rows = where.mesh[0] * where.mesh[1]
    config.sft.num_micro_batches = config.sft.batch_size // rows  # a row at a time


def get_arm(arm: str) -> c.Config:
    """An arm on 8 GPUs."""
    config = c.Config(
        run=c.RunConfig(folder=f"runs/paper_{arm or 'stepcoder'}", total_steps=1000),
        model=deepseek_coder(
            hidden_size=4096, intermediate_size=11008, num_layers=32, num_heads=32
        ),
        prompt=c.PromptConfig(template="deepseek", max_prompt_length=2048),
        sampling=c.SamplingConfig(problems_per_step=16, rollouts_per_problem=16, slots=64),
        ppo=c.PPOConfig(
            num_minibatches=1,
            num_micro_batches=16,
            actor=c.OptimizerConfig(learning_rate=5e-7, warmup_steps=100),
            critic=c.OptimizerConfig(learning_rate=1.5e-6, warmup_steps=100),
        ),
        grpo=c.GRPOConfig(clip_high=0.28, average="token", kl_coef=0.05),
        mesh=c.MeshConfig(data=1, fsdp=-1),
        evaluation=c.EvaluationConfig(
            every=50, validation_problems=400, test_problems=2000
        ),
        sft=c.SFTConfig(num_micro_batches=8),
    )
    if arm in ("grpo", "grpo_stepcoder"):
        config.algorithm = "grpo"
    config.cccs.enabled = arm not in ("ppo", "grpo", "no_cccs")
    if arm in ("ppo", "grpo", "no_fgo"):
        config.fgo.mask = "none"
    return config


def deepseek_coder(
    hidden_size: int, intermediate_size: int, num_layers: int, num_heads: int
) -> c.ModelConfig:
    """A DeepSeek-Coder of this shape, for counting; a checkpoint brings its own."""
    return c.ModelConfig(
        vocab_size=32256,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=128,
        max_positions=16384,
        rope_theta=100000.0,
        rope_factor=4.0,
        tie_embeddings=False,
        dtype="bfloat16",
        remat=True,
    )
