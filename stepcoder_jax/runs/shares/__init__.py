"""How hosts share the work of a run: who has which row, and what all know of it.

README.md beside this file says what lives here and who may call it.
"""
