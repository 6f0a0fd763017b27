"""What a run would take of chips that need not be there: memory, traffic, time.

README.md beside this file says what lives here and who may call it.
"""
