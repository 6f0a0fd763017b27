"""The runner of experiments/self_debug.py: chains of commands, one file per run, a table.

It stands on ablation_runner (study, resuming, digest, jobs, record). Read scale (how large
a study is), chain (what a run needs, and its commands) and command (the flags); then record
(a run's folders as one JSON), with explaining (a process that asks whether the reward of
explanations pays the truth), and measures, table (what reads records).
"""
