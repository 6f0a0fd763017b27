"""Readers: rows of a file to problems, one file for each format.

README.md beside this file says what lives here and who may call it.
"""
