"""Supervised rows, packed and bucketed: how much is padding, and what a token costs.

python experiments/benchmarks/sft_packing.py [--widths 256 1024] [--hidden H] [...]

The texts are the canonical solutions of the generated benchmark's sft split. Prints a
Markdown row per way to fill batches: the share of places that are padding over an epoch,
the median time of updates per token that is no padding, and the median of its ratio to the
bucketed way in the same round (below 1: packing is faster). The ways take turns, with about
as many tokens per update, so that a busy machine slows all alike. Expected: packing leaves
under 2 % of padding. It wins where attention is a small part of the work (wide models, rows
not much wider than a text); what a mask hides is computed all the same, so a narrow model
loses on wide rows.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import jax
from kit import print_head, print_row, timed

from stepcoder_jax.config import Config, ModelConfig
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.feedback import sft_rows
from stepcoder_jax.feedback.sft_rows import Example, Group, make_batch
from stepcoder_jax.learning import sft
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.models import policy
from stepcoder_jax.runs.disk import sources

BUCKETED = 0  # the packing of rows with one example each


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="examples per update")
    parser.add_argument("--updates", type=int, default=6, help="of each way in a round")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def make_config(args: argparse.Namespace) -> Config:
    config = Config()
    config.model = ModelConfig(
        vocab_size=640,
        hidden_size=args.hidden,
        intermediate_size=8 * args.hidden // 3,
        num_layers=args.layers,
        head_dim=args.hidden // 4,
    )
    config.prompt.template = "plain"
    return config


class Way:
    """One way to fill batches: its groups, its program, its model."""

    def __init__(self, base: Config, examples: list[Example], packing: int, batch: int):
        mean = sum(len(example.ids) for example in examples) / len(examples)
        self.config = Config(model=base.model, prompt=base.prompt)
        self.config.sft.packing = packing
        rows = round(batch * mean / packing) if packing else batch
        self.size = self.config.sft.batch_size = max(1, rows)
        self.groups = sft_rows.epoch(examples, self.config.sft, seed=0, index=0)
        optimizer = sft.make_optimizer(self.config.sft, 1000)
        self.step = jax.jit(partial(sft.step, self.config, ONE_DEVICE, optimizer))
        self.params = policy.init_params(base.model, jax.random.key(0))
        self.state = optimizer.init(self.params)

    @property
    def padding(self) -> float:
        places = sum(self.size * group.width for group in self.groups)
        return 1 - sum(group.tokens for group in self.groups) / places

    def update(self, group: Group) -> None:
        batch = make_batch(group, self.size)
        self.params, self.state, value = self.step(self.params, self.state, batch)
        value.block_until_ready()

    def compile(self) -> None:
        for width in {group.width for group in self.groups}:
            self.update(next(group for group in self.groups if group.width == width))

    def seconds_per_token(self, first: int, count: int) -> float:
        groups = [self.groups[(first + i) % len(self.groups)] for i in range(count)]
        seconds: list[float] = []
        with timed(seconds):
            for group in groups:
                self.update(group)
        return seconds[0] / sum(group.tokens for group in groups)


def main() -> None:
    args = options()
    config = make_config(args)
    tokenizer: Any = sources.load_tokenizer(ModelConfig(tokenizer="builtin"))
    examples, _ = sft_rows.canonical(benchmark.load("sft"), tokenizer, config)
    lengths = [len(example.ids) for example in examples]
    print(
        f"{len(examples)} examples of {min(lengths)} to {max(lengths)} tokens, "
        f"median {statistics.median(lengths):g}; {jax.devices()[0].device_kind}\n"
    )
    ways = {
        packing: Way(config, examples, packing, args.batch)
        for packing in (BUCKETED, *args.widths)
    }
    for way in ways.values():
        way.compile()
    times: dict[int, list[float]] = {packing: [] for packing in ways}
    for turn in range(args.rounds):
        for packing, way in ways.items():
            first = turn * args.updates
            times[packing].append(way.seconds_per_token(first, args.updates))
    print_head("rows", "padding", "microseconds per token", "ratio to bucketed")
    for packing, way in ways.items():
        name = f"packed to {packing}" if packing else f"bucketed by {sft_rows.BUCKET}"
        ratio = statistics.median(
            mine / base for mine, base in zip(times[packing], times[BUCKETED])
        )
        cost = f"{1e6 * statistics.median(times[packing]):.1f}"
        print_row(name, f"{100 * way.padding:.1f} %", cost, f"{ratio:.2f}")


if __name__ == "__main__":
    main()
