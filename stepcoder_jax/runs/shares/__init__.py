"""How hosts share the work of a run: who has which row, and what all know of it.

Imports devices for the gathers, and the nouns. Read dealing (whose a row is, and columns of
rows made whole again), then known (what all hosts know of a report).
"""
