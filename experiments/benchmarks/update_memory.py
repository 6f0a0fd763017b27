"""Memory and time of PPO's gradients against batch and vocabulary, chunked and naive.

python experiments/benchmarks/update_memory.py [--figure FILE.png] [--hidden H] [...]

Each point is a process of its own: `updates.minibatch_gradients` of PPO on a small model,
with log-probabilities and entropy by `vocabulary.score_tokens`, or by log_softmax of whole
logits as before. Prints a Markdown row per point: MiB that the program needs beside its
inputs and outputs (XLA's own figure), the device's peak where it counts
one (GPUs), and the median seconds. Compare the rows of one run. Needs jax, flax and optax
alone; the picture needs matplotlib. Expected: the naive way grows with the vocabulary by
several float32 [B, T, V]; the chunked one is flat until the gradient of the head itself,
float32 [V, H], outweighs the rest of the program.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from kit import print_head, print_row, timed

WAYS = ("naive", "chunked")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--columns", type=int, default=64, help="completion tokens per row")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16])
    parser.add_argument(
        "--vocabularies", type=int, nargs="+", default=[8192, 32768, 131072]
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--lora-rank", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--figure", help="file of the picture")
    parser.add_argument("--point", help=argparse.SUPPRESS)  # one point, as JSON
    return parser.parse_args()


def make_config(args: argparse.Namespace, vocabulary: int) -> Any:
    from stepcoder_jax import config as c

    return c.Config(
        model=c.ModelConfig(
            vocab_size=vocabulary,
            hidden_size=args.hidden,
            intermediate_size=4 * args.hidden,
            num_layers=args.layers,
            head_dim=args.hidden // 4,
            tie_embeddings=False,
            dtype=args.dtype,
            lora_rank=args.lora_rank,
        ),
        ppo=c.PPOConfig(entropy_coef=0.01),
    )


def random_experience(batch: int, columns: int, vocabulary: int) -> Any:
    import jax.numpy as jnp
    import numpy as np

    from stepcoder_jax.pytrees import Experience

    rng = np.random.default_rng(0)
    noise = [jnp.asarray(rng.normal(size=(batch, columns)), jnp.float32) for _ in range(5)]
    return Experience(
        tokens=jnp.asarray(rng.integers(0, vocabulary, (batch, columns + 8)), jnp.int32),
        prompt_length=jnp.full(batch, 8),
        length=jnp.full(batch, columns + 8),
        mask=jnp.ones((batch, columns), bool),
        loss_mask=jnp.asarray(rng.random((batch, columns)) < 0.8),
        **dict(zip(Experience._fields[5:10], noise, strict=True)),
    )


def naive_scores(head: Any, hidden: Any, chosen: Any, scoring: Any) -> Any:
    """What `vocabulary.score_tokens` computes, from whole logits."""
    import jax
    import jax.numpy as jnp

    from stepcoder_jax.learning.vocabulary import TokenScores

    kernel = (head.kernel.T if head.tied else head.kernel).astype(hidden.dtype)
    logits = jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)
    log_pi = jax.nn.log_softmax(logits / scoring.temperature)
    logprobs = jnp.take_along_axis(log_pi, chosen[..., None], axis=-1)[..., 0]
    return TokenScores(logprobs, -jnp.sum(jnp.exp(log_pi) * log_pi, axis=-1))


def measure(args: argparse.Namespace, way: str, batch: int, vocabulary: int) -> dict:
    """One point, in this process."""
    import jax

    from stepcoder_jax.learning import scoring, updates
    from stepcoder_jax.learning.batching import ONE_DEVICE
    from stepcoder_jax.learning.ppo import PPO
    from stepcoder_jax.models import lora, policy

    if way == "naive":
        # refused where the name has gone: both ways would measure the same
        mock.patch.object(scoring, "score_tokens", naive_scores).start()
    config = make_config(args, vocabulary)
    state = updates.init_state(
        PPO, config, policy.init_params(config.model, jax.random.key(0))
    )
    trained, frozen = lora.split(state.actor)
    experience = random_experience(batch, args.columns, vocabulary)

    def gradients(params: Any, frozen: Any, experience: Any) -> Any:
        return updates.minibatch_gradients(
            PPO, config, params, frozen, experience, ONE_DEVICE
        )

    inputs = ((trained, state.critic), frozen, experience)
    program = jax.jit(gradients).lower(*inputs).compile()
    seconds: list[float] = []
    for _ in range(args.repeats + 1):  # the first one warms up
        with timed(seconds):
            jax.block_until_ready(program(*inputs))
    counted = jax.devices()[0].memory_stats() or {}
    return {
        "device": jax.devices()[0].device_kind,
        "temporary": program.memory_analysis().temp_size_in_bytes / 2**20,
        "peak": counted.get("peak_bytes_in_use", 0) / 2**20,
        "seconds": statistics.median(seconds[1:]),
    }


def draw(rows: list[dict], file: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    batches = sorted({row["batch"] for row in rows})
    for shade, batch in enumerate(batches):
        for way, colour in zip(WAYS, ("tab:red", "tab:blue")):
            found = [r for r in rows if (r["way"], r["batch"]) == (way, batch)]
            style = {
                "color": colour,
                "marker": "o",
                "linestyle": ("--", "-", ":", "-.")[shade % 4],
                "label": f"{way}, {batch} rows",
            }
            sizes = [row["vocabulary"] for row in found]
            axes[0].plot(sizes, [row["temporary"] for row in found], **style)
            axes[1].plot(sizes, [row["seconds"] for row in found], **style)
    for axis, label in zip(axes, ("MiB beside inputs and outputs", "seconds")):
        axis.set(xscale="log", yscale="log", xlabel="vocabulary", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle("Gradients of one PPO minibatch")
    figure.savefig(file, dpi=110)


def main() -> None:
    args = options()
    if args.point:
        print(json.dumps(measure(args, **json.loads(args.point))))
        return
    rows = []
    sizes = ("[B, T, V] MiB", "temporary MiB", "peak MiB")
    print_head("way", "rows", "vocabulary", *sizes, "seconds")
    for batch in args.batches:
        for vocabulary in args.vocabularies:
            for way in WAYS:
                point = {"way": way, "batch": batch, "vocabulary": vocabulary}
                command = [sys.executable, *sys.argv, "--point", json.dumps(point)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    said = (done.stderr.strip().splitlines() or ["killed"])[-1]
                    print_row(way, batch, vocabulary, f"failed: {said}")
                    continue
                row = point | json.loads(done.stdout.splitlines()[-1])
                rows.append(row)
                whole = batch * args.columns * vocabulary * 4 / 2**20
                sizes = (f"{x:.0f}" for x in (whole, row["temporary"], row["peak"]))
                print_row(way, batch, vocabulary, *sizes, f"{row['seconds']:.3f}")
    print(
        f"\n{rows[0]['device']}, hidden {args.hidden}, {args.columns} columns, {args.dtype}"
    )
    if args.figure:
        draw(rows, args.figure)
        print(f"wrote {Path(args.figure)}")


if __name__ == "__main__":
    main()
