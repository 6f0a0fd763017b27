"""Two rewards for an answer to a failed program: of its explanation, and of its program.

After arXiv:2405.18649, section 4.2 and appendix A.3. An answer y = [e, r] to a wrong
program w is compared with its siblings, the right answers to w:

    S_cb = mean CodeBLEU of r against their programs       S_ut = passed tests / tests
    S_ex = mean cosine of e with their explanations
    R(r) = 5 (S_cb + S_ut) - 5, on the last token          R(e) = (50 S_ex - 35) / 3, on the
                                                           last token of the explanation

Where the paper is silent, or its reward pays for what nobody wants, there are options:

    program rewards   paper; tests: 10 S_ut - 5; tests_then_codebleu: S_cb counts only where
                      all tests pass; gain: S_cb less that of w itself, so that a copy of w
                      earns what its tests earn
    maps of S_ex      PAPER, which is not clipped below; CLIPPED, to [-5, 5]; or one that is
                      fitted to an encoder (`fit_explanation_map`), since right explanations
                      by a small encoder lie far below the paper's 0.7
    one scalar        R(e) + R(r) on the last token, for both parts

R(r) is never below -5, what an answer without a program gets: else it would pay to write
none. An empty explanation has no embedding: where a scalar needs its R(e), that is the
least of the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from stepcoder_jax import syntax
from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.records import InputError, Report, Task, Variant
from stepcoder_jax.similarity.codebleu import mean_codebleu
from stepcoder_jax.similarity.embedders import Embedder

ProgramReward = Literal["paper", "tests", "tests_then_codebleu", "gain"]
LEAST = -5.0  # R(r), also of an answer without a program
MOST = 5.0
_FITTED = 2.5  # where the medians of right and of wrong explanations are put, with a sign


class Siblings(NamedTuple):
    """The right answers to one wrong program; an explanation "" where one wrote none."""

    programs: tuple[str, ...]
    explanations: tuple[str, ...]


class ExplanationMap(NamedTuple):
    """R(e) = slope S_ex + intercept, kept between low and high."""

    slope: float
    intercept: float
    low: float = -math.inf
    high: float = math.inf

    def __call__(self, similarity: float) -> float:
        found = self.slope * similarity + self.intercept
        return min(max(found, self.low), self.high)

    @property
    def least(self) -> float:
        """That of an explanation which is the opposite of all right ones."""
        return self(-1.0)


PAPER = ExplanationMap(50 / 3, -35 / 3)
CLIPPED = ExplanationMap(50 / 3, -35 / 3, LEAST, MOST)


class Scores(NamedTuple):
    """What an answer is worth, part by part; nan where it was not asked for or has none."""

    tests: float  # S_ut
    codebleu: float  # S_cb
    codebleu_of_wrong: float  # S_cb of w in the place of r
    explanation: float  # S_ex


def leave_out(siblings: Siblings, own: int, canonical: str) -> Siblings:
    """The siblings of a record that is itself one of them, which would score 1.

    The canonical solution stands in for an only one. It explains nothing.
    """
    programs, explanations = (
        (*each[:own], *each[own + 1 :])
        for each in (siblings.programs, siblings.explanations)
    )
    return Siblings(programs or (canonical,), explanations or ("",))


def program_reward(scores: Scores, kind: ProgramReward) -> float:
    """R(r) of a program, from -5 to 5."""
    tests, codebleu = scores.tests, scores.codebleu
    if kind == "tests":
        total = 2 * tests
    elif kind == "tests_then_codebleu":
        total = tests + (codebleu if tests == 1 else 0.0)
    elif kind == "gain":
        total = tests + codebleu - scores.codebleu_of_wrong
    else:
        total = tests + codebleu
    return max(LEAST, 5 * total - 5)


def explanation_similarities(
    explanations: Sequence[str], siblings: Sequence[Siblings], embed: Embedder
) -> np.ndarray:
    """S_ex f64[n]: mean cosine with the explanations of each one's own siblings.

    nan where the explanation is empty, or its siblings have none. Each text is embedded
    once.
    """
    known = [[text for text in each.explanations if text.strip()] for each in siblings]
    scored = [bool(text.strip() and right) for text, right in zip(explanations, known)]
    pairs = [pair for pair, is_scored in zip(zip(explanations, known), scored) if is_scored]
    texts = list(dict.fromkeys(text for own, right in pairs for text in (own, *right)))
    found = np.full(len(explanations), np.nan)
    if texts:
        rows, place = embed(texts), {text: place for place, text in enumerate(texts)}
        found[scored] = [
            float(np.mean(rows[[place[text] for text in right]] @ rows[place[own]]))
            for own, right in pairs
        ]
    return found


def fit_explanation_map(
    groups: Sequence[tuple[Sequence[str], Sequence[str]]], embed: Embedder
) -> ExplanationMap:
    """A map for an encoder, of the (right, wrong) explanations of each wrong program.

    The median S_ex of right ones, each without itself, is worth +2.5, that of wrong ones
    -2.5; the rest is on the line through both, within [-5, 5]. Raises InputError where the
    records have too few of either, or the encoder ranks them the other way.
    """
    sides: list[list[tuple[str, Siblings]]] = [[], []]
    for right, wrong in groups:
        whole = Siblings(("",) * len(right), tuple(right))
        sides[0] += [(e, leave_out(whole, i, "")) for i, e in enumerate(right)]
        sides[1] += [(e, whole) for e in wrong]
    medians = []
    for name, side in zip(("right", "wrong"), sides):
        texts, compared = [text for text, _ in side], [whole for _, whole in side]
        found = explanation_similarities(texts, compared, embed)
        found = found[~np.isnan(found)]
        if not found.size:
            raise InputError(
                f"records: no {name} explanation beside right ones of the same wrong "
                "program, so R(e) cannot be fitted; ask the teacher for more answers, or "
                "use the paper's map"
            )
        medians.append(float(np.median(found)))
    high, low = medians
    if not high > low:
        raise InputError(
            f"encoder: expected right explanations to be more alike than wrong ones, got "
            f"medians of {high:.3f} and {low:.3f}; use another encoder"
        )
    slope = 2 * _FITTED / (high - low)
    return ExplanationMap(slope, _FITTED - slope * high, LEAST, MOST)


def score_program(
    task: Task, answer: Answer, report: Report, siblings: Siblings, kind: ProgramReward
) -> Scores:
    """The scores of an answer's program that a reward of this kind asks for."""
    if answer.program is None:
        return Scores(0.0, 0.0, math.nan, math.nan)
    total = len(report.tests)
    tests = report.passed_tests / total if total else float(report.passed)
    codebleu = of_wrong = math.nan
    if kind != "tests":
        codebleu = mean_codebleu(answer.program.source, siblings.programs)
    if kind == "gain":
        of_wrong = mean_codebleu(task.before[-1].source, siblings.programs)
    return Scores(tests, codebleu, of_wrong, math.nan)


def split_rewards(
    tasks: Sequence[Task],
    answers: Sequence[Answer],
    reports: Sequence[Report],
    siblings: Sequence[Siblings],
    mask: np.ndarray,
    *,
    embed: Embedder | None,
    explanation_map: ExplanationMap = PAPER,
    kind: ProgramReward = "paper",
    one_scalar: bool = False,
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return the rewards f32[B, T] of a batch, |e| i32[B], and columns of numbers f64[B].

    Row b answers the context `tasks[b]`, to which `siblings[b]` are right answers; `mask`
    is bool[B, T] of the rollout. Rewards stand on token |e| and on the last True of the
    mask, both there where all of the answer is explanation. An invalid row has none. R(e)
    stands nowhere where `embed` is None or no sibling explains; |e| is 0 where no
    explanation was asked for or none came, and with `one_scalar`: such an answer is one
    part.
    """
    mask = np.asarray(mask)
    rewards, explained = np.zeros(mask.shape, np.float32), np.zeros(len(mask), np.int32)
    similar = np.full(len(mask), np.nan)
    if embed is not None:
        texts = [answer.explanation for answer in answers]
        similar = explanation_similarities(texts, siblings, embed)
    columns = {f"split/{name}": np.full(len(mask), np.nan) for name in _LOOKED_AT}
    rows = zip(tasks, answers, reports, siblings, strict=True)
    for row, (task, answer, report, right) in enumerate(rows):
        asked = task.variant is Variant.EXPLAIN
        if asked and not one_scalar:
            explained[row] = answer.explanation_tokens
        places = np.flatnonzero(mask[row])
        if not report.is_valid or not places.size:
            continue
        scores = score_program(task, answer, report, right, kind)
        scores = scores._replace(explanation=float(similar[row]))
        of_program = LEAST if answer.program is None else program_reward(scores, kind)
        rewards[row, places[-1]] = of_program
        if asked and embed is not None and any(map(str.strip, right.explanations)):
            said = not math.isnan(scores.explanation)
            value = explanation_map(scores.explanation) if said else explanation_map.least
            if one_scalar or explained[row]:
                rewards[row, places[-1 if one_scalar else explained[row] - 1]] += value
        for name, number in _look(task, answer, scores).items():
            columns[f"split/{name}"][row] = number
    return rewards, explained, columns


_LOOKED_AT = ("tests", "codebleu", "explanation", "copied", "without_code")


def _look(task: Task, answer: Answer, scores: Scores) -> dict[str, float]:
    """What there is to tell of a valid row, nan where there is nothing."""
    wrong, program = task.before[-1].source, answer.program
    return {
        "tests": scores.tests,
        "codebleu": scores.codebleu,
        "explanation": scores.explanation,
        "copied": float(program is not None and syntax.is_same(wrong, program.source)),
        "without_code": float(program is None),
    }
