"""Tasks to judged programs: the judge works on what has ended while the rest decodes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from stepcoder_jax.config import Config, ConfigError, PromptConfig
from stepcoder_jax.devices.steps import Steps
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback import answers, prompts
from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.sft_rows import Encode, encoder
from stepcoder_jax.feedback.turns import Others
from stepcoder_jax.heads.asking import Coded, Critic
from stepcoder_jax.progress import CountProgress
from stepcoder_jax.pytrees import PromptBatch, Rollout
from stepcoder_jax.records import (
    Attempt,
    Problem,
    Program,
    Report,
    Task,
    Told,
    Verdict,
)
from stepcoder_jax.runs.disk.interrupt import breakable_share
from stepcoder_jax.runs.hosts.channel import turn
from stepcoder_jax.runs.shares import dealing, known
from stepcoder_jax.sampling import slots
from stepcoder_jax.sampling.drawing import Truncation
from stepcoder_jax.sampling.slots import Completion, FindStop
from stepcoder_jax.strategies.critic_sampling import CriticSampling, sample_by_critic
from stepcoder_jax.strategies.driving import Ask, Value, Valued, drive
from stepcoder_jax.strategies.rounds import Refinement, Round, fail_first, refine

_MOST_NAMED = 20


class Coder(NamedTuple):
    """All that turns tasks into judged programs, but for the parameters."""

    steps: Steps
    pool: Pool
    tokenizer: Any
    table: list[bytes]  # prompts.token_bytes(tokenizer)
    find_stop: FindStop
    prompt: PromptConfig

    @classmethod
    def make(cls, config: Config, steps: Steps, pool: Pool, tokenizer: Any) -> Coder:
        table = prompts.token_bytes(tokenizer)
        find_stop = prompts.stop_finder(tokenizer, config.prompt.fence)
        return cls(steps, pool, tokenizer, table, find_stop, config.prompt)

    def read(self, task: Task, completion: Completion) -> Answer:
        """What a completion of the task says."""
        ids = completion.tokens.tolist()
        answer = answers.read(task, ids, self.table, self.prompt.fence)
        return answer._replace(truncated=bool(completion.truncated))

    def encoder(self) -> Encode:
        """A task and the code behind its head -> what the model would have written."""
        return encoder(self.tokenizer, self.steps.config, self.table)

    def require_short(self, tasks: Sequence[Task]) -> list[int]:
        """The rows of tasks whose prompts fit; the others are named on standard error."""
        most = self.prompt.max_prompt_length
        sizes = [
            len(prompts.prompt_ids(task, self.tokenizer, self.prompt)) for task in tasks
        ]
        long = [
            f"{task.problem.id} ({size} after {len(task.before)} attempts)"
            for task, size in zip(tasks, sizes)
            if size > most
        ]
        if long and jax.process_index() == 0:
            more = f" and {len(long) - _MOST_NAMED} more" * (len(long) > _MOST_NAMED)
            print(
                f"not asked: {len(long)} prompts have more than {most} tokens "
                f"(prompt.max_prompt_length): {', '.join(long[:_MOST_NAMED])}{more}",
                file=sys.stderr,
            )
        return [row for row, size in enumerate(sizes) if size <= most]

    def require_turns(self, problem: Problem) -> None:
        """Refuse a chat template that does not take several turns; ConfigError says so."""
        attempt = Attempt("pass\n", Verdict.WRONG, 0, "The program fails a test.")
        task = Task(problem, 0, stage=0, head="", before=(attempt,))
        prompts.render(task, self.tokenizer, self.prompt)

    def encode(self, tasks: Sequence[Task], first: int) -> PromptBatch:
        """The prompts of tasks whose global rollout indices begin at `first`."""
        index = np.arange(first, first + len(tasks))
        return prompts.encode(tasks, self.tokenizer, self.prompt, index)


class Judged(NamedTuple):
    """Rollouts, and what the judge said of this host's; in the order of their tasks."""

    completions: list[Completion]  # of all rows
    rows: list[int]  # this host's, which the lists below are of; alone all of them
    answers: list[Answer]
    programs: list[Program]  # of an answer without code `answers.stand_in`
    reports: list[Report]
    seconds_sampled: float  # from the start to the last token
    seconds_waited: float  # from the last token to the last verdict

    def briefly(self) -> list[Report]:
        """What all hosts know of the report of each row; one gather."""
        return known.briefly(self.rows, self.reports, len(self.completions))

    def wholly(self, tasks: Sequence[Task]) -> list[tuple[Program, Report]]:
        """Program and report of each row, on every host."""
        judged = list(zip(self.programs, self.reports, strict=True))
        return known.wholly(self.rows, judged, [task.problem for task in tasks])


def roll_out(
    coder: Coder, actor: Any, tasks: Sequence[Task], step: int, first: int
) -> tuple[Rollout, Judged]:
    """Completions of tasks of iteration `step`, drawn and judged; row i is task i's.

    `first` is the global index of the first rollout; with (seed, step) it gives the draws.
    `prompts.encode` -> `Steps.sample` -> `answers.read` -> `Pool.stream`, the last three
    at the same time. A first answer ends with its fence; one to a context opens and closes
    some.
    """
    batch = coder.encode(tasks, first=first)
    find_stop = None if tasks[0].before else coder.find_stop
    stream = coder.steps.sample(actor, batch, step, find_stop)
    judged = judge_stream(coder, tasks, stream, label="")
    columns = coder.steps.config.sampling.max_completion_length
    return slots.collect(batch, columns, judged.completions), judged


def judge_stream(
    coder: Coder, tasks: Sequence[Task], stream: Iterator[list[Completion]], label: str
) -> Judged:
    """Judge completions as they end, one for each task; row i of them continues task i.

    The pool takes programs without limit, so that decoding never waits for it. Verdicts
    are counted aloud where there is a `label`. An answer without code is not judged. Of
    several hosts each judges its share (`dealing`), all see what was sampled.
    """
    completions: list[Completion] = []
    rows: list[int] = []  # this host's, as they end
    found: list[Answer] = []
    programs: list[Program] = []
    reports: dict[int, Report] = {}
    asked: list[int] = []  # places of the programs that are run
    started = time.perf_counter()
    last_token = started

    def as_they_end() -> Iterator[Program]:
        nonlocal last_token
        for done in chunks:
            for completion in done:
                completions.append(completion)
                if not dealing.is_ours(len(completions) - 1):
                    continue
                task, place = tasks[completion.row], len(rows)
                rows.append(completion.row)
                found.append(coder.read(task, completion))
                program = found[-1].program
                if program is None:
                    reports[place] = answers.without_code(task)
                    programs.append(answers.stand_in(task, len(completion.tokens)))
                    bar.update()
                else:
                    programs.append(program)
                    asked.append(place)
                    yield program
        last_token = time.perf_counter()
        turn("judge")

    ours = len(dealing.share_of(len(tasks)))
    progress = CountProgress(ours, "program", label, is_quiet=not label)
    with breakable_share(stream) as chunks, progress as bar:
        for place, report in coder.pool.stream(as_they_end(), window=len(tasks)):
            reports[asked[place]] = report
            bar.update()
    ended = time.perf_counter()
    order = sorted(range(len(rows)), key=lambda place: rows[place])
    return Judged(
        completions=sorted(completions, key=lambda completion: completion.row),
        rows=[rows[place] for place in order],
        answers=[found[place] for place in order],
        programs=[programs[place] for place in order],
        reports=[reports[place] for place in order],
        seconds_sampled=last_token - started,
        seconds_waited=ended - last_token,
    )


class Player(NamedTuple):
    """A model and a judge for strategies; what one draws depends on its place alone."""

    coder: Coder
    actor: Any
    total: int  # strategies
    truncation: Truncation
    seed: int
    first: int = 0  # place of the first of those that are moved on together
    label: str = ""  # verdicts are counted aloud where there is one
    group: int = 1  # about so many strategies in a row have the same prompt
    critic: Critic | None = None  # of strategies that value programs

    def ask(self, wanted: Sequence[tuple[int, Ask]]) -> list[Answer | None]:
        """The answer to each task; None where its prompt is too long."""
        short = self.coder.require_short([asked.task for _, asked in wanted])
        answers: dict[int, Answer] = {}
        for is_first in (True, False):
            rows = [row for row in short if is_first != bool(wanted[row][1].task.before)]
            if rows:
                found = self._sample([wanted[row] for row in rows], is_first)
                answers |= dict(zip(rows, found, strict=True))
        return [answers.get(row) for row in range(len(wanted))]

    def _sample(self, wanted: list[tuple[int, Ask]], is_first: bool) -> list[Answer]:
        tasks = [asked.task for _, asked in wanted]
        index = [asked.draw * self.total + self.first + place for place, asked in wanted]
        batch = self.coder.encode(tasks, 0)._replace(index=np.asarray(index, np.int32))
        # a first answer ends with its fence; another one opens and closes some
        find_stop = self.coder.find_stop if is_first else None
        stream = self.coder.steps.sample_many(
            self.actor, batch, self.truncation, self.group, self.seed, find_stop
        )
        found = {
            completion.row: self.coder.read(tasks[completion.row], completion)
            for done in stream
            for completion in done
        }
        return [found[row] for row in range(len(tasks))]

    def value(self, wanted: Sequence[Value]) -> list[Valued]:
        """What the critic makes of programs."""
        assert self.critic is not None
        coded = Coded(self.coder.encoder(), self.coder.table)
        return self.critic.look(self.actor, coded, wanted)

    def run(self, programs: Sequence[Program]) -> list[Report]:
        """The judge's reports."""
        return run_all(self.coder.pool, programs, self.label)


def run_all(pool: Pool, programs: Sequence[Program], label: str) -> list[Report]:
    """The reports of programs, counted aloud where there is a `label`.

    Each host runs its share, and all have all of them.
    """
    rows, reports = dealing.share_of(len(programs)), dict[int, Report]()
    ours = [programs[row] for row in rows]
    progress = CountProgress(len(ours), "program", label, is_quiet=not label)
    with breakable_share(), progress as bar:
        for place, report in pool.stream(ours):
            reports[place] = report
            bar.update()
    judged = [(program, reports[place]) for place, program in enumerate(ours)]
    problems = [program.problem for program in programs]
    return [report for _, report in known.wholly(rows, judged, problems)]


def refine_all(
    player: Player, tasks: Sequence[Task], asked: Refinement
) -> list[list[Round]]:
    """The rounds of each task."""
    limit = player.coder.pool.settings.cpu_seconds
    chains = [refine(task, asked, limit) for task in tasks]
    return drive(chains, player.ask, player.run)


def sample_all_by_critic(
    player: Player, tasks: Sequence[Task], asked: CriticSampling
) -> list[list[Round]]:
    """The chains of each task, `asked.samples` in a row."""
    limit = player.coder.pool.settings.cpu_seconds
    each = [sample_by_critic(task, asked, limit) for task in tasks]
    found = drive(each, player.ask, player.run, player.value)
    return [chain for chains in found for chain in chains]


def hear_others(player: Player, tasks: Sequence[Task], asked: Refinement) -> Refinement:
    """What is asked for, with what is told of other problems where that is asked for.

    That is what the model would read of a first answer to each of these tasks, drawn apart
    from all others. ConfigError unless two of them fail: none could be told of another.
    """
    if asked.told is not Told.RANDOM:
        return asked
    limit = player.coder.pool.settings.cpu_seconds
    apart = player._replace(first=asked.answers * player.total)
    failures = drive([fail_first(task, limit) for task in tasks], apart.ask, apart.run)
    found = {
        task.problem.id: attempt.feedback
        for task, attempt in zip(tasks, failures, strict=True)
        if attempt is not None
    }
    if len(found) < 2:
        raise ConfigError(
            "--feedback random: expected two problems or more whose first answer fails a "
            f"visible test, got {len(found)} of {len(tasks)}; take another control"
        )
    ids = tuple(sorted(found))
    return asked._replace(others=Others(ids, tuple(found[name] for name in ids)))


def complete_greedily(
    coder: Coder, actor: Any, tasks: Sequence[Task], label: str
) -> Judged:
    """The greedy program of each task, judged."""
    batch = coder.encode(tasks, first=0)
    stream = coder.steps.sample_greedy(actor, batch, coder.find_stop)
    return judge_stream(coder, tasks, stream, label)
