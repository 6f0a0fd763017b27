"""Decoding against the bandwidth roofline, and the update's share of peak arithmetic.

Question   How much of one accelerator do sampling and the PPO update use?
Command    python experiments/benchmarks/accelerator_speed.py [--transformers]
           --transformers times `generate` of transformers on the same card, in a process
           of its own (PyTorch with CUDA). Without it jax, flax, optax, numpy will do.
           --shape tiny runs the same code on a CPU, to see that it works.
Work       DeepSeek-Coder-1.3B's shape, random weights, bfloat16 activations, float32
           masters.
           decode  --rows completions of --new tokens behind prompts of --prompt tokens;
                   seconds per token are those of a long run less those of a short one
           update  actor and a critic of its own, --update-rows rows of 2,048 tokens
Measures   roofline  bytes that a token must read (bfloat16 weights but the embedding, and
                     the keys and values of its rows half-way) over the card's bandwidth.
                     goal: 60 %
           MFU       6 x weights x tokens for each of actor and critic, and 12 x layers x
                     hidden x length x tokens for attention (halved, as it is causal), over
                     the card's peak in bfloat16. goal: 45 %
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

import jax
import numpy as np
from kit import timed

from stepcoder_jax import config as c
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.pytrees import Feedback, PromptBatch, Rollout

SHAPES = {
    "deepseek-1.3b": {"hidden_size": 2048, "intermediate_size": 5504, "num_layers": 24}
    | {"num_heads": 16, "num_kv_heads": 16, "head_dim": 128, "vocab_size": 32256},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_layers": 2}
    | {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "vocab_size": 512},
}
# by what device_kind holds: bytes and bfloat16 operations a second, as the makers say
CARDS = {
    "H200": (4.8e12, 989e12),
    "H100": (3.35e12, 989e12),
    "A100": (2.0e12, 312e12),
    "TPU v5p": (2.77e12, 459e12),
    "TPU v5": (0.82e12, 197e12),
    "cpu": (2e10, 1e11),  # so that --shape tiny runs
}
GENERATE = """
import sys, time, torch, transformers
rows, prompt, new, *sizes = map(int, sys.argv[1:])
names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
config = transformers.LlamaConfig(**dict(zip(names, sizes)), vocab_size=sizes[4])
model = transformers.LlamaForCausalLM(config).to(torch.bfloat16).cuda()
tokens = torch.randint(2, sizes[4], (rows, prompt), device="cuda")
def run(count):
    torch.cuda.synchronize(); start = time.perf_counter()
    limits = {"min_new_tokens": count, "max_new_tokens": count}
    model.generate(tokens, **limits, do_sample=True, top_k=0)
    torch.cuda.synchronize(); return time.perf_counter() - start
run(8)
gain = min(run(new) - run(new // 8) for _ in range(3))
print(gain / (new - new // 8))
"""


def make_config(flags: argparse.Namespace, rows: int, prompt: int, new: int) -> c.Config:
    is_gpu = jax.default_backend() == "gpu"
    shape = SHAPES[flags.shape]
    config = c.Config(
        model=c.ModelConfig(
            **shape,
            max_positions=prompt + new,
            tie_embeddings=False,
            dtype="bfloat16",
            attention="cudnn" if is_gpu else "xla",
            remat=flags.remat,
        ),
        prompt=c.PromptConfig(max_prompt_length=prompt),
        sampling=c.SamplingConfig(rows, 1, new, temperature=1.0, top_p=1.0, chunk=32),
    )
    config.ppo.num_micro_batches = flags.micro_batches if rows == flags.update_rows else 1
    config.ppo.actor.name = config.ppo.critic.name = flags.optimizer
    config.validate()
    return config


def count_weights(shape: dict[str, int]) -> int:
    """Weights that take part in every token's arithmetic: all but the embedding."""
    heads, kv = (shape[n] * shape["head_dim"] for n in ("num_heads", "num_kv_heads"))
    layer = shape["hidden_size"] * (2 * heads + 2 * kv + 3 * shape["intermediate_size"])
    return shape["num_layers"] * layer + shape["hidden_size"] * shape["vocab_size"]


def card() -> tuple[str, float, float]:
    kind = jax.devices()[0].device_kind
    for name, (bandwidth, peak) in CARDS.items():
        if name.lower() in kind.lower():
            return kind, bandwidth, peak
    raise SystemExit(f"device {kind!r}: expected one of {sorted(CARDS)}; add its figures")


def prompts_of(rows: int, prompt: int, vocabulary: int) -> PromptBatch:
    tokens = np.random.default_rng(0).integers(2, vocabulary, (rows, prompt))
    lengths = np.full(rows, prompt, np.int32)
    return PromptBatch(tokens.astype(np.int32), lengths, np.arange(rows, dtype=np.int32))


def seconds_per_token(flags: argparse.Namespace) -> float:
    """Of all rows together, sampling only: prompts and start-up are in both runs."""
    batch = prompts_of(flags.rows, flags.prompt, SHAPES[flags.shape]["vocab_size"])
    found = {}
    for new in (flags.new // 8, flags.new):
        config = make_config(flags, flags.rows, flags.prompt, new)
        mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
        steps = Steps(config, mesh, eos_ids=(-1,))
        actor = steps.init_params(seed=0)
        seconds: list[float] = []
        for step in range(flags.runs + 1):
            with timed(seconds):
                for _ in steps.sample(actor, batch, step, None):
                    pass
        found[new] = statistics.median(seconds[1:])
        del actor, steps
    return (found[flags.new] - found[flags.new // 8]) / (flags.new - flags.new // 8)


def show_decoding(flags: argparse.Namespace, bandwidth: float) -> None:
    shape = SHAPES[flags.shape]
    seconds = seconds_per_token(flags)
    length = flags.prompt + flags.new / 2
    cache = shape["num_layers"] * shape["num_kv_heads"] * shape["head_dim"] * 2 * length
    read = 2 * (count_weights(shape) + flags.rows * cache)
    print(
        f"decode: {flags.rows} rows, {1000 * seconds:.2f} ms a token, "
        f"{flags.rows / seconds:.0f} tokens/s; {read / 1e9:.2f} GB a token, at best "
        f"{1000 * read / bandwidth:.2f} ms: {read / bandwidth / seconds:.0%} of it"
    )
    if flags.transformers:
        sizes = [shape[n] for n in ("hidden_size", "intermediate_size", "num_layers")]
        sizes += [shape["num_heads"], shape["vocab_size"]]
        words = map(str, [flags.rows, flags.prompt, flags.new, *sizes])
        told = subprocess.check_output([sys.executable, "-c", GENERATE, *words], text=True)
        theirs = float(told.split()[-1])
        print(f"  transformers: {1000 * theirs:.2f} ms a token, {theirs / seconds:.2f} x")


def show_update(flags: argparse.Namespace, peak: float) -> None:
    shape, rows, length = SHAPES[flags.shape], flags.update_rows, flags.length
    prompt = length // 4
    config = make_config(flags, rows, prompt, length - prompt)
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    steps = Steps(config, mesh, eos_ids=(-1,))
    state = steps.init_state(steps.init_params(seed=0))
    reference = steps.place_reference(state.actor)
    batch = prompts_of(rows, length, shape["vocab_size"])
    ones = np.ones((rows, length - prompt), bool)
    zeros = np.zeros(ones.shape, np.float32)
    start = np.full(rows, prompt, np.int32)
    whole = np.full(rows, length, np.int32)
    rollout = Rollout(batch.tokens, start, whole, ones, zeros, zeros + 1, whole < 0)
    rewards = zeros.copy()
    rewards[:, -1] = 1.0
    feedback = Feedback(rewards, ones, np.ones(rows, bool))
    seconds: list[float] = []
    for _ in range(flags.runs + 1):
        experience, state, _ = steps.make_experience(state, reference, rollout, feedback)
        jax.block_until_ready(experience)
        with timed(seconds):
            state, _ = steps.update(state, experience)
            jax.block_until_ready(state)
    took = statistics.median(seconds[1:])
    tokens = rows * length
    heads = shape["num_heads"] * shape["head_dim"]
    attention = 12 * shape["num_layers"] * heads * length / 2
    work = 2 * tokens * (6 * count_weights(shape) + attention)
    print(
        f"update: {rows} rows of {length} tokens, {took:.3f} s, {tokens / took:.0f} "
        f"tokens/s; {work / 1e12:.2f} TFLOP: MFU {work / peak / took:.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="deepseek-1.3b")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--update-rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--optimizer", default="adamw8bit")
    parser.add_argument("--remat", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--transformers", action="store_true")
    flags = parser.parse_args()
    kind, bandwidth, peak = card()
    print(f"{kind}, {bandwidth / 1e12:.2f} TB/s, {peak / 1e12:.0f} TFLOPS; {flags.shape}")
    show_decoding(flags, bandwidth)
    show_update(flags, peak)


if __name__ == "__main__":
    main()
