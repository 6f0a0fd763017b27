"""`stepcoder evaluate RUN`: samples of a run's model, judged and added up.

--out DIR gets results.md and results.json, what they add up to; results.jsonl, one row per
sample, as `stepcoder judge` writes it, for `stepcoder compare`; and samples.jsonl, the
completions alone in HumanEval's convention, so that others can grade them. With --rounds a
sample is the last answer of a chain: see strategies/rounds.py and results/refinement.py.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.devices import joining
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.heads.asking import Critic, read_critic
from stepcoder_jax.records import Problem, Program, Report, Task, Told
from stepcoder_jax.results import outcomes, refinement
from stepcoder_jax.results.chains import Chain, read_rounds
from stepcoder_jax.results.judged import describe_outcome, describe_report, outcome_of
from stepcoder_jax.results.outcomes import Outcome, Scores
from stepcoder_jax.runs import restore
from stepcoder_jax.runs.disk import preflight
from stepcoder_jax.runs.disk.run_folder import RunFolder, versions
from stepcoder_jax.runs.generate import (
    Coder,
    Player,
    hear_others,
    judge_stream,
    refine_all,
    sample_all_by_critic,
)
from stepcoder_jax.runs.greedy import whole_tasks
from stepcoder_jax.sampling.drawing import Truncation
from stepcoder_jax.strategies.critic_sampling import CriticSampling
from stepcoder_jax.strategies.rounds import Refinement

_EXIT_GOOD, _EXIT_INFRA, _EXIT_STOPPED = 0, 2, 130
_WINDOW = 2048  # samples that are held at a time


class Wanted(NamedTuple):
    """The flags of `stepcoder evaluate`."""

    run: str
    split: Split
    step: int | None
    before: bool
    problems: str  # a file; "": those of the split
    samples: int
    temperature: float | None
    top_p: float | None
    k: list[int]
    seed: int
    out: str
    rounds: int = 0  # answers after the first
    variant: str = "direct"  # of strategies.rounds.VARIANTS
    feedback: Told = Told.TEST
    refine_all: bool = False
    critic: str = ""  # folder of a head; "": programs are sampled without one
    asked: restore.Asked = restore.Asked()


class Plan(NamedTuple):
    """How samples are drawn, and which pass@k they are for."""

    samples: int
    truncation: Truncation
    ks: tuple[int, ...]
    seed: int

    def describe(self) -> str:
        temperature, top_p, top_k, min_p = self.truncation
        if temperature == 0:
            return "greedy"
        others = f", top-k {top_k}" * (top_k > 0) + f", min-p {min_p:g}" * (min_p > 0)
        return (
            f"{self.samples} samples each at temperature {temperature:g}, top-p {top_p:g}"
            f"{others}, seed {self.seed}"
        )


class Sampled(NamedTuple):
    """One sample, judged; with rounds the last answer of its chain."""

    outcome: Outcome
    program: Program
    report: Report
    chain: Chain | None = None

    def row(self) -> dict[str, Any]:
        """Its row of results."""
        rounds = (
            [str(link.outcome.verdict) for link in self.chain.links] if self.chain else []
        )
        return (
            self.sample()
            | describe_outcome(self.outcome)
            | {"truncated": self.outcome.truncated}
            | describe_report(self.report)
            | ({"rounds": rounds} if rounds else {})
        )

    def sample(self) -> dict[str, Any]:
        """The problem's id and the program: a mended one is whole, others continue."""
        if self.chain is not None and len(self.chain.links) > 1:
            return {"task_id": self.outcome.task, "solution": self.program.source}
        return {"task_id": self.outcome.task, "completion": completion_of(self.program)}


def make_plan(wanted: Wanted, config: Config) -> Plan:
    """What the flags ask for; ConfigError for what cannot work.

    One sample is greedy unless a temperature is given; several take temperature and top-p
    of the run where they are not given, top-k and min-p in any case.
    """
    own = config.sampling
    if wanted.seed < 0:
        raise ConfigError(f"--seed: expected 0 or more, got {wanted.seed}")
    if wanted.samples < 1:
        raise ConfigError(
            f"--samples-per-problem: expected at least 1, got {wanted.samples}"
        )
    greedy = 0.0 if wanted.samples == 1 else own.temperature
    temperature = greedy if wanted.temperature is None else wanted.temperature
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"--temperature: expected 0 or more, got {temperature}")
    top_p = own.top_p if wanted.top_p is None else wanted.top_p
    if not 0 < top_p <= 1:
        raise ConfigError(f"--top-p: expected a share in (0, 1], got {top_p}")
    if temperature == 0 and wanted.samples > 1:
        raise ConfigError(
            f"--temperature: {wanted.samples} greedy samples of a problem would be the "
            "same; give more than 0, or --samples-per-problem 1"
        )
    if temperature == 0 and wanted.top_p is not None:
        raise ConfigError("--top-p: a greedy sample draws nothing; add --temperature")
    ks = outcomes.choose_ks({"each": wanted.samples}, wanted.k)
    drawn = Truncation(temperature, top_p, own.top_k, own.min_p)
    truncation = drawn if temperature else Truncation(0.0)
    return Plan(wanted.samples, truncation, ks, wanted.seed)


def evaluate_run(wanted: Wanted) -> int:
    """`stepcoder evaluate`; returns the exit code: 2 while samples were not judged."""
    joining.join_hosts()
    restore.check_problems(wanted.run, wanted.problems)
    asked = Refinement.of_flags(
        *(wanted.rounds, wanted.variant, wanted.feedback, wanted.refine_all),
        seed=wanted.seed,
    )
    plan = make_plan(wanted, restore.read_config(wanted.run))
    by_critic = None
    if wanted.critic:
        is_greedy = plan.truncation.temperature == 0
        by_critic = CriticSampling.of_flags(plan.samples, wanted.rounds, is_greedy)
        asked = asked._replace(rounds=1)
    check_out(wanted.out)
    place = (wanted.run, wanted.step, wanted.before)
    opened = restore.opened(*place, coverage="none", asked=wanted.asked)
    with opened as (config, coder, actor, label):
        picked = restore.pick(
            wanted.run,
            config,
            wanted.problems,
            wanted.split,
            None,
            coder.tokenizer,
            visible=asked.rounds > 0,
        )
        problems, source = picked.problems, picked.source
        found: list[Sampled] = []
        if asked.rounds:
            require_visible(problems, "--critic" if by_critic else "--rounds")
            coder.require_turns(problems[0])  # before anything is drawn
        total = len(problems) * (1 if by_critic else plan.samples)
        player = Player(coder, actor, total, plan.truncation, plan.seed, label=source)
        if by_critic:
            critic = open_critic(wanted.critic, wanted.run, coder.steps)
            stream = critic_samples(player._replace(critic=critic), problems, by_critic)
        elif asked.rounds:
            asked = hear_others(player, whole_tasks(problems), asked)
            stream = refine_samples(player, problems, plan, asked)
        else:
            stream = sample_all(coder, actor, problems, plan, source)
        with open_rows(wanted.out) as keep:
            try:
                for sampled in stream:
                    found.append(sampled)
                    keep(sampled)
            except KeyboardInterrupt:
                total = len(problems) * plan.samples
                kept = f", in {wanted.out}" if wanted.out else " and not kept"
                print(f"stopped: {len(found)} of {total} samples were judged{kept}")
                return _EXIT_STOPPED
    scores = outcomes.score([each.outcome for each in found], plan.ks, plan.seed)
    about = {
        "run": wanted.run,
        "model": label,
        "problems": source,
        "samples": plan.samples,
        "problems_sha256": own.digest_tests(problems),
        "left_out": picked.left_out,
        "sampling": plan.truncation._asdict(),
        "max_prompt_length": config.prompt.max_prompt_length,
        "max_completion_length": config.sampling.max_completion_length,
        "template": config.prompt.template,
        "seed": plan.seed,
    }
    left_out = len(picked.left_out)
    beside = f" ({left_out} left out: too long prompts)" * (left_out > 0)
    text = (
        f"{wanted.run}, {label}, {len(problems)} problems of {source}{beside}, "
        f"{plan.describe()}\n\n{outcomes.describe(scores)}"
    )
    if asked.rounds:
        told, numbers = tell_rounds(found, plan, wanted, asked)
        text, about = f"{text}\n\n{told}", about | numbers
    print(text)
    write_summary(wanted.out, text, about, scores)
    chains = [each.chain for each in found if each.chain]
    failed = scores.infra or not all(chain.is_judged for chain in chains)
    return _EXIT_INFRA if failed else _EXIT_GOOD


def tell_rounds(
    found: Sequence[Sampled], plan: Plan, wanted: Wanted, asked: Refinement
) -> tuple[str, dict[str, Any]]:
    """What chains of rounds add up to, in words and as numbers."""
    chains = [each.chain for each in found if each.chain is not None]
    variants = len(asked.variants)
    refined = refinement.add_up(chains, asked.rounds, plan.ks, plan.seed, variants)
    numbers = {
        "rounds": asked.rounds,
        "variant": wanted.variant,
        "feedback": str(asked.told),
        "refine_all": asked.refine_all,
        "refinement": refinement.as_json(refined),
    }
    if wanted.critic:
        numbers["critic"] = wanted.critic
        said = refinement.describe(refined)
        return f"Critic sampling, by {wanted.critic}:\n\n{said}", numbers
    of = ", of all programs" * asked.refine_all
    how = f"{wanted.variant}, feedback {asked.told}{of}"
    return f"Rounds, {how}:\n\n{refinement.describe(refined)}", numbers


def open_critic(name: str, run: str, steps: Steps) -> Critic:
    """The critic of --critic, over the model that the run began with."""
    path = RunFolder(run).reference
    if not path.is_dir():
        raise ConfigError(
            f"--critic: {run} has no model that it began with (no reference/), which the "
            "head would read; give a run of `stepcoder train`"
        )
    return read_critic(Path(name), path, steps, "--critic")


def require_visible(problems: Sequence[Problem], flag: str) -> None:
    """Say how many problems have nothing to show; ConfigError where none has."""
    blind = sum(not problem.visible_tests for problem in problems)
    if blind == len(problems):
        raise ConfigError(
            f"{flag}: none of the problems has visible tests, so nothing can be read of a "
            f"failure; leave {flag} out, or give visible_tests (data/formats/own.py)"
        )
    if blind and jax.process_index() == 0:
        print(
            f"{blind} of {len(problems)} problems have no visible tests: one answer each",
            file=sys.stderr,
        )


def sample_all(
    coder: Coder, actor: Any, problems: Sequence[Problem], plan: Plan, label: str
) -> Iterator[Sampled]:
    """The judged samples of each problem, problem by problem.

    A few thousand are drawn at a time; what a sample is does not depend on how many.
    """
    each = [task for task in whole_tasks(problems) for _ in range(plan.samples)]
    for first in range(0, len(each), _WINDOW):
        tasks = each[first : first + _WINDOW]
        yield from sample_window(coder, actor, tasks, plan, first, label)


def sample_window(
    coder: Coder, actor: Any, tasks: Sequence[Task], plan: Plan, first: int, label: str
) -> Iterator[Sampled]:
    """A sample of each task, the first of them the `first` of all."""
    batch = coder.encode(tasks, first)
    stream = coder.steps.sample_many(
        actor, batch, plan.truncation, plan.samples, plan.seed, coder.find_stop
    )
    judged = judge_stream(coder, tasks, stream, label)
    for task, completion, (program, report) in zip(
        tasks, judged.completions, judged.wholly(tasks), strict=True
    ):
        outcome = outcome_of(task.problem, report, bool(completion.truncated))
        yield Sampled(outcome, program, report)


def refine_samples(
    player: Player, problems: Sequence[Problem], plan: Plan, asked: Refinement
) -> Iterator[Sampled]:
    """As `sample_all`, each sample with the rounds that follow it."""
    each = [task for task in whole_tasks(problems) for _ in range(plan.samples)]
    for first in range(0, len(each), _WINDOW):
        window = player._replace(first=first)
        for chain in refine_all(window, each[first : first + _WINDOW], asked):
            played = read_rounds(chain)
            last = played.chain.links[-1].outcome
            yield Sampled(last, played.program, played.report, played.chain)


def critic_samples(
    player: Player, problems: Sequence[Problem], asked: CriticSampling
) -> Iterator[Sampled]:
    """As `sample_all`, each sample the last answer of its chain by critic sampling."""
    size = max(1, _WINDOW // asked.samples)
    tasks = whole_tasks(problems)
    for first in range(0, len(tasks), size):
        window = player._replace(first=first)
        for chain in sample_all_by_critic(window, tasks[first : first + size], asked):
            played = read_rounds(chain)
            last = played.chain.links[-1].outcome
            yield Sampled(last, played.program, played.report, played.chain)


def completion_of(program: Program) -> str:
    """What follows the problem's starter code, so that both together are the program.

    The model saw the starter code with one newline at its end, whatever it has there.
    """
    text = program.source.encode()[program.generated_from :].decode()
    starter = program.problem.starter_code
    return text if not starter or starter.endswith("\n") else "\n" + text


def check_out(out: str) -> None:
    """ConfigError unless results can go there without overwriting anything."""
    if out:
        preflight.require_new_folder("--out", out)


@contextlib.contextmanager
def open_rows(out: str) -> Iterator[Any]:
    """A function that keeps a judged sample in results.jsonl and samples.jsonl.

    Lines leave our hands once written, so that a stopped evaluation has them. Without
    `out`, and on processes other than the first, nothing is written.
    """
    if not out or jax.process_index():
        yield lambda sampled: None
        return
    folder = Path(out)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            rows, completions = (
                stack.enter_context(_open_new(folder / name))
                for name in ("results.jsonl", "samples.jsonl")
            )
        except OSError as error:
            raise ConfigError(
                f"--out: {out}: cannot be written ({error.strerror})"
            ) from error

        def keep(sampled: Sampled) -> None:
            rows.write(json.dumps(sampled.row()) + "\n")
            completions.write(json.dumps(sampled.sample()) + "\n")

        yield keep


def _open_new(path: Path) -> TextIO:
    return path.open("x", encoding="utf-8", buffering=1)


def write_summary(out: str, text: str, about: dict[str, Any], scores: Scores) -> None:
    """results.md and results.json."""
    if not out or jax.process_index():
        return
    folder = Path(out)
    tree = {**about, "scores": outcomes.as_json(scores), "versions": versions()}
    (folder / "results.md").write_text(text + "\n", encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(tree, indent=2) + "\n")
    print(f"results: {out}")
