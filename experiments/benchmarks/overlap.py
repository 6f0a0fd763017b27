"""How much of the judging is hidden behind decoding, and what that costs decoding.

Question   Does the judge work while the rest decodes, and who pays for it?
Command    python experiments/benchmarks/overlap.py [--rollouts 64] [--seconds-per-chunk S]
Work       One batch of the sampler of wordings.py (its model, prompts and limits). Its
           completions are not judged; in their place stand programs of known cost, one in
           twenty an endless loop. Decoding is slowed down to --seconds-per-chunk, as with a
           larger model on an accelerator, where it takes at least ten CPU limits; 0 leaves
           it as it is, on the cores that the judge wants too.
Measures   serial   decode everything, then judge everything
           overlap  `generate.judge_stream`: what has ended is judged while the rest decodes
           exposed  from the last token to the last verdict
           The goal: exposed at most 10 % of serial judging plus one CPU limit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

import jax
from kit import machine, timed

from stepcoder_jax.config import Config, PromptConfig
from stepcoder_jax.devices import sharding
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.execution import Pool, PoolSettings, open_pool
from stepcoder_jax.records import Mode, Problem, Task, TestCase
from stepcoder_jax.runs import generate
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.greedy import whole_tasks
from stepcoder_jax.sampling.slots import Completion

CPU_SECONDS = 1.0
ENDLESS = "while True:\n    pass\n"
# some hundredths of a second of work
HARD = "n = int(input())\nt = 0\nfor i in range(300000):\n    t += i % 7\nprint(n * 2)\n"
EVERY = 20  # one program in this many never ends


def stand_in(number: int) -> Task:
    """A task whose head is a whole program, so that an empty completion leaves it so."""
    source = ENDLESS if number % EVERY == EVERY - 1 else HARD
    problem = Problem(
        id=str(number),
        statement="Double.",
        starter_code="",
        solution=HARD,
        entry_point=None,
        mode=Mode.STDIN_MAIN,
        tests=(TestCase("3\n", "6\n"),),
        difficulty="",
        cpu_seconds=CPU_SECONDS,
    )
    return Task(problem, number, stage=0, head=source)


def config_of(rollouts: int) -> Config:
    """The model and sampler of wordings.py, its judge's limits."""
    config = Config()
    config.model.checkpoint = "builtin"
    config.prompt = PromptConfig(template="plain", max_prompt_length=224)
    config.sampling.problems_per_step = rollouts
    config.sampling.rollouts_per_problem = 1
    config.sampling.max_completion_length = 160
    config.sampling.temperature, config.sampling.top_p = 1.0, 0.99
    config.sampling.chunk = 16
    return config


class Stand:
    """A coder whose programs are replaced by programs of known cost."""

    def __init__(self, config: Config, pool: Pool, pause: float) -> None:
        self.data, self.pause = config.data, pause
        tokenizer = sources.load_tokenizer(config.model)
        config.model = sources.resolve_model(config.model, len(tokenizer))
        mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
        steps = Steps(config, mesh, (tokenizer.eos_token_id,))
        self.coder = generate.Coder.make(config, steps, pool, tokenizer)
        self.actor = steps.place_params(sources.load_actor(config.model, seed=0))

    def stream(self, step: int) -> Iterator[list[Completion]]:
        """Chunks of completions, each emptied of its code and held back by the pause."""
        size = self.coder.steps.config.batch_size
        tasks = whole_tasks(sources.load_problems(self.data, "train")[:size])
        batch = self.coder.encode(tasks, first=0)
        chunks = self.coder.steps.sample(self.actor, batch, step, self.coder.find_stop)
        for done in chunks:
            time.sleep(self.pause)
            yield [x._replace(tokens=x.tokens[:0]) for x in done]


def measure(stand: Stand, step: int) -> dict[str, float]:
    """Seconds of one batch, one after the other and overlapped."""
    tasks = [stand_in(i) for i in range(stand.coder.steps.config.batch_size)]
    decoding: list[float] = []
    with timed(decoding):
        chunks = list(stand.stream(step))
    serial = generate.judge_stream(stand.coder, tasks, iter(chunks), label="")
    both = generate.judge_stream(stand.coder, tasks, stand.stream(step), label="")
    verdicts = [[str(report.verdict) for report in x.reports] for x in (serial, both)]
    assert verdicts[0] == verdicts[1], "the order of work changed a verdict"
    return {
        "decoding alone": decoding[0],
        "judging alone": serial.seconds_sampled + serial.seconds_waited,
        "decoding beside the judge": both.seconds_sampled,
        "exposed": both.seconds_waited,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=64)
    parser.add_argument("--seconds-per-chunk", type=float, default=1.5)
    parser.add_argument("--runs", type=int, default=3)
    flags = parser.parse_args()
    config = config_of(flags.rollouts)
    settings = PoolSettings(cpu_seconds=CPU_SECONDS, coverage="statement", cache_size=0)
    print(machine())
    with open_pool(settings) as pool:
        stand = Stand(config, pool, flags.seconds_per_chunk)
        measure(stand, 0)  # compiles
        seen = [measure(stand, step) for step in range(1, flags.runs + 1)]
    medians = {name: statistics.median(x[name] for x in seen) for name in seen[0]}
    for name, value in medians.items():
        print(f"  {name:26s} {value:7.2f} s")
    allowed = 0.1 * medians["judging alone"] + CPU_SECONDS
    print(f"  allowed to be exposed      {allowed:7.2f} s")
    slower = medians["decoding beside the judge"] / medians["decoding alone"] - 1
    print(f"  decoding is slower by      {slower:7.1%}")


if __name__ == "__main__":
    main()
