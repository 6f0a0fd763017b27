"""A run, and what it is made of.

Imports every room but commands. Read experiment (the file that a run begins with), restore
(a run read back), generate (tasks to judged programs) and greedy, which measures by it.
rl_run and sft_run are one run each of RL and of SFT: its parts, state and folder; closing
is the end of RL's, and schedule says when that is, and what is due before. iteration and
iteration_metrics are what one iteration leaves for the log, problem_set what a checkpoint
knows of its problems. raft makes text to learn of judged samples; failing shows the test
that a program failed. What stands on disk is in disk/.
"""
