"""The programs of peer_speed.py, each in an interpreter of its own.

python experiments/benchmarks/peer_programs.py ours|tunix|trl SHAPE WORK PARTS

Answers each line of stdin, when its work is done, with a line of JSON: seconds, tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

SHAPES = {
    "A": {"layers": 4, "hidden": 128, "heads": 4, "kv": 2, "size": 32, "mlp": 512}
    | {"vocab": 512, "batch": 16, "prompt": 64, "new": 64},
    "B": {"layers": 6, "hidden": 384, "heads": 6, "kv": 2, "size": 64, "mlp": 1536}
    | {"vocab": 4096, "batch": 8, "prompt": 128, "new": 256},
}
BATCHES = 8  # of the geometric work
HAZARD = 32  # one token in this many ends a completion there
NO_EOS = -1


class Gate:
    """Answers each line of stdin with the seconds since the last, once per `wait`."""

    def __init__(self, answers) -> None:
        self.answers, self.began, self.tokens = answers, time.perf_counter(), 0

    def wait(self) -> None:
        """Say how long the work took that began behind the last line; take the next."""
        seconds = time.perf_counter() - self.began
        print(json.dumps({"seconds": seconds, "tokens": self.tokens}), file=self.answers)
        self.answers.flush()
        if not sys.stdin.readline():
            os._exit(0)
        self.began = time.perf_counter()


def prompts_of(shape: dict, work: str):
    """Prompts i32[rows, prompt], and the ids that end a completion: the last ones."""
    import numpy as np

    rows = shape["batch"] * (BATCHES if work == "geometric" else 1)
    ends = shape["vocab"] // HAZARD if work == "geometric" else 0
    tokens = np.random.default_rng(0).integers(
        2, shape["vocab"] - ends, (rows, shape["prompt"])
    )
    return tokens.astype(np.int32), list(range(shape["vocab"] - ends, shape["vocab"]))


def rows_at_once(shape: dict) -> int:
    """Rows of a micro-batch: an update goes over them one after the other."""
    return shape["batch"] // shape["parts"]


def our_config(shape: dict):
    from stepcoder_jax import config as c

    config = c.Config(
        model=c.ModelConfig(
            family="qwen2",
            vocab_size=shape["vocab"],
            hidden_size=shape["hidden"],
            intermediate_size=shape["mlp"],
            num_layers=shape["layers"],
            num_heads=shape["heads"],
            num_kv_heads=shape["kv"],
            head_dim=shape["size"],
            tie_embeddings=False,
            unroll=shape["layers"],
        ),
        prompt=c.PromptConfig(max_prompt_length=shape["prompt"]),
        sampling=c.SamplingConfig(
            problems_per_step=shape["batch"],
            rollouts_per_problem=1,
            max_completion_length=shape["new"],
            temperature=1.0,
            top_p=1.0,
            slots=shape["batch"],
        ),
    )
    config.ppo.scale_rewards = False
    config.ppo.num_micro_batches = shape["parts"]
    return config


def run_ours(shape: dict, work: str, gate: Gate) -> None:
    import jax
    import numpy as np

    from stepcoder_jax.devices import sharding
    from stepcoder_jax.devices.steps import Steps
    from stepcoder_jax.pytrees import Feedback, PromptBatch
    from stepcoder_jax.sampling import slots

    config = our_config(shape)
    tokens, ends = prompts_of(shape, work)
    rows = len(tokens)
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    steps = Steps(config, mesh, tuple(ends) or (NO_EOS,))
    length = np.full(rows, shape["prompt"], np.int32)
    batch = PromptBatch(tokens, length, np.arange(rows, dtype=np.int32))
    actor = steps.init_params(seed=0)
    state = steps.init_state(actor) if work == "step" else None
    for step in range(10**9):
        gate.wait()
        now = actor if state is None else state.actor
        done = [x for chunk in steps.sample(now, batch, step, None) for x in chunk]
        gate.tokens = sum(len(x.tokens) for x in done)
        if state is None:
            continue
        rollout = slots.collect(batch, shape["new"], done)
        rewards = np.zeros(rollout.mask.shape, np.float32)
        rewards[:, -1] = 0.5
        feedback = Feedback(rewards, rollout.mask, np.ones(rows, bool))
        state, *rest = steps.learn(state, actor, rollout, feedback)
        jax.block_until_ready((state, rest))


class Tokenizer:
    """Numbers as words, for peers that take text."""

    def encode(self, text: str, **_) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids, **_) -> str:
        return " ".join(str(int(token)) for token in ids)

    def bos_id(self) -> int:
        return 0  # falsy: no token is put before a prompt

    def eos_id(self) -> int:
        return 10**6  # never drawn

    def pad_id(self) -> int:
        return 0


def run_tunix(shape: dict, work: str, gate: Gate) -> None:
    import jax
    import numpy as np
    from flax import nnx
    from tunix.models.qwen2 import model as qwen2

    config = qwen2.ModelConfig(
        num_layers=shape["layers"],
        vocab_size=shape["vocab"],
        embed_dim=shape["hidden"],
        hidden_dim=shape["mlp"],
        num_heads=shape["heads"],
        head_dim=shape["size"],
        num_kv_heads=shape["kv"],
        rope_theta=10000,
        norm_eps=1e-6,
        use_tied_embedding=False,
    )
    tokens, ends = prompts_of(shape, work)
    texts = [" ".join(map(str, row)) for row in tokens]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    with mesh:
        actor = qwen2.Qwen2(config, rngs=nnx.Rngs(0))
        if work == "step":
            run_tunix_steps(shape, texts, mesh, actor, gate)
            return
        run_tunix_sampler(shape, texts, ends or [NO_EOS], config, actor, gate)


def run_tunix_sampler(shape, texts, ends, config, actor, gate: Gate) -> None:
    from tunix.generate import sampler as generate

    cache = generate.CacheConfig(
        cache_size=shape["prompt"] + shape["new"] + 8,
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    sampler = generate.Sampler(actor, Tokenizer(), cache)
    for seed in range(10**9):
        gate.wait()
        gate.tokens = 0
        for start in range(0, len(texts), shape["batch"]):
            out = sampler(
                texts[start : start + shape["batch"]],
                shape["new"],
                max_prompt_length=shape["prompt"],
                temperature=1.0,
                top_p=1.0,
                seed=seed * BATCHES + start,
                eos_tokens=ends,
                return_logprobs=True,
            )
            gate.tokens += sum(len(row) for row in out.tokens)


def run_tunix_steps(shape, texts, mesh, actor, gate: Gate) -> None:
    import copy

    import numpy as np
    import optax
    from tunix.rl import rl_cluster
    from tunix.rl import utils as rl_utils
    from tunix.rl.ppo import ppo_learner
    from tunix.rl.rollout import base_rollout

    role = rl_cluster.Role
    cluster = rl_cluster.RLCluster(
        actor=actor,
        critic=rl_utils.create_critic_model(actor),
        reference=copy.deepcopy(actor),
        tokenizer=Tokenizer(),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(
                (role.ACTOR, role.CRITIC, role.REFERENCE, role.ROLLOUT), mesh
            ),
            rollout_engine="vanilla",
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=optax.adamw(1e-5),
                critic_optimizer=optax.adamw(1e-5),
                eval_every_n_steps=10**6,
                max_steps=10**6,
                mini_batch_size=shape["batch"],
                train_micro_batch_size=rows_at_once(shape),
                compute_logps_micro_batch_size=rows_at_once(shape),
                rollout_micro_batch_size=shape["batch"],
            ),
            rollout_config=base_rollout.RolloutConfig(
                max_tokens_to_generate=shape["new"],
                max_prompt_length=shape["prompt"],
                kv_cache_size=shape["prompt"] + shape["new"] + 8,
                temperature=1.0,
            ),
        ),
    )

    def reward(prompts, completions, **_):
        gate.wait()
        gate.tokens = len(prompts) * shape["new"]
        return [0.5] * len(prompts)

    learner = ppo_learner.PPOLearner(
        rl_cluster=cluster, reward_fns=reward, ppo_config=ppo_learner.PPOConfig(beta=0.05)
    )
    learner.train([{"prompts": np.array(texts)}] * 10**4)


def run_trl(shape: dict, work: str, gate: Gate) -> None:
    import torch
    import transformers

    config = transformers.Qwen2Config(
        vocab_size=shape["vocab"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv"],
        tie_word_embeddings=False,
        num_labels=1,
        pad_token_id=0,
        eos_token_id=None,
    )
    tokens, ends = prompts_of(shape, work)
    actor = transformers.Qwen2ForCausalLM(config)
    if work == "step":
        run_trl_steps(shape, tokens, config, actor, gate)
        return
    batches = torch.tensor(tokens, dtype=torch.long).split(shape["batch"])
    while True:
        gate.wait()
        gate.tokens = 0
        for batch in batches:
            with torch.no_grad():
                out = actor.generate(
                    batch,
                    attention_mask=torch.ones_like(batch),
                    max_new_tokens=shape["new"],
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    pad_token_id=0,
                    eos_token_id=ends or None,
                )
            new = out[:, shape["prompt"] :]
            ended = torch.isin(new, torch.tensor(ends or [NO_EOS]))
            first = torch.where(ended.any(1), ended.int().argmax(1) + 1, new.shape[1])
            gate.tokens += int(first.sum())


def run_trl_steps(shape, tokens, config, actor, gate: Gate) -> None:
    import copy
    import tempfile

    import torch
    import transformers
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    class Backbone(torch.nn.Module):
        def forward(self, input_ids, **_):
            hidden = torch.zeros(*input_ids.shape, 1)
            return argparse.Namespace(hidden_states=[hidden])

    class Reward(torch.nn.Module):
        """What TRL asks of a reward model, with a constant in it."""

        base_model_prefix = "backbone"

        def __init__(self) -> None:
            super().__init__()
            self.backbone = Backbone()

        def score(self, hidden):
            gate.wait()
            gate.tokens = shape["batch"] * shape["new"]
            return torch.full_like(hidden, 0.5)

    vocabulary = {str(i): i for i in range(shape["vocab"])}
    import tokenizers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="0"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="0", eos_token="1", padding_side="left"
    )
    data = Dataset.from_dict({"input_ids": [row.tolist() for row in tokens] * 2000})
    arguments = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=rows_at_once(shape),
        gradient_accumulation_steps=shape["parts"],
        num_mini_batches=1,
        num_ppo_epochs=1,
        response_length=shape["new"],
        temperature=1.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        num_sample_generations=0,
        report_to=[],
        total_episodes=10**6,
    )
    PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=actor,
        ref_model=copy.deepcopy(actor),
        reward_model=Reward(),
        value_model=transformers.Qwen2ForSequenceClassification(config),
        train_dataset=data,
        eval_dataset=data.select(range(shape["batch"])),
    ).train()


RUNNERS = {"ours": run_ours, "tunix": run_tunix, "trl": run_trl}


def main() -> None:
    name, config, work, parts = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is not an answer
    RUNNERS[name](SHAPES[config] | {"parts": int(parts)}, work, Gate(answers))


if __name__ == "__main__":
    main()
