"""A run, and what it is made of.

Imports every room but commands. Read experiment (the file that a run begins with), restore
(a run read back), generate (tasks to judged programs) and greedy, which measures by it.
problem_set is what a checkpoint knows of its problems, iteration_metrics what a log says of
an iteration; sft_run is one run of SFT. What stands on disk is in disk/.
"""
