"""Why an iteration could teach nothing, and what mends it, from its row of metrics."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stepcoder_jax.config import Config

# The KL to the reference is 0 within rounding below this; and iterations of an actor that
# learns, before that is worth a word.
STILL, PATIENCE = 1e-7, 5


class Cause(NamedTuple):
    """One reason why there is nothing to learn."""

    name: str  # what is so, in a few words
    mend: str  # what to change


INVALID = Cause(
    "the judge failed on every program",
    "run `stepcoder doctor`, and look at judge/restarts and the execution.* fields",
)
MASKED = Cause(
    "FGO masks every token",
    "set fgo.mask to executed or none, and fgo.keep_uncompiled to True",
)
UNCOMPILED = Cause(
    "no program compiles",
    "begin with a model that writes code (`stepcoder sft`, then model.checkpoint), with "
    "its own prompt.template",
)
CUT_OFF = Cause(
    "no program compiles, most are cut off",
    "raise sampling.max_completion_length, or begin with a model that ends its programs "
    "(`stepcoder sft`)",
)
ALL_PASS = Cause(
    "every program passes", "give harder problems (data.path), or less of their solutions"
)
NONE_PASSES = Cause(
    "all rewards are equal and none passes",
    "give easier problems (data.path), more of their solutions (cccs.enabled), or begin "
    "with a better model (`stepcoder sft`)",
)
EQUAL_GROUPS = Cause(
    "all rewards of each group are equal",
    "raise sampling.rollouts_per_problem or sampling.temperature, so that the answers to "
    "a problem differ",
)
STANDS_STILL = Cause(
    "the policy does not move (KL 0)",
    "raise ppo.actor.learning_rate, or lower its warmup_steps and ppo.critic_warmup_steps",
)


def find_cause(row: Mapping[str, Any], config: Config) -> Cause | None:
    """Why an iteration taught nothing, or None where it may have taught something.

    `row` is its row of metrics, as it is logged or as it is read back.
    """

    def number(name: str) -> float:
        value = row.get(name)
        return float("nan") if value is None else float(value)

    if number("batch/valid_rows") == 0:
        return INVALID
    if number("verdict/compile") == 1:
        return CUT_OFF if number("truncated_fraction") > 0.5 else UNCOMPILED
    if number("masked_fraction") == 1:
        return MASKED
    is_equal = number("reward_spread") == 0
    if is_equal or number("grpo/equal_share") == 1:
        if number("pass_rate") in (0, 1):
            return ALL_PASS if number("pass_rate") else NONE_PASSES
        return EQUAL_GROUPS
    has_critic = "explained_variance" in row  # a key of every row, where there is one
    first = PATIENCE + (config.ppo.critic_warmup_steps if has_critic else 0)
    if number("step") >= first and abs(number("kl")) < STILL:
        return STANDS_STILL
    return None


class Watch:
    """Counts the causes of iterations, and says when one deserves a warning."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.met: set[Cause] = set()
        self.last: Cause | None = None
        self.in_a_row = 0

    def look(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """A mark for the progress line and a warning, either may be empty.

        A cause is warned of when it is first met, and again after 10, 100 ... iterations
        in a row.
        """
        cause = find_cause(row, self.config)
        self.in_a_row = self.in_a_row + 1 if cause == self.last else 1
        self.last = cause
        if cause is None:
            return "", ""
        is_power = self.in_a_row >= 10 and set(str(self.in_a_row)[1:]) == {"0"}
        is_due = cause not in self.met or (is_power and str(self.in_a_row)[0] == "1")
        self.met.add(cause)
        since = f" ({self.in_a_row} in a row)" if self.in_a_row > 1 else ""
        warning = f"iteration {row['step']}: nothing to learn{since}: {cause.name}; "
        return f"nothing learnt: {cause.name}", warning + cause.mend if is_due else ""


def summarise(rows: Sequence[Mapping[str, Any]], config: Config) -> list[str]:
    """What the closing summary advises: the causes that a tenth of the iterations had.

    Empty for a run that could learn. Most frequent first.
    """
    causes = collections.Counter(find_cause(row, config) for row in rows)
    return [
        f"In {count} of {len(rows)} iterations there was nothing to learn: {cause.name}. "
        f"To mend it, {cause.mend}."
        for cause, count in causes.most_common()
        if cause is not None and count >= len(rows) / 10
    ]
