"""What stops a run before it is spoilt, and what warns of it.

README.md beside this file says what lives here and who may call it.
"""
