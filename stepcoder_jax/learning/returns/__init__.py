"""Losses that take a program's return as it is: no ratio, no clip, no critic of their own.

README.md beside this file says what lives here and who may call it.
"""
