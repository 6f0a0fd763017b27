"""The embedded benchmark: problems on lists of numbers, made from a seed.

README.md beside this file says what lives here and who may call it.
"""
