"""Every knob and every default, as typed dataclasses; `Config.validate` runs once.

Functions elsewhere take no defaults for hyper-parameters. An experiment is a Python file
whose `get_config(arg="")` returns a `Config`; the command line overrides fields by dotted
flag. The defaults are the paper's where it gives them (arXiv:2402.01391, section 4.2) and
METHOD's where it is silent; those of the judge stand in execution/settings.py, which works
without this folder.

Who comes in takes the names below. The fields of a section, their ranges and the rules that
join them stand in its file. Read whole, then a section as the need is: model, learning,
sampling, feedback, execution, data, run, sft. Beneath them are section, ranges and paths;
older reads the config of an older run.
"""

from stepcoder_jax.config.data import DataConfig, EvaluationConfig
from stepcoder_jax.config.execution import ExecutionConfig
from stepcoder_jax.config.feedback import CCCSConfig, FGOConfig, RewardConfig, split_term
from stepcoder_jax.config.learning import GRPOConfig, OptimizerConfig, PPOConfig
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
