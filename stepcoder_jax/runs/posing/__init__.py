"""Which problems an iteration learns from, beside the curriculum: feedback on them decides.

README.md beside this file says what lives here and who may call it.
"""
