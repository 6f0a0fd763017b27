"""Every knob and every default, as typed dataclasses; `Config.validate` runs once.

README.md beside this file says what lives here and who may call it.
"""

from stepcoder_jax.config.data import DataConfig, EvaluationConfig
from stepcoder_jax.config.execution import ExecutionConfig
from stepcoder_jax.config.feedback import CCCSConfig, FGOConfig, RewardConfig, split_term
from stepcoder_jax.config.learning import (
    CodeRLConfig,
    GRPOConfig,
    OptimizerConfig,
    PPOConfig,
)
from stepcoder_jax.config.model import ModelConfig
from stepcoder_jax.config.older import flatten
from stepcoder_jax.config.paths import PATHS, is_url
from stepcoder_jax.config.run import MeshConfig, RunConfig
from stepcoder_jax.config.sampling import PromptConfig, SamplingConfig
from stepcoder_jax.config.section import ConfigError, Section
from stepcoder_jax.config.sft import SFTConfig
from stepcoder_jax.config.whole import Config

__all__ = [
    "PATHS",
    "CCCSConfig",
    "CodeRLConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluationConfig",
    "ExecutionConfig",
    "FGOConfig",
    "GRPOConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PPOConfig",
    "PromptConfig",
    "RewardConfig",
    "RunConfig",
    "SFTConfig",
    "SamplingConfig",
    "Section",
    "flatten",
    "is_url",
    "split_term",
]
