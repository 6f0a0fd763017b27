"""The paper's arms for DeepSeek-Coder-Instruct-1.3B, each on a single GPU.

Question   Do CCCS and FGO do for a model of 1.3 billion weights what the paper reports of
           6.7, on hardware that a laboratory has?
Command    stepcoder train experiments/paper_1b.py --model.checkpoint FOLDER
           --data.path TRAIN.json --data.validation VALIDATION.json --data.test TEST.json
Arms       the same with experiments/paper_1b.py:ARM@CARD: an arm of paper.py (none:
           StepCoder) on a GPU of 80gb (where it is left out), 40gb or 24gb, such as
           ppo@40gb or @24gb, or on TPUs, @v5e-16; the arms sft by `stepcoder sft`
Hardware   one NVIDIA GPU of that memory, started through launch/gpu_node.sh, or a slice of
           4 x 4 TPU v5e. Not run here
Expected   no numbers in the paper, which has no model of this size; its table in paper.py
           is the order of the arms to compare with

How it fits: GiB by experiments/benchmarks/state_memory.py, which says what the columns are.
A tenth of each card is left for what they do not count. Always: activations in bfloat16,
cuDNN's attention, layers computed again in the backward pass (remat), two rows at a time
(ppo.num_micro_batches 128), and 24 or 8 rollouts decoded at a time (sampling.slots).

           arm@card              state  reference  gradients  kept  decoding  cache  at most
           @80gb                  29.4     2.5       19.6     2.1     2.5     13.8    61.9
           @40gb                  12.4     0.0       19.6     2.1     2.5      4.6    34.1
           @24gb                   5.7     0.0        0.4     2.1     2.6      4.6    17.4
           grpo_stepcoder@80gb    15.0     2.5       10.0     1.5     2.5     13.8    47.6
           grpo_stepcoder@40gb    15.0     2.5       10.0     1.5     2.5      4.6    29.3
           grpo_stepcoder@24gb     5.4     0.0        0.2     1.5     2.6      4.6    17.1

  80gb   all weights in float32, AdamW; the reference in bfloat16
  40gb   with a critic: the actor's moments in 8 bits (adamw8bit), the critic's factored
         (adafactor), the reference in the host's memory (offload_reference). Without a
         critic as on 80gb
  24gb   LoRA of rank 32 on all projections of actor and critic; the base is the reference.
         Rates ten times those of all weights: our choice, like the rank
  sft    25.1 GiB and what two rows keep: 20 bytes per weight, so all weights on 80gb and
         40gb, LoRA on 24gb

On v5e-16 (fsdp 8 x tensor 2, splash attention) by the plan, as in paper.py:

  slice   prepare   read   fill  resize  advance  learn  most    of  received  seconds
  v5e-16      4.4  (8.3)  (8.2)    11.5    (8.2)  (5.0)  11.5  15.8         -       20

All else is paper.py's.
"""

from __future__ import annotations

import paper

from stepcoder_jax import config as c

CARDS = ("80gb", "40gb", "24gb")
SLICES = {"v5e-16": paper.Slice("v5e:4x4", (1, 8, 2), "splash", 16, 128)}
OF_TEXT = paper.OF_TEXT


def get_config(arg: str = "") -> c.Config:
    """ARM@CARD: an arm of paper.py on one of CARDS; "" is StepCoder on 80gb."""
    arm, _, card = arg.partition("@")
    card = card or CARDS[0]
    if card not in (*CARDS, *SLICES) or arm not in paper.ARMS:
        raise c.ConfigError(
            f"EXPERIMENT: expected ARM@CARD, an arm of {paper.ARMS} and a card of "
            f"{(*CARDS, *SLICES)}, got {arg!r}"
        )
    config = paper.get_config(arm)
    config.run.folder = f"runs/paper_1b_{arm or 'stepcoder'}_{card}"
    config.model = paper.deepseek_coder(
        hidden_size=2048, intermediate_size=5504, num_layers=24, num_heads=16
    )
    if card in SLICES:
        paper.place(config, SLICES[card])
        return config
    config.model.attention = "cudnn"
    config.mesh = c.MeshConfig()
    config.ppo.num_micro_batches = 128  # two rows at a time
    config.sft.num_micro_batches = 32
    config.sampling.slots = 24 if card == "80gb" else 8
    if card == "40gb" and config.algorithm == "ppo":
        config.ppo.actor.name, config.ppo.critic.name = "adamw8bit", "adafactor"
        config.ppo.offload_reference = True
    if card == "24gb":
        use_adapters(config)
    return config


def use_adapters(config: c.Config) -> None:
    """LoRA, whose adapters want about ten times the rate of all weights."""
    config.model.lora_rank = 32
    config.model.lora_alpha = 64.0
    config.ppo.actor.learning_rate *= 10
    config.ppo.critic.learning_rate *= 10
    config.sft.learning_rate *= 10
