"""Heads that learn from judged samples: which outcome a program has, and who wrote it.

README.md beside this file says what lives here and who may call it.
"""
