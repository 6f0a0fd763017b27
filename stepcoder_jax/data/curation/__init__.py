"""What is wrong with a problem set, and what it is like.

Imports data, formats, execution and feedback. Read screening (findings and reasons),
overlap and solutions, which it asks, then report and stats.
"""
