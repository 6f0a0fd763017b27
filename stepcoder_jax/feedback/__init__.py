"""Tasks before sampling and feedback after it: plain Python and numpy, never JAX.

Imports config, records, pytrees and syntax. Read in the order of an iteration: cccs (which
problem, at which stage), stages (how much that gives), cuts (of which text), prompts (tasks
to tokens, tokens to programs), fgo (executed code to executed tokens, with evidence and
painting), rewards (verdicts to rewards). sft_rows makes supervised text of tasks.
"""
