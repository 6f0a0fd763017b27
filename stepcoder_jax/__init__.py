"""StepCoder in JAX: a code model learns from running its own programs.

What a notebook or an experiment imports is this; anything else may move:

    from stepcoder_jax import config
    from stepcoder_jax.execution import Pool, PoolSettings, SandboxError, open_pool
    from stepcoder_jax.records import Mode, Problem, Program, Report, TestCase, Verdict
    from stepcoder_jax.data.problems import read_any
    from stepcoder_jax.results.logger import read_metrics

Read train.py first, then the rooms that it names.
"""

__version__ = "0.1.0"
