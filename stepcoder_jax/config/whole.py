"""A whole run: the sections together, checked once, written to a file and read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import chain
from typing import Any, Literal

from stepcoder_jax.config import (
    data,
    execution,
    feedback,
    learning,
    model,
    older,
    paths,
    sampling,
    sft,
)
from stepcoder_jax.config.data import DataConfig, EvaluationConfig
from stepcoder_jax.config.execution import ExecutionConfig
from stepcoder_jax.config.feedback import CCCSConfig, FGOConfig, RewardConfig
from stepcoder_jax.config.learning import CodeRLConfig, GRPOConfig, PPOConfig
from stepcoder_jax.config.model import ModelConfig
from stepcoder_jax.config.ranges import Rules, check_field, fields_of
from stepcoder_jax.config.run import MeshConfig, RunConfig
from stepcoder_jax.config.sampling import PromptConfig, SamplingConfig
from stepcoder_jax.config.section import ConfigError, Section
from stepcoder_jax.config.sft import SFTConfig


@dataclasses.dataclass
class Config(Section):
    """A whole run."""

    # the other two have no critic; see learning/README.md
    algorithm: Literal["ppo", "grpo", "coderl"] = "ppo"
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    grpo: GRPOConfig = dataclasses.field(default_factory=GRPOConfig)
    coderl: CodeRLConfig = dataclasses.field(default_factory=CodeRLConfig)
    cccs: CCCSConfig = dataclasses.field(default_factory=CCCSConfig)
    fgo: FGOConfig = dataclasses.field(default_factory=FGOConfig)
    reward: RewardConfig = dataclasses.field(default_factory=RewardConfig)
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)

    @property
    def batch_size(self) -> int:
        """Rollouts per iteration, B."""
        return self.sampling.problems_per_step * self.sampling.rollouts_per_problem

    @property
    def compared(self) -> int:
        """Rollouts that are judged against each other: those of a problem, or 1."""
        in_groups = self.algorithm == "grpo" and self.grpo.estimator not in sampling.ALONE
        return self.sampling.rollouts_per_problem if in_groups else 1

    @property
    def takes_returns(self) -> bool:
        """Whether the loss takes a program's return as it is: learning/returns/."""
        return self.algorithm == "coderl"

    @property
    def learnt_rows(self) -> int:
        """Rows that an iteration learns from: rollouts, and behind them written programs.

        There are as many of these, where the algorithm learns some.
        """
        is_mixed = self.takes_returns and self.coderl.supervised > 0
        return self.batch_size * (2 if is_mixed else 1)

    @classmethod
    def from_dict(cls, tree: dict[str, Any], source: str = "the config") -> Config:
        """The config that `dataclasses.asdict` made `tree` from, back through JSON.

        That of an older version means what it meant there (see older.py). Raises
        ConfigError, with `source`, for a field that this version does not have.
        """
        config = cls()
        known = {field.name for field in fields_of(config)}
        for name, value in older.read(tree, source, older.CHANGED, older.ADDED).items():
            if name not in known:
                raise ConfigError(
                    f"{name}: this version has no such field, and {source} has it; use the "
                    "version that wrote it, or a newer one"
                )
            paths.put(config, name, value)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts, for a file: their paths mean the same from any folder."""
        return paths.absolute_paths(dataclasses.asdict(self))

    def validate(self) -> None:
        """Raise ConfigError for the first field whose value cannot work."""
        for field in fields_of(self):
            expected = check_field(field)
            if expected:
                raise ConfigError(
                    f"{field.name}: expected {expected}, got {field.value!r}; set "
                    f"--{field.name}"
                )
        for name, holds, expected in chain.from_iterable(rules(self) for rules in RULES):
            if not holds:
                raise ConfigError(
                    f"{name}: expected {expected}, got {paths.look_up(self, name)!r}; set "
                    f"--{name}"
                )


# In the order in which they are asked, after each field by itself.
RULES: tuple[Callable[[Config], Rules], ...] = (
    *(paths.rules, model.rules, learning.reference_rules, sampling.group_rules),
    sampling.buffer_rules,
    *(learning.group_rules, learning.coderl_rules, learning.control_rules),
    *(learning.value_rules, learning.batch_rules, execution.rules, data.rules, sft.rules),
    *(sampling.length_rules, feedback.curriculum_rules, feedback.term_rules),
    feedback.context_rules,
)
