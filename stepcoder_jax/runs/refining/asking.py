"""Answers to wrong programs: asked of a teacher, judged on all tests, kept as records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from stepcoder_jax.data.generated import teaching
from stepcoder_jax.data.refinements import RefinementRecord, Wrong
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.progress import StepProgress
from stepcoder_jax.records import Attempt, Problem, Program, Task, Variant
from stepcoder_jax.runs.disk.interrupt import Interrupt, breakable
from stepcoder_jax.runs.generate import Player, run_all
from stepcoder_jax.runs.refining.folder import Folder
from stepcoder_jax.similarity.lexemes import overlap
from stepcoder_jax.strategies.driving import Ask, AskAll, drive
from stepcoder_jax.strategies.mending import Answered, Fate, answer_wrong

WINDOW = 512  # answers that are held at a time


class Context(NamedTuple):
    """A wrong program before a teacher."""

    wrong: Wrong
    attempt: Attempt
    source: str  # who wrote it
    task: Task


class Teacher(NamedTuple):
    """Who answers."""

    label: str
    answers: int  # to each context
    ask_from: Callable[[int], AskAll]  # the place of the first -> what asks


def contexts_of(
    wrong: Iterable[tuple[Wrong, Attempt, str]],
    problems: Mapping[str, Problem],
    variants: Sequence[Variant],
) -> list[Context]:
    """Each wrong program in each variant."""
    places = {name: place for place, name in enumerate(problems)}
    return [
        Context(
            each,
            attempt,
            source,
            Task(
                problems[each.task_id],
                places[each.task_id],
                stage=0,
                head="",
                before=(attempt,),
                variant=variant,
            ),
        )
        for each, attempt, source in wrong
        for variant in variants
    ]


def model_teacher(label: str, answers: int, player: Player) -> Teacher:
    """A model; what it draws depends on the place of the answer alone."""

    def ask_from(first: int) -> AskAll:
        return player._replace(first=first, group=answers).ask

    return Teacher(label, answers, ask_from)


def rule_teacher(label: str) -> Teacher:
    """The generator of the problems, who knows what they mean."""
    return Teacher(label, 1, lambda first: _ask_rule)


def _ask_rule(wanted: Sequence[tuple[int, Ask]]) -> list[Answer | None]:
    return [_answer(asked.task) for _, asked in wanted]


def _answer(task: Task) -> Answer:
    wrong = task.before[-1].source
    mended = teaching.mend(task.problem, wrong)
    if mended is None:  # not written as the generator writes: it has no answer
        return Answer(None, "", 0)
    told = teaching.explain(task.problem, wrong) if task.variant is Variant.EXPLAIN else ""
    return Answer(Program(task.problem, mended, 0, ()), told or "", 0)


def collect_answers(
    folder: Folder,
    contexts: Sequence[Context],
    teacher: Teacher,
    pool: Pool,
    fence: str,
    interrupt: Interrupt,
) -> None:
    """Ask about each context, from where the folder is, and keep the records there."""
    stage = folder.answered
    stage.total = len(contexts) * teacher.answers
    starts = range(stage.done, stage.total, WINDOW)
    with StepProgress(len(starts), "window", "answers") as progress:
        for begin in starts:
            interrupt.check()
            end = min(begin + WINDOW, stage.total)
            chosen = [contexts[i // teacher.answers] for i in range(begin, end)]
            strategies = [answer_wrong(each.task, fence) for each in chosen]
            ask = teacher.ask_from(begin)
            with breakable():
                found = drive(strategies, ask, lambda some: run_all(pool, some, ""))
            rows = []
            for context, answered in zip(chosen, found, strict=True):
                stage.count(answered.fate, context.wrong.wrong_id)
                if answered.fate is Fate.KEPT:
                    rows.append(record_of(context, answered, teacher.label).to_row())
            folder.keep(stage, rows, end)
            progress.update(
                f"{end} of {stage.total} answers, {stage.fates[Fate.KEPT]} kept"
            )


def record_of(context: Context, answered: Answered, teacher: str) -> RefinementRecord:
    """The record of an answer that was judged."""
    answer, report = answered.answer, answered.report
    assert answer is not None and answer.program is not None and report is not None
    return RefinementRecord(
        task_id=context.wrong.task_id,
        wrong_id=context.wrong.wrong_id,
        wrong=context.wrong.source,
        source=context.source,
        feedback=context.attempt,
        explanation=answer.explanation.strip(),
        refinement=answer.program.source,
        variant=context.task.variant,
        teacher=teacher,
        round=len(context.task.before),
        verdict=report.verdict,
        passed_tests=report.passed_tests,
        tests=len(report.tests),
        similar=overlap(context.wrong.source, answer.program.source),
        weak=report.weak,
    )
