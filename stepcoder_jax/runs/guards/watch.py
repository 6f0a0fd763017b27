"""Signs that a run goes wrong, read off its rows of metrics; a warning for each.

far        KL to the reference above `ppo.kl_warning`, in nats per token
collapsed  the mean entropy of the last 5 iterations is below a tenth of that of the first 5
overfit    in the last two stretches between validations the pass rate on train rose, and
           validation/pass@1 fell in both

Each is said at most once in 20 iterations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stepcoder_jax.config import Config

APART = 20  # iterations between two warnings of a kind
SPAN, COLLAPSED = 5, 0.1


class Watch:
    """What is known of a run's rows; `rows` are those that came before."""

    def __init__(self, config: Config, rows: Sequence[Mapping[str, Any]]) -> None:
        self.bound = config.ppo.kl_warning
        self.first: list[float] = []  # entropies
        self.last: list[float] = []
        # of the newest three validations: pass@1, and the pass rate since the one before
        self.validated: list[tuple[float, float]] = []
        self.since: list[float] = []  # pass rates
        self.said: dict[str, int] = {}
        for row in rows:
            self.look(row)

    def look(self, row: Mapping[str, Any]) -> list[str]:
        """Take an iteration in; its warnings."""
        step = int(row["step"])
        kl, entropy = _number(row, "kl"), _number(row, "entropy")
        if not math.isnan(entropy):
            self.first = [*self.first, entropy][:SPAN]
            self.last = [*self.last, entropy][-SPAN:]
        is_validation = self._validate(row)
        found = {
            "far": self._far(kl),
            "collapsed": self._collapsed(),
            "overfit": self._overfit() if is_validation else "",
        }
        due = [
            name
            for name, text in found.items()
            if text and step - self.said.get(name, -APART) >= APART
        ]
        self.said.update(dict.fromkeys(due, step))
        return [f"iteration {step}: {found[name]}" for name in due]

    def _far(self, kl: float) -> str:
        if not 0 < self.bound < kl:
            return ""
        return (
            f"KL to the reference is {kl:.3g} nats per token, above ppo.kl_warning "
            f"{self.bound:g}: the policy is far from where it began; lower "
            "ppo.actor.learning_rate, or raise ppo.kl_coef (grpo.kl_coef; coderl has none)"
        )

    def _collapsed(self) -> str:
        before, now = _mean(self.first), _mean(self.last)
        if len(self.last) < SPAN or not now < COLLAPSED * before:
            return ""
        return (
            f"entropy is {now:.3g} nats per token, and began at {before:.3g}: the answers "
            "to a problem are hardly different any more; raise ppo.entropy_coef or "
            "sampling.temperature, or lower ppo.actor.learning_rate"
        )

    def _validate(self, row: Mapping[str, Any]) -> bool:
        rate, score = _number(row, "pass_rate"), _number(row, "validation/pass@1")
        if not math.isnan(rate):
            self.since.append(rate)
        if math.isnan(score):
            return False
        self.validated = [*self.validated, (score, _mean(self.since))][-3:]
        self.since = []
        return True

    def _overfit(self) -> str:
        if len(self.validated) < 3:
            return ""
        (one, rate1), (two, rate2), (three, rate3) = self.validated
        if not (one > two > three and rate1 < rate2 < rate3):
            return ""
        return (
            f"the pass rate on train rose from {rate1:.1%} to {rate3:.1%}, and "
            f"validation/pass@1 fell from {one:.1%} to {three:.1%}: problems are learnt by "
            "heart; stop at the best checkpoint, or give more problems (data.pool_size)"
        )


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    return math.nan if value is None else float(value)


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan
