"""One file for each sub-command but train; a command may import every room.

Only `__main__` comes in, when a sub-command is known, and none takes from another: what two
need is in a room below. Read evaluate or judge first; judge_samples is the part of judge
that runs a model's samples.
"""
