"""Records of self-debugging: how `stepcoder refine` makes them, and how SFT learns them.

Imports runs and what stands above it. Read drawing (wrong programs), then asking (their
answers); folder is what both leave on disk, a window at a time, so that a kill loses no
more than that; work makes the stages ready; lessons makes supervised text of the records.
"""
