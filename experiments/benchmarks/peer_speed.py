"""Sampling and whole PPO steps beside google-tunix 0.1.7 and trl 1.12, in one run.

Question   How many tokens a second, and how long a PPO step, at equal work?
Command    python experiments/benchmarks/peer_speed.py --tunix PYTHON --trl PYTHON
           with PYTHON the interpreter of an environment that has google-tunix==0.1.7, or
           trl==1.12.0 and torch==2.13.0; a peer without one is left out
Work       Random weights of a Qwen2 shape, float32, temperature 1, no truncation.
           A  4 layers, hidden 128, vocabulary 512, 16 prompts of 64 tokens, 64 new ones
           B  6 layers, hidden 384, vocabulary 4096, 8 prompts of 128 tokens, 256 new ones
           fixed      one batch, every completion as long as may be
           geometric  8 batches; each token ends its completion with probability 1/32, so
                      that lengths differ (mean 32, cut at the limit)
           step       sampling at fixed lengths, scoring by actor, reference and critic,
                      and one update of actor and of a critic of its own, reward constant;
                      every program once with its batch in one part and once in four, which
                      changes no number: the faster one of each is compared
Measures   Seconds between two starts of the same work, medians of --runs, the programs
           taking turns, so that all see the same machine: a program is stopped (SIGSTOP)
           while it is not its turn, since one that answers when its completions are drawn
           goes on with its update then (tunix does, for 6 CPU seconds of B's 30), and
           that belongs to its own next turn. What is compiled is compiled in two rounds
           before. A ratio is the median of the rounds' own. The bound is the time to read
           every weight once per token, at the bandwidth that a sum over as many bytes has
           here.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from kit import machine, spread, timed
from peer_programs import RUNNERS, SHAPES

WARM_UP = 2  # rounds
PARTS = {"fixed": (1,), "geometric": (1,), "step": (1, 4)}


class Contestant:
    """A program of its own that works when told to."""

    def __init__(self, name: str, python: str, config: str, work: str, parts: int) -> None:
        program = Path(__file__).with_name("peer_programs.py")
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        if name == "ours":
            environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        self.name, self.parts = name, parts
        self.answers: list[dict] = []
        self.process = subprocess.Popen(
            [python, str(program), name, config, work, str(parts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if name != "ours" else None,
            text=True,
            env=environment,
        )
        self.answer()  # it has started
        self.process.send_signal(signal.SIGSTOP)

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            said = self.process.stderr.read()[-2000:] if self.process.stderr else ""
            raise SystemExit(f"{self.name} ended early:\n{said}")
        return json.loads(line)

    def run(self) -> None:
        """One turn: the others are stopped, so that none works in another's time."""
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.answers.append(self.answer())
        self.process.send_signal(signal.SIGSTOP)

    @property
    def seconds(self) -> list[float]:
        """Of each round after the first ones."""
        return [answer["seconds"] for answer in self.answers[WARM_UP:]]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def bandwidth(count: int) -> float:
    """Bytes per second of a sum over as many floats as a model has."""
    import jax
    import jax.numpy as jnp

    array, total = jnp.ones((count // 1024, 1024)), jax.jit(jnp.sum)
    total(array).block_until_ready()
    seconds: list[float] = []
    for _ in range(9):
        with timed(seconds):
            total(array).block_until_ready()
    return array.nbytes / statistics.median(seconds)


def weights_read(shape: dict) -> int:
    """Weights that every token needs, the embedding's other rows left out."""
    heads, kv = shape["heads"] * shape["size"], shape["kv"] * shape["size"]
    layer = shape["hidden"] * (2 * heads + 2 * kv + 3 * shape["mlp"])
    return shape["layers"] * layer + shape["hidden"] * shape["vocab"]


def rate(contestant: Contestant) -> float:
    """Tokens a second, the median over rounds."""
    return statistics.median(
        answer["tokens"] / answer["seconds"] for answer in contestant.answers[WARM_UP:]
    )


def fastest(contestants: list[Contestant], name: str) -> Contestant:
    """The way of cutting its batch with which a program is fastest."""
    own = [contestant for contestant in contestants if contestant.name == name]
    return min(own, key=lambda contestant: statistics.median(contestant.seconds))


def print_rows(contestants: list[Contestant]) -> None:
    """Every contestant, and each peer's fastest way against our fastest."""
    for contestant in contestants:
        seconds = contestant.seconds
        middle, low, high = (f(seconds) for f in (statistics.median, min, max))
        print(
            f"  {contestant.name:6s} parts {contestant.parts}  "
            f"{middle:7.3f} s ({low:.3f} to {high:.3f})"
            f"  {rate(contestant):8.0f} tokens/s"
        )
    ours = fastest(contestants, "ours")
    for name in dict.fromkeys(contestant.name for contestant in contestants):
        peer = fastest(contestants, name)
        if peer is ours:
            continue
        ratios = [own / other for own, other in zip(ours.seconds, peer.seconds)]
        print(
            f"  ours / {name}: time {spread(ratios, min(ratios), max(ratios))}, "
            f"tokens a second {rate(ours) / rate(peer):.2f}"
        )


def print_bound(shape: dict, ours: Contestant) -> None:
    """How near our decoding comes to reading the weights once per token."""
    count = weights_read(shape)
    speed = bandwidth(count)
    bound = shape["batch"] * speed / (4 * count)
    print(
        f"  bound: {count / 1e6:.1f} M weights at {speed / 1e9:.1f} GB/s are "
        f"{bound:.0f} tokens/s; ours reaches {rate(ours) / bound:.0%}"
    )


def compare(config: str, work: str, pythons: dict[str, str], runs: int) -> None:
    """Print one table."""
    contestants = [
        Contestant(name, python, config, work, parts)
        for parts in PARTS[work]
        for name, python in pythons.items()
    ]
    for _ in range(WARM_UP + runs):
        for contestant in contestants:
            contestant.run()
    for contestant in contestants:
        contestant.close()
    print(f"\n{config}, {work}: medians of {runs}", flush=True)
    print_rows(contestants)
    if work == "fixed":
        print_bound(SHAPES[config], contestants[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tunix", metavar="PYTHON", help="with google-tunix==0.1.7")
    parser.add_argument("--trl", metavar="PYTHON", help="with trl==1.12.0, torch==2.13.0")
    parser.add_argument("--config", choices=SHAPES, action="append")
    parser.add_argument("--work", action="append", choices=PARTS)
    parser.add_argument("--runs", type=int, default=5)
    flags = parser.parse_args()
    pythons = {"ours": sys.executable, "tunix": flags.tunix, "trl": flags.trl}
    present = {name: pythons[name] for name in RUNNERS if pythons[name]}
    print(machine(), flush=True)
    for config in flags.config or list(SHAPES):
        for work in flags.work or list(PARTS):
            compare(config, work, present, flags.runs)


if __name__ == "__main__":
    main()
