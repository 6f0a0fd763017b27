"""A run, and what it is made of.

README.md beside this file says what lives here and who may call it.
"""
