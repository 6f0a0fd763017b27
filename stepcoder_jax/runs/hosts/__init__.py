"""The hosts of one run: they begin together, fail together and end together.

README.md beside this file says what lives here and who may call it.
"""
