"""The command line: each command's flags, and what they begin.

README.md beside this file says what lives here and who may call it.
"""
