"""What `stepcoder refine` works with, and its two stages made ready."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.generated import teaching
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.execution import Pool
from stepcoder_jax.records import Problem, Variant
from stepcoder_jax.runs import restore
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.interrupt import Interrupt
from stepcoder_jax.runs.generate import Coder, Player
from stepcoder_jax.runs.greedy import whole_tasks
from stepcoder_jax.runs.refining import asking, drawing
from stepcoder_jax.runs.refining.asking import Context, Teacher
from stepcoder_jax.runs.refining.drawing import Job
from stepcoder_jax.runs.refining.folder import Folder
from stepcoder_jax.sampling.drawing import Truncation
from stepcoder_jax.strategies.mending import Fate

RULE = "rule"  # as a teacher: the generator of the problems


class Wanted(NamedTuple):
    """What is asked for."""

    run: str
    split: Split
    step: int | None
    before: bool
    problems: tuple[str, ...]  # files
    wrong: tuple[str, ...]  # files of results; none: the run draws
    samples: int
    temperature: float | None  # None: the run's own
    top_p: float | None
    teacher: str  # a run or a model folder, or RULE; "": the run itself
    variants: tuple[Variant, ...]
    answers: int
    teacher_temperature: float
    seed: int
    asked: restore.Asked


class Model(NamedTuple):
    """A model that writes."""

    coder: Coder
    actor: Any
    label: str

    @property
    def config(self) -> Config:
        return self.coder.steps.config


class Work:
    """The problems of each file, the pool, and models once they are needed."""

    def __init__(
        self, wanted: Wanted, by_file: dict[str, list[Problem]], folder: Folder, pool: Pool
    ) -> None:
        self.wanted, self.folder, self.pool = wanted, folder, pool
        self.problems = {x.id: x for found in by_file.values() for x in found}
        self.settings = pool.settings

    @functools.cached_property
    def student(self) -> Model:
        return self._restore(self.wanted.run, self.wanted.step, self.wanted.before)

    @functools.cached_property
    def teacher(self) -> Model:
        name = self.wanted.teacher
        return self._restore(name, None, False) if name else self.student

    def _restore(self, name: str, step: int | None, before: bool) -> Model:
        found = restore.restore(name, step, before, self.wanted.asked)
        coder = Coder.make(found.config, found.steps, self.pool, found.tokenizer)
        return Model(coder, found.actor, f"{name}, {found.label}")

    def require_turns(self, model: Model) -> None:
        """ConfigError where the model's chat template refuses the turns of a context."""
        model.coder.require_turns(next(iter(self.problems.values())))


def load_problems(wanted: Wanted, config: Config) -> dict[str, list[Problem]]:
    """The problems of each file that a context can be made of; the others are counted.

    ConfigError where no problem has visible tests, for an id that two files have, and for
    problems that a rule is to teach and cannot.
    """
    by_file: dict[str, list[Problem]] = {}
    owner: dict[str, str] = {}
    for file in wanted.problems:
        found = restore.load_file(config, file, wanted.split, wanted.asked.strict)
        for problem in found:
            if owner.setdefault(problem.id, file) != file:
                raise ConfigError(
                    f"--problems: {file} and {owner[problem.id]} both have a problem "
                    f"{problem.id!r}; give one of them"
                )
        by_file[file] = [problem for problem in found if problem.visible_tests]
        if wanted.teacher == RULE:
            for problem in by_file[file]:
                teaching.explain(problem, "")
    blind = len(owner) - sum(map(len, by_file.values()))
    if blind == len(owner):
        raise ConfigError(
            f"--problems: none of the {blind} problems has visible tests, so nothing can "
            "be read of a failure; give visible_tests (data/formats/own.py)"
        )
    if blind and jax.process_index() == 0:
        print(
            f"left out: {blind} of {len(owner)} problems have no visible tests: no context",
            file=sys.stderr,
        )
    return by_file


def plan_drawing(work: Work) -> Callable[[Interrupt], None]:
    """The first stage, wrong programs, ready to begin."""
    wanted, folder, pool = work.wanted, work.folder, work.pool
    problems, seconds = list(work.problems.values()), work.settings.cpu_seconds
    if wanted.wrong:
        jobs, passed = drawing.file_jobs(problems, wanted.wrong, seconds)
        if not jobs:
            raise ConfigError(f"--wrong: none of {passed} programs failed: nothing to mend")
        folder.drawn.fates[Fate.PASSED] = passed
        return functools.partial(drawing.find_wrong, folder, jobs, pool, None)
    student = work.student
    if not wanted.teacher:  # before anything is drawn in vain
        work.require_turns(student)
    folder.require_model(folder.drawn, student.label, "RUN")
    jobs = _plan_draws(wanted, problems, student, seconds)
    player = Player(
        student.coder,
        student.actor,
        sum(len(job.strategies) for job in jobs),
        _truncation(wanted, student.config, wanted.temperature),
        wanted.seed,
        group=wanted.samples,
    )
    return functools.partial(drawing.find_wrong, folder, jobs, pool, player)


def _plan_draws(
    wanted: Wanted, problems: Sequence[Problem], student: Model, seconds: float
) -> list[Job]:
    """What is to be drawn; problems whose prompts are too long are left out and named."""
    out = sources.leave_out_long(
        whole_tasks(problems), student.coder.tokenizer, student.config, restore.PROMPT_FLAG
    )
    problems = [problem for problem in problems if problem.id not in out]
    return drawing.draw_jobs(problems, wanted.samples, student.label, seconds)


def _truncation(wanted: Wanted, config: Config, temperature: float | None) -> Truncation:
    own = config.sampling
    heat = own.temperature if temperature is None else temperature
    top_p = own.top_p if wanted.top_p is None else wanted.top_p
    return Truncation(heat, top_p, own.top_k, own.min_p) if heat else Truncation(0.0)


def ask(work: Work, interrupt: Interrupt) -> None:
    """The second stage: answers."""
    wanted, folder = work.wanted, work.folder
    contexts = asking.contexts_of(folder.wrong(), work.problems, wanted.variants)
    if not contexts:
        raise ConfigError(
            f"--problems: no wrong program to ask about: {folder.drawn.tell('programs')}"
        )
    if wanted.teacher == RULE:
        teacher = asking.rule_teacher(RULE)
    else:
        work.require_turns(work.teacher)
        strict = wanted.asked.strict
        contexts = leave_out_long(contexts, work.teacher.coder, strict)
        teacher = _model_teacher(work, len(contexts))
    folder.require_model(folder.answered, teacher.label, "--teacher")
    fence = "```" if wanted.teacher == RULE else work.teacher.coder.prompt.fence
    asking.collect_answers(folder, contexts, teacher, work.pool, fence, interrupt)


def _model_teacher(work: Work, contexts: int) -> Teacher:
    wanted, model = work.wanted, work.teacher
    # no answer is drawn by the numbers that drew a program
    seed = int(np.random.SeedSequence([wanted.seed, 1]).generate_state(1)[0] >> 1)
    player = Player(
        model.coder,
        model.actor,
        contexts * wanted.answers,
        _truncation(wanted, model.config, wanted.teacher_temperature),
        seed,
    )
    return asking.model_teacher(model.label, wanted.answers, player)


def leave_out_long(
    contexts: Sequence[Context], coder: Coder, strict: bool
) -> list[Context]:
    """The contexts whose prompts fit; the others are named.

    ConfigError where none fits, and where `strict` any does not.
    """
    rows = coder.require_short([context.task for context in contexts])
    long = len(contexts) - len(rows)
    if not rows or (strict and long):
        raise ConfigError(
            f"{restore.PROMPT_FLAG}: {long} of {len(contexts)} contexts have more than "
            f"{coder.prompt.max_prompt_length} tokens; raise it, with another --out and "
            "--wrong what was drawn"
        )
    return [contexts[row] for row in rows]
