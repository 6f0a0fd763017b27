"""The mesh, and the jitted, donated, sharded programs of a run.

README.md beside this file says what lives here and who may call it.
"""
