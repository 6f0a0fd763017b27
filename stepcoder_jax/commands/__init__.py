"""One file for each sub-command but train: they join the sides, all rooms are theirs.

Only `__main__` comes in, when a sub-command is known. Read evaluate or judge first. raft
is the part of sft that learns from judged samples, judge_samples the part of judge that
runs a model's samples.
"""
