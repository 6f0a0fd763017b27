"""`stepcoder refine RUN --problems FILE ...`: wrong programs, explained and mended."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import tyro

from stepcoder_jax.config import ConfigError
from stepcoder_jax.config.paths import SHIPPED
from stepcoder_jax.data.generated.splits import Split
from stepcoder_jax.data.problems import digest
from stepcoder_jax.data.refinements import (
    RefinementRecord,
    Yield,
    count_yield,
    describe_yield,
    read_refinements,
)
from stepcoder_jax.devices import joining
from stepcoder_jax.execution import open_pool
from stepcoder_jax.execution.limits import digest_file
from stepcoder_jax.records import Problem, Variant
from stepcoder_jax.runs import restore
from stepcoder_jax.runs.disk import preflight
from stepcoder_jax.runs.disk.interrupt import Interrupt, Stopped
from stepcoder_jax.runs.disk.run_folder import room
from stepcoder_jax.runs.refining import work
from stepcoder_jax.runs.refining.folder import Folder
from stepcoder_jax.runs.refining.work import RULE, Wanted, Work
from stepcoder_jax.runs.shares.cores import pool_settings
from stepcoder_jax.strategies.mending import Fate

_EXIT_GOOD, _EXIT_INFRA = 0, 2
_MOST_NAMED = 20
_ANSWERS = 10  # of a model to each wrong program: the paper's


@dataclasses.dataclass
class RefineOptions:
    """Make records of self-debugging (LEDEX, arXiv:2405.18649): a model draws programs, or
    files of results have them; what fails a visible test goes with what running it said to
    a teacher, whose answers are judged on all tests. OUT gets records.jsonl, which `sft`
    learns (--sft.records), and wrong.jsonl. The same command with --resume goes on where a
    kill or a signal ended it, to the same records.

    stepcoder refine runs/sft --problems train.jsonl --out refined
    stepcoder refine runs/sft --problems a.jsonl b.jsonl --teacher runs/b --out refined
    stepcoder refine dialect --problems dialect --teacher rule --out refined
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run folder of `stepcoder train` or `sft`, or any model folder."""
    problems: tuple[str, ...]
    """Problem files, or tiers of the generated benchmark."""
    out: str
    """A new or an empty folder."""
    resume: bool = False
    """Go on with what was begun in OUT."""
    wrong: tuple[str, ...] = ()
    """Files of `evaluate --out` or `judge`, whose failed programs are asked about; default:
    the run draws."""
    samples_per_problem: int = 20
    """How many programs the run draws."""
    temperature: float | None = None
    """Of these; default: the run's own."""
    top_p: float | None = None
    """Of these and of the answers; default: the run's own."""
    teacher: str = ""
    """Who answers: a run or a model folder; "rule", the generator of a tier that has one;
    default: the run itself."""
    variant: Literal["direct", "explain", "both"] = "both"
    """Whether the teacher is asked to explain first what is wrong."""
    answers: int | None = None
    """To each wrong program in each variant; default: 10, of the rule 1."""
    teacher_temperature: float = 0.8
    """Of the answers."""
    seed: int = 0
    """Of all that is drawn."""
    split: Split = "train"
    """Of a tier."""
    step: int | None = None
    """Checkpoint of RUN; default: the best, else the last."""
    before: bool = False
    """The model that RUN began with."""
    max_prompt_length: int | None = None
    """Tokens; default: the run's own."""
    max_completion_length: int | None = None
    """Tokens; default: the run's own."""
    template: Literal["deepseek", "plain", "chat"] | None = None
    """Of the prompt; default: the run's own, or the tokenizer's chat template."""
    strict: bool = False
    """Stop at a bad row or a prompt that is too long, instead of leaving it out."""

    def wanted(self) -> Wanted:
        """What the flags mean; ConfigError for what cannot work."""
        is_rule = self.teacher == RULE
        answers = self.answers or (1 if is_rule else _ANSWERS)
        self._check(answers)
        both = (Variant.DIRECT, Variant.EXPLAIN)
        return Wanted(
            run=self.run,
            split=self.split,
            step=self.step,
            before=self.before,
            problems=self.problems,
            wrong=self.wrong,
            samples=self.samples_per_problem,
            temperature=self.temperature,
            top_p=self.top_p,
            teacher=self.teacher,
            variants=both if self.variant == "both" else (Variant(self.variant),),
            answers=answers,
            teacher_temperature=self.teacher_temperature,
            seed=self.seed,
            asked=restore.Asked(
                self.max_prompt_length,
                self.max_completion_length,
                self.template,
                self.strict,
            ),
        )

    def _check(self, answers: int) -> None:
        for name, number, least in (
            ("samples-per-problem", self.samples_per_problem, 1),
            ("answers", answers if self.answers is None else self.answers, 1),
            ("seed", self.seed, 0),
        ):
            if number < least:
                raise ConfigError(f"--{name}: expected {least} or more, got {number}")
        heats = {"temperature": self.temperature}
        heats["teacher-temperature"] = self.teacher_temperature
        for name, heat in heats.items():
            if heat is not None and not 0 <= heat < float("inf"):
                raise ConfigError(f"--{name}: expected 0 or more, got {heat}")
        if self.temperature == 0 and self.samples_per_problem > 1:
            raise ConfigError(
                f"--temperature: {self.samples_per_problem} greedy programs of a problem "
                "would be the same; give more than 0, or --samples-per-problem 1"
            )
        if answers > 1 and (self.teacher_temperature == 0 or self.teacher == RULE):
            raise ConfigError(
                f"--answers: {answers} of the rule, or greedy ones, to a program would be "
                "the same; give 1"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"--top-p: expected a share in (0, 1], got {self.top_p}")
        if not self.problems:
            raise ConfigError("--problems: expected a problem file or more, got none")
        for file in self.problems:
            if file not in SHIPPED:
                preflight.require_problems("--problems", file)
        for file in self.wrong:
            preflight.require_file("--wrong", file)

    def remember(self) -> dict[str, Any]:
        """What a resume must ask for again, by flag; files by what is in them."""
        flags = dataclasses.asdict(self)
        for name in ("out", "resume", "strict"):
            del flags[name]
        flags["problems"] = {x: x in SHIPPED or digest(x) for x in self.problems}
        flags["wrong"] = {x: digest_file(x) for x in self.wrong}
        return {name.replace("_", "-"): value for name, value in flags.items()}


def refine(options: RefineOptions) -> int:
    """`stepcoder refine`; the exit code: 2 while programs or answers were not judged."""
    joining.join_hosts()
    wanted, asked = options.wanted(), options.remember()
    folder = Folder(options.out)
    folder.take_up(asked, options.resume)
    config = restore.read_config(wanted.run)
    if wanted.teacher not in ("", RULE):
        restore.read_config(wanted.teacher)  # refused before anything is drawn
    by_file = work.load_problems(wanted, config)
    config.execution.tests = "run_all"  # records say how many tests passed
    settings = pool_settings(config.execution, coverage="none")
    with (
        open_pool(settings) as pool,
        Interrupt() as interrupt,
        room(options.out),
    ):
        job = Work(wanted, by_file, folder, pool)
        draw = None if folder.drawn.is_whole else work.plan_drawing(job)
        folder.begin(asked)
        try:
            if draw is not None:
                draw(interrupt)
            if not folder.answered.is_whole:
                work.ask(job, interrupt)
        except Stopped:
            if jax.process_index() == 0:
                print(
                    f"kept in {folder.path}: {folder.drawn.tell('programs')}; "
                    f"{folder.answered.tell('answers')}; go on with the same command and "
                    "--resume",
                    file=sys.stderr,
                )
            return interrupt.code
    return report(folder, by_file) if jax.process_index() == 0 else _EXIT_GOOD


def report(folder: Folder, by_file: Mapping[str, Sequence[Problem]]) -> int:
    """Print the table, and what was left out by name or count; the exit code."""
    for stage, what in ((folder.drawn, "programs"), (folder.answered, "answers")):
        print(stage.tell(what))
        if names := sorted(set(stage.infra)):
            more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
            print(
                f"{stage.fates[Fate.INFRA]} {what} were not judged (infra), and are left "
                f"out: of {', '.join(names[:_MOST_NAMED])}{more}"
            )
    file = folder.file(folder.answered)
    if not folder.answered.size:
        raise ConfigError(
            f"--teacher: no answer can be kept: {folder.answered.tell('answers')}; give "
            "another --teacher, or --max-completion-length, with another --out and --wrong "
            f"{folder.file(folder.drawn)}"
        )
    records = read_refinements([str(file)])
    print(describe_yield(count_by_file(folder, by_file, records)))
    right = sum(record.is_right for record in records)
    print(f"records: {file} ({len(records)}, of which {right} are right)")
    return _EXIT_INFRA if any(stage.infra for stage in folder.stages) else _EXIT_GOOD


def count_by_file(
    folder: Folder,
    by_file: Mapping[str, Sequence[Problem]],
    records: Sequence[RefinementRecord],
) -> dict[str, Yield]:
    """What came of the wrong programs of each file."""
    wrong = [each for each, _, _ in folder.wrong()]
    found = {}
    for file, problems in by_file.items():
        ids = {problem.id for problem in problems}
        found[file] = count_yield(
            [record for record in records if record.task_id in ids],
            [each for each in wrong if each.task_id in ids],
        )
    return found
