"""How often a run's model solves each problem of its pool.

README.md beside this file says what lives here and who may call it.
"""
