"""StepCoder in JAX: a code model learns from running its own programs.

What a notebook or an experiment imports is this; anything else may move:

    from stepcoder_jax import config
    from stepcoder_jax.execution import Pool, PoolSettings, SandboxError, open_pool
    from stepcoder_jax.records import Mode, Problem, Program, Report, TestCase, Verdict
    from stepcoder_jax.records import Task, Variant
    from stepcoder_jax.data.formats import own
    from stepcoder_jax.data.problems import read_any
    from stepcoder_jax.data.refinements import RefinementRecord, append_refinements
    from stepcoder_jax.feedback import cccs, cuts, stages
    from stepcoder_jax.feedback.answers import read
    from stepcoder_jax.feedback.fgo import label
    from stepcoder_jax.feedback.prompts import render, token_bytes
    from stepcoder_jax.feedback.split_rewards import Siblings, split_rewards
    from stepcoder_jax.feedback.split_rewards import fit_explanation_map
    from stepcoder_jax.feedback.turns import attempt_of, on_visible_tests
    from stepcoder_jax.runs.disk.sources import load_tokenizer
    from stepcoder_jax.runs.refining.folder import Folder
    from stepcoder_jax.similarity.codebleu import codebleu
    from stepcoder_jax.similarity.embedders import fit_tfidf
    from stepcoder_jax.similarity.encoder import load_encoder
    from stepcoder_jax.similarity.lexemes import overlap
    from stepcoder_jax.results.logger import read_metrics

Read train.py first, then the rooms that it names. Each has a README.md: what lives there,
who may call it, in which order to read it, and in some how to add one more.
"""

__version__ = "0.1.0"
