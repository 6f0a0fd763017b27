"""Tasks before sampling and feedback after it: plain Python and numpy, never JAX.

Imports config, records, pytrees, syntax, similarity, and of the judge how a value is shown.
Read in the order of an iteration: cccs (which problem, at which stage), stages (how much
that gives), cuts (of which text), prompts (tasks to tokens, tokens to programs), fgo
(executed code to executed tokens, with evidence and painting), and in rewards/ what a
program earns. turns are what a model reads of a failed program, answers what it says then,
split_rewards what its explanation and its program are worth, contexts the failed programs
that RL answers. sft_rows makes supervised text of tasks.
"""
